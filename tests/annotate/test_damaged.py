"""A job whose folder, lock or data.yaml is damaged: refused in words that name the file."""

import gzip
import json
import shutil

import cv2
import pytest
from support.images import draw

from samplug import annotate
from samplug.annotate.plan import find_sources
from samplug.errors import JobError

DAMAGE = {
    "nothing": b"",
    "half": None,
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "an object": b"{}",
    "null": b"null",
    "nested too deeply": b"[" * 100_000,
}
LINES = {
    "nonsense": b"nonsense\n",
    "a list": b"[1]\n",
    "of other keys": b'{"source": "a", "x": 1, "size": [1, 2], "objects": []}\n',
}


@pytest.fixture(scope="module")
def done(nano_file, tmp_path_factory):
    """The folder of a job over two images."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "images").mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), draw(60, 80, i))
    options = {"model": str(nano_file), "imgsz": 64, "verbose": False, "workers": 0}
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps({f"{i}.png": {"bboxes": [[5, 5, 40, 40]]} for i in range(2)}))
    annotate(str(folder / "images"), str(prompts), str(folder / "out"), **options)
    return folder / "out"


def go_on(done, tmp_path, pattern, damage):
    """Go on with a copy of the job in which a file is damaged."""
    shutil.copytree(done, tmp_path / "out")
    file = next((tmp_path / "out").glob(pattern))
    file.write_bytes(damage(file.read_bytes()))
    annotate(out=str(tmp_path / "out"), format="coco", verbose=False)


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("pattern", ["job.json", "plan.jsonl", "records/*/*.gz"])
def test_a_damaged_file_of_a_job_is_named(done, tmp_path, pattern, name):
    def damage(content):
        return content[: len(content) // 2] if DAMAGE[name] is None else DAMAGE[name]

    if (pattern, name) == ("plan.jsonl", "nothing"):
        go_on(done, tmp_path, pattern, damage)  # it is planned again
        return
    with pytest.raises(JobError, match=rf"{pattern.rpartition('/')[2].lstrip('*')} is damaged .*Delete it"):
        go_on(done, tmp_path, pattern, damage)


@pytest.mark.parametrize("name", LINES)
def test_records_that_are_none_are_named(done, tmp_path, name):
    with pytest.raises(JobError, match=r"jsonl.gz is damaged"):
        go_on(done, tmp_path, "records/*/*.gz", lambda _: gzip.compress(LINES[name]))


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff", b"[" * 9999, *(b'{"pid": %b}' % pid for pid in (
    b'"x"', b"null", b"0", b"-1", b"99999999999999999999", b"[1]"))])  # fmt: skip
def test_a_lock_that_names_no_process_is_taken_over(done, tmp_path, content):
    shutil.copytree(done, tmp_path / "out")
    (tmp_path / "out" / "lock").write_bytes(content)
    go_on(tmp_path / "out", tmp_path / "again", "plan.jsonl", lambda plan: plan)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"train: 5", "names no folders"),
        (b"train: [a, 5]", "names no folders"),
        (b"val: {a: b}", "names no folders"),
        (b"{", "is not a data set's YAML"),
        (b"\xff\xfe\xfa", "is not a data set's YAML"),
        (b"[" * 2000, "is not a data set's YAML"),
        (b"- a", "is no data.yaml"),
        (b"train: " + b"a" * 5000, "too long|does not exist|name"),
    ],
)
def test_a_data_yaml_that_is_none_is_refused(tmp_path, text, reason):
    (tmp_path / "data.yaml").write_bytes(text)
    with pytest.raises(JobError, match=reason):
        find_sources(tmp_path / "data.yaml")


@pytest.mark.parametrize("device", ["x", 99, "cuda:99"])
def test_a_device_that_is_not_there_is_refused_in_a_line(job, device):
    with pytest.raises(JobError, match=r"(?i)device") as caught:
        job(device=device)
    assert "\n" not in str(caught.value)
