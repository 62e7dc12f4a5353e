"""Videos: committed every few frames, and gone on with in their middle, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images import draw

from samplug.annotate.work import video as video_module
from samplug.annotate.work.journal import Journal
from samplug.annotate.work.worker import Worker
from samplug.data.formats.frames import FrameImages


def write_clip(path, frames, seed=0):
    """A drawn image that is shifted from frame to frame."""
    image = draw(60, 80, seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60))
    for i in range(frames):
        writer.write(np.roll(image, 2 * i, axis=1))
    writer.release()
    return path


def boxes(image):
    """Two boxes, or three on images that are bright in the middle: objects come while the video runs."""
    found = [[5, 5, 30, 30], [40, 20, 70, 55]]
    return [*found, [30, 10, 45, 50]] if image[25:35, 35:45].mean() > 110 else found


def one_box(image):
    """One object, where there are many frames."""
    return [[5, 5, 30, 30]]


class Broken(Exception):
    """Something ends the process."""


def break_at(monkeypatch, frame):
    """Let a job end when it is told of a frame; what the disk holds is then what a kill would leave."""
    whole = Worker.annotate

    def annotate(self, shard, tick):
        seen = []

        def count(number):
            seen.append(number)
            if len(seen) == frame:
                raise Broken
            tick(number)

        return whole(self, shard, count)

    monkeypatch.setattr(Worker, "annotate", annotate)


def break_off(job, monkeypatch, given, frame):
    """Run a job that ends when it is told of a frame."""
    with monkeypatch.context() as patch:
        break_at(patch, frame)
        with pytest.raises(Broken):
            job("broken", **given)


@pytest.mark.parametrize("every", [3, 30])
def test_a_video_goes_on_in_its_middle_and_ends_with_the_same_bytes(job, contents, tmp_path, monkeypatch, every):
    monkeypatch.setattr(video_module, "SEGMENT", 4)
    given = {"source": str(write_clip(tmp_path / "clip.avi", 12)), "prompter": boxes, "prompt_every": every}
    whole = job("whole", **given)
    records = list(whole.records())
    assert [record.frame for record in records] == list(range(12)) and records[-1].objects
    assert not list((whole.out / "state").iterdir())
    break_off(job, monkeypatch, given, 7)  # twice; the second time in the frames behind the first state
    assert len(list((tmp_path / "broken" / "state").glob("*/*.jsonl.gz"))) == 1
    frames = []
    with monkeypatch.context() as patch:
        patch.setattr("samplug.annotate.progress.Progress.tick", lambda self, shard, count: frames.append(count))
        again = job("broken", **given)
    assert len(frames) == 12 - 4  # those before the state are not done again
    assert contents(again) == contents(whole)


def test_a_video_that_ends_with_its_segment_goes_on_too(job, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "SEGMENT", 4)
    given = {"source": str(write_clip(tmp_path / "clip.avi", 8)), "prompter": boxes}
    whole = job("whole", **given)
    break_off(job, monkeypatch, given, 8)
    assert contents(job("broken", **given)) == contents(whole)


@pytest.mark.parametrize(("frames", "fails"), [((2, 3), False), ((3, 3), True)])
def test_a_video_is_quarantined_when_two_processes_die_in_the_same_frame(job, tmp_path, frames, fails):
    given = {"source": str(write_clip(tmp_path / "clip.avi", 5)), "prompter": boxes}
    whole = job("whole", **given)
    journal = Journal(tmp_path / "again" / "journal" / whole.shards[0].id)
    for frame in frames:
        journal.note("start")
        for number in range(frame + 1):
            journal.note("source", f"clip.avi#{number}", "unsupervised")
    done = job("again", **given)
    assert bool(done.failures) == fails and all("same frame" in each.reason for each in done.failures)
    assert len(list(done.records())) == (1 if fails else 5)


def test_a_state_that_was_damaged_is_not_gone_on_with(job, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "SEGMENT", 4)
    given = {"source": str(write_clip(tmp_path / "clip.avi", 9)), "prompter": boxes}
    whole = job("whole", **given)
    break_off(job, monkeypatch, given, 7)
    (state,) = (tmp_path / "broken" / "state").glob("*/*.pt")
    state.write_bytes(state.read_bytes()[:300])
    assert contents(job("broken", **given)) == contents(whole)


def test_a_file_of_prompts_prompts_videos_by_frame(job, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "SEGMENT", 4)
    source = write_clip(tmp_path / "clip.avi", 10)
    prompts = {"clip.avi": {"1": {"3": {"bboxes": [5, 5, 30, 30]}}, "6": {"8": {"bboxes": [40, 20, 70, 55]}}}}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    given = {"source": str(source), "prompter": str(tmp_path / "prompts.json")}
    whole = job("whole", **given)
    ids = [[each.id for each in record.objects] for record in whole.records()]
    assert not whole.failures and ids == [[]] + [[3]] * 5 + [[3, 8]] * 4
    break_off(job, monkeypatch, given, 6)
    assert contents(job("broken", **given)) == contents(whole)


def test_labels_of_images_cannot_prompt_a_video_which_fails_alone(job, folder, tmp_path):
    write_clip(folder / "clip.avi", 3)
    done = job()
    assert [failure.source for failure in done.failures] == ["clip.avi"] and "boxes.json" in done.failures[0].reason
    assert sum(not record.error for record in done.records()) == 7


def test_a_file_that_is_no_video_fails_alone(job, folder):
    (folder / "clip.mp4").write_bytes(b"no video")
    done = job(prompter=boxes)
    assert [failure.source for failure in done.failures] == ["clip.mp4"]


def test_folders_of_images_are_videos_by_their_frames(job, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "SEGMENT", 2)
    for name in ("a", "b/c"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(9, 13):
            cv2.imwrite(str(tmp_path / "clips" / name / f"{i}.png"), np.roll(draw(60, 80, 0), 2 * i, axis=1))
    given = {"source": str(tmp_path / "clips"), "prompter": boxes, "frames": True}
    break_off(job, monkeypatch, given, 4)
    whole = job("whole", **given)
    found = [(record.source, record.frame) for record in whole.records()]
    assert found == [(name, frame) for name in ("a/", "b/c/") for frame in range(4)] and not whole.failures
    assert (whole.out / "labels" / "b" / "c" / "000003.txt").exists()
    assert contents(job("broken", **given)) == contents(whole)
    images = FrameImages(lambda name: str(tmp_path / "clips" / name))
    first = next(whole.records())
    assert np.array_equal(images(first), cv2.imread(str(tmp_path / "clips" / "a" / "9.png")))


def test_a_frame_that_changes_in_its_place_makes_its_video_a_new_one(job, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "clips" / name / f"{i}.png"), np.roll(draw(60, 80, 0), 2 * i, axis=1))
    given = {"source": str(tmp_path / "clips"), "prompter": one_box, "frames": True}
    done = job(**given)
    before = {shard.sources[0].name: done.records_of.path(shard.id).stat().st_mtime_ns for shard in done.shards}
    folder = (tmp_path / "clips" / "a").stat().st_mtime_ns
    # in its place: no name comes or goes
    (tmp_path / "clips" / "a" / "1.png").write_bytes(cv2.imencode(".png", draw(60, 80, 5))[1].tobytes())
    (tmp_path / "clips" / "b" / "notes.txt").write_text("no frame")
    assert (tmp_path / "clips" / "a").stat().st_mtime_ns == folder
    done = job(**given)
    after = {shard.sources[0].name: done.records_of.path(shard.id).stat().st_mtime_ns for shard in done.shards}
    assert before["a/"] != after["a/"] and before["b/"] == after["b/"]
    assert [record.source for record in done.records()] == ["b/"] * 3 + ["a/"] * 3 and not done.failures


# Runs a job and kills its process at a frame.
KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[3])
from test_videos import one_box
from samplug.annotate.settings import Settings
from samplug.annotate.job import Job
from samplug.annotate.progress import Progress
seen = 0
def tick(self, shard, count):
    global seen
    seen += count
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Progress.tick = tick
Job(Settings.read({**json.loads(sys.argv[1]), "prompter": one_box})).run()
"""


@pytest.mark.slow
def test_a_video_killed_at_frame_100_of_150_ends_with_the_same_bytes(job, contents, tmp_path):
    source = write_clip(tmp_path / "clip.avi", 150)
    given = {"source": str(source), "prompter": one_box, "prompt_every": 20}
    whole = job("whole", **given)
    names = ("source", "model", "imgsz", "batch", "shard", "prompt_every")
    options = {name: getattr(whole.settings, name) for name in names}
    options |= {"out": str(tmp_path / "killed"), "verbose": False, "workers": 0}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])}
    command = [sys.executable, "-c", KILLED, json.dumps(options), "100", str(Path(__file__).parent)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (tmp_path / "killed" / "state").glob("*/*.pt")] == ["00000001.pt"]
    assert contents(job("killed", **given)) == contents(whole)
