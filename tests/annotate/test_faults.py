"""What befalls a job: bad files, full disks, folders that cannot be written, objects that do not fit.

FAULTS is the table of all that may befall one, with the tests that hold what must come of it.
"""

import io
import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.checkpoint_files import digest
from support.images import spoilt
from support.scarce import LINUX, ROOT, as_somebody_else, small_disk

from samplug import annotate
from samplug.annotate.lock import lock
from samplug.annotate.progress import MeanRateBar, Progress
from samplug.cli.modes import MODES
from samplug.errors import JobError, UsageError
from samplug.host import Results

FAULTS = {
    "kill -9 of a process in a shard": ["processes: a_killed_process_is_replaced_and_the_records_are_the_same"],
    "kill -9 of the program": [
        "job: a_killed_job_goes_on_and_ends_with_the_same_bytes",
        "processes: a_killed_program_leaves_no_process_and_is_gone_on_with",
    ],
    "an image that kills its process": [
        "job: an_image_that_kills_its_process_is_quarantined_alone",
        "processes: several_processes_poison_and_one_that_hangs",
    ],
    "cut, empty, a web page, 0x0, huge": [
        "faults: each_bad_file_fails_alone_with_its_reason",
        "faults: the_shell_fails_above_max_failures_alone",
    ],
    "full disk": ["faults: a_full_disk_ends_the_job_in_words_and_it_goes_on_when_there_is_space"],
    "read-only folder": ["faults: a_folder_of_somebody_else_is_refused_and_stays_empty"],
    "another disk": [
        "faults: a_job_on_another_disk_gives_the_same_bytes",
        "faults: labels_whose_place_is_on_another_disk_are_refused_and_stay",
    ],
    "lost node": ["ray: a_node_that_is_lost_costs_what_it_was_doing"],
    "killed actor": ["ray: an_actor_that_is_killed_is_replaced"],
    "killed driver": ["ray: a_killed_driver_costs_what_was_not_written"],
    "changed settings": [
        "job: changed_settings_are_refused_with_the_difference_and_what_acts_at_export_is_not",
        "job: another_prompters_file_is_refused",
    ],
    "changed, new and vanished files": [
        "job: new_changed_and_vanished_files",
        "faults: a_file_that_vanishes_before_its_turn_fails_alone",
        "videos: a_frame_that_changes_in_its_place_makes_its_video_a_new_one",
    ],
    "two jobs on one folder": [
        "job: a_second_job_on_the_folder_is_refused_and_a_dead_ones_lock_is_not",
        "faults: a_second_program_has_changed_nothing_when_it_is_refused",
        "faults: a_lock_that_is_being_written_is_not_a_dead_ones",
        "processes: two_programs_on_one_folder",
    ],
    "Ctrl-C once and twice": [
        "processes: an_interrupted_job_finishes_its_shard_and_goes_on_later",
        "processes: ctrl_c_once_finishes_what_is_annotated_and_twice_stops",
    ],
    "a video killed at frame 100 of 150": ["videos: a_video_killed_at_frame_100_of_150_ends_with_the_same_bytes"],
    "local, Ray, parts": ["ray: local_and_parts_and_ray_write_the_same_bytes", "job: parts_are_the_whole_byte_by_byte"],
    "10,000 images": ["scale: memory_is_flat_in_the_number_of_images"],
    "a million names": ["scale: a_hundred_thousand_images_are_planned_and_their_plan_is_read"],
    "formats": [
        "formats: yolo_rows_draw_the_records_masks",
        "formats: every_format_is_written_from_records_alone",
        "../data/label_formats: every_pixel_class_and_id_comes_back",
        "../data/label_oracles: coco_tools_read_the_masks",
    ],
    "classes with gaps, boxes of low confidence": [
        "faults: classes_are_those_of_the_boxes_when_a_mask_in_the_middle_is_dropped",
        "formats: a_dropped_mask_in_the_middle_shifts_no_class_and_gaps_in_numbers_stay",
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_everything_that_may_befall_a_job_has_a_test(fault):
    for place in FAULTS[fault]:
        room, _, name = place.rpartition(": ")
        file = Path(__file__).parent / room
        assert f"\ndef test_{name}(" in file.with_name(f"test_{file.name}.py").read_text("utf-8"), place


def test_each_bad_file_fails_alone_with_its_reason(job, folder):
    whole = {record.source: record for record in job().records()}
    reasons = spoilt(folder)
    done = job()
    found = {failure.source: failure.reason for failure in done.failures}
    assert found.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert any(part in found[name] for part in reason.split("|")), (name, found[name])
    assert {record.source: record for record in done.records() if not record.error} == whole
    rows = [json.loads(line) for line in (done.out / "failures.jsonl").read_text().splitlines()]
    assert {row["source"]: row["reason"] for row in rows} == found


@pytest.mark.parametrize(("allowed", "ends"), [(0.9, False), (0.2, True)])
def test_the_shell_fails_above_max_failures_alone(folder, nano_file, tmp_path, allowed, ends):
    for i in range(3):
        (folder / f"bad{i}.jpg").write_bytes(b"")
    words = [f"source={folder}", f"prompter={tmp_path}/boxes.json", f"model={nano_file}", f"out={tmp_path}/out"]
    words += ["imgsz=64", f"max_failures={allowed}", "verbose=False"]
    if not ends:
        MODES["annotate"].run(words, "samplug")
        return
    with pytest.raises(UsageError, match=r"3 of 10 images and videos failed, more than max_failures=0.2: bad0.jpg"):
        MODES["annotate"].run(words, "samplug")


def test_failures_of_the_run_before_count(job, folder):
    for i in range(4):
        (folder / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(JobError, match="2 of 11"):
        job(max_failures=0.1)
    for _ in range(8):  # also where nothing is left to do
        with pytest.raises(JobError, match=r"[34] of 11(.|\n)*higher max_failures"):
            job(max_failures=0.1)
    assert len(job(max_failures=0.5).failures) == 4


@LINUX
def test_a_full_disk_ends_the_job_in_words_and_it_goes_on_when_there_is_space(job, contents, tmp_path):
    whole = job("whole")
    out = tmp_path / "disk"
    with small_disk(out, 64 << 10):
        filler = out / "filler"
        filler.write_bytes(bytes(32 << 10))
        with pytest.raises(OSError, match="No space left on device: . shards are still to be written.*Make space"):
            job("disk")
        assert not list(out.rglob(".*-*")) and not (out / "lock").exists()
        filler.unlink()
        assert contents(job("disk", format="coco", sheet=0)) == contents(whole)


@LINUX
@ROOT
def test_a_folder_of_somebody_else_is_refused_and_stays_empty(job, tmp_path, nano_file):
    (tmp_path / "out").mkdir()
    model = shutil.copy(nano_file, tmp_path)
    with as_somebody_else(tmp_path), pytest.raises(PermissionError, match="out"):
        job(model=str(model))
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_process_left_of_a_file_is_removed(job, contents):
    done = job()
    whole = contents(done)
    path = next((done.out / "records").rglob("*.gz"))
    left = path.with_name(f".{path.name.removesuffix('.gz')}-0badcafe.gz")
    path.rename(left)
    assert contents(job()) == whole and not left.exists()


def test_an_image_whose_objects_do_not_fit_into_memory_fails_alone(job, monkeypatch):
    from samplug.annotate.work.worker import Worker

    whole = {record.source: record for record in job("whole").records()}
    segment = Worker._segment

    def full(self, images, prompts):
        if any(image.shape[0] == 64 for image in images):
            raise MemoryError("The GPU has not enough memory for one image")
        return segment(self, images, prompts)

    monkeypatch.setattr(Worker, "_segment", full)
    done = job()
    assert [(each.source, each.reason) for each in done.failures] == [
        ("image1.png", "The GPU has not enough memory for one image")
    ]
    assert all(record == whole[record.source] for record in done.records() if not record.error)


def files_of_job(out):
    """Its files, less the links to its images."""
    return [path for path in out.rglob("*") if path.is_file() and "images" not in path.parts[len(out.parts) :]]


def test_a_second_program_has_changed_nothing_when_it_is_refused(job, folder):
    done = job()
    before = {path: digest(path) for path in files_of_job(done.out)}
    cv2.imwrite(str(folder / "image0.png"), np.zeros((33, 30, 3), np.uint8))
    lock = done.out / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(JobError, match="Process 1 on elsewhere"):
        job()
    lock.unlink()
    assert {path: digest(path) for path in files_of_job(done.out)} == before


def test_a_job_that_is_gone_on_with_writes_the_labels_that_were_asked_for(job, contents):
    done = job(format="coco,png", min_iou=0.3, class_names={"cat": "animal"}, review=3)
    for name in ("annotations.json", "review.csv"):
        (done.out / name).rename(done.out / f"before-{name}")
    again = annotate(out=str(done.out), verbose=False)
    assert again.settings.format == ("coco", "png") and again.settings.class_names == {"cat": "animal"}
    for name in ("annotations.json", "review.csv"):
        assert digest(done.out / name) == digest(done.out / f"before-{name}")
    assert annotate(out=str(done.out), format="yolo", min_iou=0.0, verbose=False).settings.min_iou == 0.0
    with pytest.raises(JobError, match="imgsz: 64 -> 96"):
        annotate(out=str(done.out), imgsz=96)


def test_a_job_goes_on_on_other_processes_and_devices(job, contents):
    whole = contents(job())
    assert contents(job(device="cpu", workers=0, timeout=60)) == whole


def test_the_rate_forgets_what_was_long_ago(tmp_path, monkeypatch):
    from samplug.annotate import progress
    from samplug.annotate.plan import Shard, Source

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "STATUS_INTERVAL", 1e9)
    shard = Shard(tuple(Source(f"{i}.png", f"/{i}.png", 1, 1) for i in range(1000)))
    bar = Progress(2000, 0, 0, tmp_path / "status.json", False)
    for _ in range(600):  # ten minutes at one a second
        now[0] += 1
        bar.tick(shard, 1)
    for _ in range(600):  # and ten at a tenth of that
        now[0] += 1
        bar.tick(shard, 0)
        bar.tick(shard, 1) if now[0] % 10 == 0 else None
    status = bar.status
    assert status["rate"] == pytest.approx(0.1, abs=0.01) and status["done"] == 0
    assert status["seconds_left"] == pytest.approx((2000 - 660) / 0.1, rel=0.1)
    bar.drop(shard)
    assert bar.status["seconds_left"] == pytest.approx(2000 / status["rate"], rel=0.01)


def test_the_bar_tells_a_time_that_is_left_while_a_video_runs():
    """Ultralytics' own bar told 2557577963556938128 hours after a video of twenty seconds."""
    screen = io.StringIO()
    bar = MeanRateBar(total=3, unit="image", file=screen, mininterval=0, disable=False)
    bar.start_t -= 10  # the first of them took ten seconds
    time.sleep(0.02)
    bar.update(1)
    for _ in range(20):
        time.sleep(0.011)
        bar.update(0)
    (left,) = re.findall(r"<(\S+)", screen.getvalue())[-1:]
    assert 20 <= float(left.removesuffix("s")) <= 25
    bar.close()


def test_classes_are_those_of_the_boxes_when_a_mask_in_the_middle_is_dropped(job, folder):
    """Ultralytics' `auto_annotate` takes the classes by the numbers of the rows that are left."""
    boxes = torch.tensor([[5.0, 10, 35, 40, 0.9, 9], [20, 12, 50, 45, 0.1, 2], [30, 5, 75, 50, 0.8, 4]])
    names = {2: "fox", 4: "hen", 9: "owl"}

    def detect(image):
        return Results(image, "", names, boxes=boxes)

    done = job(prompter=detect, source=str(folder / "image2.png"))
    (record,) = done.records()
    assert [(each.cls, each.name) for each in record.objects] == [(9, "owl"), (2, "fox"), (4, "hen")]
    worst = min(record.objects, key=lambda each: each.iou)
    left = [each for each in record.objects if each is not worst]
    assert all(each.iou > worst.iou for each in left)
    done = job(prompter=detect, source=str(folder / "image2.png"), format="coco", min_iou=worst.iou + 1e-4)
    content = json.loads((done.out / "annotations.json").read_text())
    named = {category["id"]: category["name"] for category in content["categories"]}
    assert [named[each["category_id"]] for each in content["annotations"]] == [each.name for each in left]
    for each, row in zip(left, content["annotations"], strict=True):
        assert row["area"] == each.area


@LINUX
def test_a_job_on_another_disk_gives_the_same_bytes(job, contents, tmp_path):
    whole = job("whole", format="yolo,coco")
    with small_disk(tmp_path / "disk", 8 << 20):
        done = job("disk/out", format="yolo,coco")
        assert done.out.stat().st_dev != whole.out.stat().st_dev and contents(done) == contents(whole)
        for name in ("annotations.json", "labels/image1.txt", "data.yaml", "review.csv"):
            assert digest(done.out / name) == digest(whole.out / name)
        assert (done.out / "images" / "image1.png").resolve() == (whole.out / "images" / "image1.png").resolve()


@LINUX
@pytest.mark.parametrize("kind", ["link", "disk"])
def test_labels_whose_place_is_on_another_disk_are_refused_and_stay(job, contents, tmp_path, kind):
    done = job(format="yolo,coco")
    whole, before = contents(done), digest(done.out / "annotations.json")
    labels = done.out / "labels"
    labels.rename(tmp_path / "labels")
    with small_disk(tmp_path / "disk" if kind == "link" else labels, 1 << 20) as disk:
        shutil.copytree(tmp_path / "labels", disk, dirs_exist_ok=True)
        if kind == "link":
            labels.symlink_to(disk)
        with pytest.raises(JobError, match=r"out/labels is a link, or a disk of its own.*out="):
            job(format="yolo,coco", min_iou=0.9)
        assert digest(labels / "image1.txt") == digest(tmp_path / "labels" / "image1.txt")
        assert digest(done.out / "annotations.json") == before and contents(done) == whole
        assert not (done.out / ".export").exists()


def test_a_file_that_vanishes_before_its_turn_fails_alone(job, folder):
    done = job()
    whole = {record.source: record for record in done.records()}
    shard = next(shard for shard in done.shards if shard.sources[0].name == "image2.png")
    done.records_of.remove(shard.id)
    (folder / "image2.png").unlink()
    again = job()
    assert [failure.source for failure in again.failures] == ["image2.png"]
    assert "image2.png" in again.failures[0].reason or "no such file" in again.failures[0].reason
    del whole["image2.png"]
    assert {record.source: record for record in again.records() if not record.error} == whole


def test_a_lock_that_is_being_written_is_not_a_dead_ones(tmp_path, monkeypatch):
    file = tmp_path / "lock"
    file.touch()
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    with monkeypatch.context() as patch:
        patch.setattr("samplug.annotate.lock.time.sleep", lambda _: file.write_text(holder))
        with pytest.raises(JobError, match=f"Process {os.getpid()}"), lock(file):
            pytest.fail("somebody else's")
    file.write_text("")
    os.utime(file, (0, 0))  # its process died while it wrote
    with lock(file):
        assert json.loads(file.read_text())["pid"] == os.getpid()
