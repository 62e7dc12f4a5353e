"""A job: its folder is its state, whatever ends it."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from samplug import SAM, annotate
from samplug.annotate.plan import find_sources
from samplug.annotate.work.journal import Journal
from samplug.annotate.work.worker import Worker
from samplug.errors import JobError

# Runs each job that comes in a fork of its own, which kills itself when that many batches were done, or at an image;
# prints how it ended. A first job imports all that forks need; of one thread, as forks have no other.
KILLER = """
import json, os, signal, sys, traceback
from tempfile import TemporaryDirectory
import cv2, numpy, torch
from samplug.annotate import job
from samplug.annotate.settings import Settings
from samplug.annotate.work import worker
class Killer(worker.Worker):
    done = 0
    def _batch(self, given):
        images = {source.name for source, image in given.items() if not isinstance(image, Exception)}
        if self.done == after or poison in images:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1
        return super()._batch(given)
torch.set_num_threads(1)
cv2.setNumThreads(0)
with TemporaryDirectory() as home:
    cv2.imwrite(f"{home}/a.png", numpy.zeros((60, 80, 3), numpy.uint8))
    first = {"source": home, "out": f"{home}/out", "prompter": lambda image: [[5, 5, 30, 30]], "model": sys.argv[1]}
    job.Job(Settings(**first, imgsz=64, workers=0, verbose=False)).run()
worker.Worker = Killer
print("ready", flush=True)
for line in sys.stdin:
    options, after, poison = json.loads(line)
    child = os.fork()
    if not child:
        try:
            os.dup2(2, 1)
            job.Job(Settings.read(options)).run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killer(nano_file):
    """That program."""
    command, pipes = (
        [sys.executable, "-c", KILLER, str(nano_file)],
        {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    with subprocess.Popen(command, text=True, **pipes) as program:
        assert program.stdout.readline() == "ready\n"
        yield program
        program.stdin.close()


@pytest.fixture
def run_killed(killer):
    """Runs a job in a process of its own that kills itself; returns the exit code."""

    def run(job, after=-1, poison="-"):
        options = json.loads((job.out / "job.json").read_text())["settings"]
        options = {name: value for name, value in options.items() if "sha256" not in name and value is not None}
        options |= {"source": job.settings.source, "out": str(job.out), "verbose": False, "max_failures": 1.0}
        killer.stdin.write(json.dumps([{**options, "workers": 0}, after, poison]) + "\n")
        killer.stdin.flush()
        return int(killer.stdout.readline())

    return run


def without_records(job):
    for path in (job.out / "records").rglob("*.gz"):
        path.unlink()


def test_every_image_has_a_record_and_those_without_objects_too(job, folder):
    done = job()
    records = list(done.records())
    assert [record.source for record in records] == [source.name for source in find_sources(str(folder))[1]]
    assert [len(record.objects) for record in records] == [0, 1, 2, 0, 1, 2, 0]
    assert done.progress == (4, 4) and done.failures == []
    assert all(record.size == (60 + 4 * i, 80) for i, record in enumerate(records))


def test_records_hold_the_predictors_answer(job, folder, nano_file):
    record = next(record for record in job().records() if record.source == "image2.png")
    cat, dog = record.objects
    model = SAM(nano_file)
    result = model.predict(
        str(folder / "image2.png"), bboxes=[[5, 10, 35, 40], [25, 10, 55, 40]], imgsz=64, verbose=False
    )[0]
    assert [cat.name, dog.name] == ["cat", "dog"] and [cat.cls, dog.cls] == [0, 1]
    for i, each in enumerate(record.objects):
        mask = result.masks.data[i].numpy().astype(bool)
        assert np.array_equal(each.mask, mask) and each.area == mask.sum()
        assert each.iou == pytest.approx(float(result.boxes.conf[i]), abs=1e-4)
        assert each.prompt_box == (5 + 20 * i, 10, 35 + 20 * i, 40) and 0 <= each.agreement <= 1
        assert 0 <= each.stability <= 1


def test_a_job_that_is_done_computes_nothing_again(job, contents, monkeypatch):
    first = contents(job())
    monkeypatch.setattr("samplug.annotate.work.worker.Worker", lambda settings: pytest.fail("a network was loaded"))
    assert contents(job()) == first


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(job, contents, run_killed):
    done = job()
    whole, before = contents(done), {}
    for after in (0, 1, 3):
        without_records(done)
        assert run_killed(done, after) == -signal.SIGKILL
        before = {path: path.stat().st_mtime_ns for path in (done.out / "records").rglob("*.gz")}
        assert len(before) == after
        assert contents(job()) == whole
        assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())
    assert not list((done.out / "journal").iterdir()) and not (done.out / "lock").exists()


def test_an_image_that_kills_its_process_is_quarantined_alone(job, run_killed):
    done = job()
    whole = {record.source: record for record in done.records()}
    without_records(done)
    for _ in range(3):
        assert run_killed(done, poison="image3.png") == -signal.SIGKILL
    assert run_killed(done, poison="image3.png") == 0
    failures = done.failures
    assert [failure.source for failure in failures] == ["image3.png"] and "quarantined" in failures[0].reason
    for record in done.records():
        assert record.source == "image3.png" or len(record.objects) == len(whole[record.source].objects)


@pytest.mark.parametrize(("deaths", "sizes"), [(0, [2]), (1, [1, 1, 2]), (3, [1, 1, 1, 1])])
def test_a_batch_in_which_a_process_died_is_probed_and_then_done_as_it_is(job, monkeypatch, deaths, sizes):
    done = job()
    shard = next(shard for shard in done.shards if shard.sources[0].name == "image2.png")
    done.records_of.remove(shard.id)
    journal = Journal(done.out / "journal" / shard.id)
    for _ in range(deaths):
        journal.note("start")
        journal.note("batch", 0)
    seen, batch = [], Worker._batch
    monkeypatch.setattr(Worker, "_batch", lambda self, given: seen.append(len(given)) or batch(self, given))
    job()
    assert seen == sizes


def test_a_process_that_stops_by_itself_leaves_no_death(tmp_path):
    journal = Journal(tmp_path / "journal")
    for line in (("start",), ("batch", 0), ("stop",), ("start",), ("batch", 0), ("stop",)):
        journal.note(*line)
    again = Journal(journal.file)
    again.note("start")
    assert not Journal(journal.file).deaths(0)
    for line in (("batch", 0), ("start",), ("batch", 0), ("start",)):
        journal.note(*line)
    assert [Journal(journal.file).deaths(batch) for batch in range(3)] == [2, 2, 0]  # batch 1 was being read


def test_one_who_ends_the_program_twice_blames_no_image(tmp_path):
    journal = Journal(tmp_path / "journal")
    for died_in, poison in zip(("a", "b", "a"), [set(), set(), {"a"}], strict=True):
        journal.note("start")
        journal.note("batch", 0)
        journal.note("start")
        journal.note_source(died_in)
        assert Journal(journal.file).quarantined == poison


def test_the_first_source_that_dies_explains_its_batch_and_others_must_die_twice(tmp_path):
    journal = Journal(tmp_path / "journal", supervised=True)
    expected = [set(), {"a"}, {"a"}, {"a", "b"}]
    for died_in, poison in zip(
        (("batch", 0), ("source", "a"), ("source", "b"), ("source", "b")), expected, strict=True
    ):
        journal.note("start")
        journal.note(*died_in)
        assert Journal(journal.file).quarantined == poison


def test_a_journal_that_was_cut_short_is_read(tmp_path):
    journal = Journal(tmp_path / "journal")
    for line in (("start",), ("batch", 4)):
        journal.note(*line)
    journal.file.write_text(journal.file.read_text() + '["source", "a')
    assert Journal(journal.file).deaths(4) == 1 and not Journal(journal.file).quarantined


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"", "a.jpg"),
        ("a.jpg", b"<html>not an image</html>", "a.jpg"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "a.png"),
    ],
    ids=["empty", "a web page", "cut short"],
)
def test_a_file_that_is_no_image_fails_alone_with_its_reason(job, folder, name, content, reason):
    whole = {record.source: record for record in job().records()}
    (folder / name).write_bytes(content)
    done = job()
    assert [failure.source for failure in done.failures] == [name] and reason in done.failures[0].reason
    assert {record.source: record for record in done.records() if not record.error} == whole


def test_too_many_failures_end_the_job_with_their_list(job, folder):
    for i in range(5):
        (folder / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(JobError, match=r"2 of 12 .* max_failures=0.1:\n  bad0.jpg: "):
        job(max_failures=0.1)
    assert job(max_failures=1.0).progress == (6, 6)


def test_a_label_that_cannot_be_read_fails_its_image_alone(job, folder, tmp_path):
    labels = tmp_path / "yolo"
    labels.mkdir()
    (labels / "image1.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (labels / "image2.txt").write_text("0 0.5 0.5\n")
    done = job(prompter=str(labels))
    assert [failure.source for failure in done.failures] == ["image2.png"]
    assert "line 1" in done.failures[0].reason
    found = {record.source for record in done.records() if record.objects}
    assert found == {"image1.png"}  # more/image1.png is another image


def test_changed_settings_are_refused_with_the_difference_and_what_acts_at_export_is_not(job, contents):
    records = contents(job())
    with pytest.raises(JobError, match="imgsz: 64 -> 96.*another out="):
        job(imgsz=96)
    assert contents(job(format="coco", min_iou=0.9, class_names={"cat": "animal"})) == records


def test_another_prompters_file_is_refused(job, tmp_path):
    job()
    content = json.loads((tmp_path / "boxes.json").read_text())
    content["annotations"].pop()
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(JobError, match=r"prompter \(sha256\)"):
        job()


def test_a_network_that_was_fetched_by_the_first_run_is_no_other_one(job, contents):
    done = job()
    content = json.loads((done.out / "job.json").read_text())
    hash_of_model = content["settings"].pop("model (sha256)")
    (done.out / "job.json").write_text(json.dumps(content))
    assert contents(job()) == contents(done)
    assert json.loads((done.out / "job.json").read_text())["settings"]["model (sha256)"] == hash_of_model


def test_new_changed_and_vanished_files(job, folder, contents):
    labels = json.loads((folder.parent / "boxes.json").read_text())
    labels["images"] = [{"id": image["id"], "file_name": image["file_name"]} for image in labels["images"]]
    (folder.parent / "boxes.json").write_text(json.dumps(labels))  # an image of another size would have no boxes
    done = job()
    before = {path: path.stat().st_mtime_ns for path in (done.out / "records").rglob("*.gz")}
    cv2.imwrite(str(folder / "new.png"), np.zeros((20, 30, 3), np.uint8))
    done = job()
    assert [record.source for record in done.records()][-1] == "new.png"
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())
    (folder / "image4.png").unlink()
    assert "image4.png" in [record.source for record in job().records()]  # it was annotated
    cv2.imwrite(str(folder / "image0.png"), np.zeros((33, 30, 3), np.uint8))
    done = job()
    sizes = {record.source: record.size for record in done.records()}
    assert sizes["image0.png"] == (33, 30) and len(sizes) == 8
    assert sum(path.exists() and path.stat().st_mtime_ns == time_ for path, time_ in before.items()) == len(before) - 1


def test_a_job_goes_on_by_its_folder_alone(job, contents):
    done = job()
    whole = contents(done)
    next((done.out / "records").rglob("*.gz")).unlink()
    assert contents(annotate(out=str(done.out), verbose=False)) == whole


def test_a_folder_without_a_job_and_a_source_without_images_are_refused(tmp_path):
    with pytest.raises(JobError, match="source="):
        annotate(out=str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="no image and no video"):
        annotate(str(tmp_path / "empty"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "prompter", [None, lambda image: [[5, 5, 30, 30], [9, 9, 40, 40]]], ids=["everything", "boxes"]
)
def test_what_has_no_class_is_an_object(job, folder, prompter):
    cv2.imwrite(str(folder / "image0.png"), cv2.resize(cv2.imread(str(folder / "image0.png")), (320, 240)))
    done = job(prompter=prompter, source=str(folder / "image0.png"), model="samplug-nano.pt", imgsz=256)
    found = [each for record in done.records() for each in record.objects]
    assert found and {(each.cls, each.name) for each in found} == {(0, "object")}


def test_a_video_is_a_shard_whose_frames_keep_ids(job, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60))
    for i in range(3):
        writer.write(np.full((60, 80, 3), 40 * i, np.uint8))
    writer.release()
    done = job(prompter=lambda image: [[5, 5, 30, 30]], source=str(tmp_path / "clip.avi"), out="video")
    records = list(done.records())
    assert [record.frame for record in records] == [0, 1, 2] and not done.failures
    assert {(each.id, each.name) for record in records for each in record.objects} == {(0, "object")}


def test_a_function_cannot_be_gone_on_with_by_name(job):
    done = job(prompter=lambda image: [[5, 5, 30, 30]])
    with pytest.raises(JobError, match="prompter=.*give it again"):
        annotate(out=str(done.out))
    assert all(len(record.objects) == 1 for record in done.records())


def test_a_second_job_on_the_folder_is_refused_and_a_dead_ones_lock_is_not(job):
    done = job()
    lock = done.out / "lock"
    lock.write_text(json.dumps({"host": __import__("socket").gethostname(), "pid": os.getpid()}))
    with pytest.raises(JobError, match=f"Process {os.getpid()}"):
        job()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock.write_text(json.dumps({"host": __import__("socket").gethostname(), "pid": ended.pid}))
    assert job().progress == (4, 4) and not lock.exists()


def test_parts_are_the_whole_byte_by_byte(job, contents):
    whole = job()
    first = job("parts", part="1/2")
    assert first.progress == (2, 4) and not (first.out / "labels").exists()
    last = job("parts", part="2/2")
    assert contents(last) == contents(whole) and (last.out / "labels" / "image1.txt").exists()


def test_status_says_how_far_it_is(job):
    status = json.loads((job().out / "status.json").read_text())
    assert (status["done"], status["total"], status["failed"]) == (7, 7, 0)


def test_the_end_counts_objects_and_prompts_of_no_image_are_named(job, tmp_path, capture_log):
    job(verbose=True)
    assert any(line.startswith("6 objects on 4 of 7 images and frames; 0 could not") for line in capture_log)
    assert not any("no object" in line for line in capture_log)
    (tmp_path / "prompts.json").write_text(json.dumps({"imag1.png": {"bboxes": [[5, 10, 35, 40]]}}))
    job("other", prompter=str(tmp_path / "prompts.json"))
    named, empty = capture_log[-2:]
    assert "'imag1.png' is none of the source's files" in named and "image1.png" in named
    assert "no object on any image" in empty


def test_the_end_counts_what_is_in_the_labels(job, capture_log):
    done = job(verbose=True)
    ious = sorted(each.iou for record in done.records() for each in record.objects)
    job(verbose=True, min_iou=ious[3])
    kept = sum(len(path.read_text().splitlines()) > 0 for path in (done.out / "labels").rglob("*.txt"))
    line = next(line for line in reversed(capture_log) if " objects on " in line)
    left = sum(iou >= ious[3] for iou in ious)
    assert line.startswith(f"{left} objects on {kept} of 7 images and frames ({6 - left} more are dropped")
    job(verbose=True, min_iou=1.0)
    assert not any(path.read_text() for path in (done.out / "labels").rglob("*.txt"))
    assert any(line.startswith("0 objects on 0 of 7 images and frames (6 more are dropped") for line in capture_log)
    assert "no object on any image. All 6 are dropped" in capture_log[-1]


def test_a_new_name_of_a_class_that_does_not_occur_is_told(job, capture_log):
    job(class_names={"ct": "animal", "dog": None})
    assert capture_log[-1].endswith("class_names: no object is of the class ct. There are cat, dog.")
    count = len(capture_log)
    job(class_names={"cat": "animal"})
    assert not any("class_names" in line for line in capture_log[count:])
