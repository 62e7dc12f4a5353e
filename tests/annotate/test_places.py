"""What a job never takes: the source's files, the prompter's, what others have made, nor another source or labels."""

import json
import os
import shutil
from pathlib import Path

import cv2
import pytest
from support.images import draw

from samplug import annotate
from samplug.data.formats.yolo import link
from samplug.errors import DataError, JobError


@pytest.fixture
def data_set(tmp_path):
    """A data set in YOLO's layout, of two images."""
    for i in range(2):
        for name in ("images", "labels"):
            (tmp_path / "ds" / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "ds" / "images" / f"{i}.png"), draw(60, 80, i))
        (tmp_path / "ds" / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "ds" / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [cat]\n")
    return tmp_path / "ds"


@pytest.fixture
def run(data_set, nano_file):
    """Runs a job over the images of the data set, with its labels as boxes."""

    def call(out, **given):
        options = {"source": data_set / "images", "prompter": data_set / "labels", "model": str(nano_file)}
        return annotate(out=str(out), **{**options, "imgsz": 64, "workers": 0, "verbose": False, **given})

    return call


def files_in(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("out", "given", "place"),
    [
        (".", {}, "images"),
        (".", {"source": "images/*.png"}, "images"),
        (".", {"source": "data.yaml", "prompter": "data.yaml", "save_frames": True}, "images"),
        (".", {"frames": True, "format": "yolo"}, "images"),
        (".", {"source": "linked", "prompter": None}, "images"),
        (".", {"prompter": "annotations.json", "format": "coco"}, "annotations.json"),
        (".", {"format": "png"}, "masks"),
        ("labels", {}, "labels"),
        ("images", {}, "images"),
    ],
)
def test_labels_never_take_the_place_of_what_was_there(data_set, run, monkeypatch, out, given, place):
    monkeypatch.chdir(data_set)
    os.symlink("images", "linked")
    (data_set / "masks").mkdir()
    (data_set / "masks" / "0.png").write_bytes(b"mine")
    (data_set / "annotations.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    before = files_in(data_set)
    with pytest.raises(JobError, match=rf"^{place} is .*another out=.$"):
        run(out, **given)
    assert files_in(data_set) == before


def test_a_job_that_goes_on_does_not_take_them_either(data_set, run):
    job = run(data_set, format="coco")
    before = files_in(data_set / "images") | files_in(data_set / "labels")
    with pytest.raises(JobError, match="ds/images is where labels would be written"):
        run(data_set, format="yolo")
    (data_set / "masks").mkdir()
    (data_set / "masks" / "0.png").write_bytes(b"mine")
    with pytest.raises(JobError, match="ds/masks is there, and no annotation job has made it"):
        run(data_set, format="png")
    assert run(data_set, format="coco,burst").out == job.out
    assert files_in(data_set / "images") | files_in(data_set / "labels") == before


def test_what_the_job_has_made_is_replaced_and_a_folder_of_its_own_may_lie_in_the_source(data_set, run):
    for out in (data_set / "images" / "out", data_set / "labels" / "out"):
        first = run(out)
        (out / "labels" / "0.txt").unlink()
        for formats in ("yolo,coco", "png", "yolo"):
            assert run(out, format=formats).progress == first.progress == (1, 1)
        assert (out / "labels" / "0.txt").read_text() and (out / "images" / "0.png").resolve().is_file()


def test_empty_folders_and_others_files_beside_are_no_hindrance(run, tmp_path):
    (tmp_path / "out" / "labels").mkdir(parents=True)
    (tmp_path / "out" / "masks.txt").write_text("mine")
    assert run(tmp_path / "out").progress == (1, 1) and (tmp_path / "out" / "masks.txt").read_text() == "mine"


def test_an_image_is_never_linked_to_itself_nor_another_file_lost(data_set, tmp_path):
    image, other = data_set / "images" / "0.png", data_set / "images" / "1.png"
    before = files_in(data_set)
    link(str(image), image)
    with pytest.raises(DataError, match=r"1.png is another file than .*0.png.*another folder"):
        link(str(image), other)
    assert files_in(data_set) == before and not image.is_symlink()
    for _ in range(2):
        link(str(image), tmp_path / "place.png")
        assert (tmp_path / "place.png").resolve() == image
    link(str(other), tmp_path / "place.png")
    assert (tmp_path / "place.png").resolve() == other


@pytest.mark.parametrize("kind", ["folder", "names", "data.yaml"])
def test_corrected_labels_are_another_prompter(job, folder, tmp_path, contents, kind):
    labels = tmp_path / "labels"
    labels.mkdir()
    for i in range(2):
        (labels / f"image{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    prompter = str(tmp_path / "data.yaml" if kind == "data.yaml" else labels)
    records = contents(job(prompter=prompter))
    (labels / "image1.txt").touch()
    assert contents(job(prompter=prompter)) == records
    if kind == "names":
        (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [dog]\n")
    else:
        (labels / "image1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(JobError, match=r"begun with other settings \(.*prompter \(sha256\)"):
        job(prompter=prompter)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "nolabels", "a.bin"])
def test_what_is_no_prompter_is_named_with_what_is(job, tmp_path, name):
    if name != "nolabels":
        (tmp_path / name).write_text("0 0.5 0.5 0.4 0.4\n")
    with pytest.raises(JobError, match=rf"^prompter=.*{name}.* Expected .*folder of YOLO's labels.*$"):
        job(prompter=str(tmp_path / name))


def test_a_second_folder_is_no_other_source_of_the_job(job, folder, tmp_path, contents, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = contents(job(source="images"))
    (tmp_path / "other").mkdir()
    shutil.copytree(folder, tmp_path / "other" / "images")  # names and times are the same
    with pytest.raises(JobError, match=r"other/images is not below .*, where the job was begun. Use another out="):
        job(source="other/images")
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(JobError, match="where the job was begun"):
        job(source="images")
    (tmp_path / "out" / "plan.jsonl").unlink()
    done = annotate(out=str(tmp_path / "out"), verbose=False)  # by the folder that it was begun with
    assert json.loads((done.out / "job.json").read_text())["root"] == str(folder) and contents(done) == records
    shutil.rmtree(folder)
    shutil.move(tmp_path / "other" / "images", tmp_path / "moved")
    with pytest.raises(JobError, match="where the job was begun"):
        job(source="../moved")
