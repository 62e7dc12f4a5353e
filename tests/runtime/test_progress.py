"""Jobs that take long say so before they begin in earnest, and show how far they are."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from support.images import draw

from samplug import SAM2Predictor, SAM2VideoPredictor, host
from samplug.runtime import progress
from samplug.runtime.progress import JobProgress, TimeLeft, duration

IMAGE = draw(96, 128, 1)
BOX = [30, 20, 70, 60]
JOBS = {
    "a fine grid": ({"points_stride": 12}, "1 crops, 144 clicks"),
    "layers of crops": ({"points_stride": 4, "crop_n_layers": 2}, "21 crops, 336 clicks"),
    "own grids": ({"point_grids": [np.full((3, 2), 0.5)] * 2, "crop_n_layers": 1}, "5 crops, 15 clicks"),
    "tiles": ({"points_stride": 4, "tile": 64, "overlap": 0}, "4 tiles, 64 clicks"),
    "tiles that overlap": ({"points_stride": 4, "tile": 64, "overlap": 48}, "15 tiles, 240 clicks"),
    "rules of Meta": ({"points_stride": 4, "crop_n_layers": 1, "rules": "meta"}, "5 crops, 80 clicks"),
}


class Bar:
    """Stands for Ultralytics' bar."""

    def __init__(self, total, initial, unit):
        self.total, self.count, self.closed = total, initial, False
        bars.append(self)

    def update(self, count):
        self.count += count

    def close(self):
        self.closed = True


bars: list[Bar] = []


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a minute whenever somebody looks at it."""
    bars.clear()
    monkeypatch.setattr(host, "TQDM", Bar)
    minutes = itertools.count(0, 60)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(minutes)))


def made(network, kind=SAM2Predictor, **overrides):
    predictor = kind(overrides={"imgsz": 128, "save": False, "verbose": True, **overrides})
    predictor.setup_model(network, verbose=False)
    return predictor


@pytest.mark.parametrize("job", JOBS)
def test_a_long_job_says_how_much_and_how_long_and_has_a_bar(network, clock, capture_log, job):
    options, said = JOBS[job]
    made(network)(IMAGE, points_batch_size=2, **options)
    (line,) = [line for line in capture_log if "clicks: about" in line]
    assert line.startswith(said) and ("hours" in line or "min" in line) and "takes less" in line
    (bar,) = bars
    assert bar.count == bar.total and bar.closed


def test_without_verbose_only_jobs_of_hours_speak(network, clock, capture_log, monkeypatch):
    made(network, verbose=False)(IMAGE, points_stride=4)
    assert not [line for line in capture_log if "about" in line]
    made(network, verbose=False)(IMAGE, points_stride=12, points_batch_size=2)
    assert [line for line in capture_log if "about" in line] and not bars


def test_a_short_job_says_nothing(network, capture_log):
    made(network)(IMAGE, points_stride=4)
    assert not [line for line in capture_log if "about" in line]


def test_the_estimate_adds_what_each_kind_of_work_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    job = JobProgress({"tile": 10, "click": 1000}, "", verbose=False)
    with job.timed("tile"):
        now[0] += 2
    with job.timed("click", 50):
        now[0] += 1
    assert job.estimate == 10 * 2 + 1000 / 50


def test_a_bar_is_closed_by_an_error(clock):
    with pytest.raises(RuntimeError, match="half way"), JobProgress({"click": 100}, "", verbose=True) as job:
        with job.timed("click"):
            pass
        raise RuntimeError("half way")
    assert bars[0].closed


def test_frames_of_a_long_clip_say_how_much_time_is_left(network, clock, capture_log):
    frames = [np.roll(IMAGE, 3 * i, 1) for i in range(4)]
    made(network, SAM2VideoPredictor)(frames, bboxes=[BOX])
    lines = [line for line in capture_log if "(frame " in line]
    assert "left" not in lines[0] and all("min left)" in line for line in lines[1:3])


def test_time_left_counts_the_frames_that_are_ahead(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    left = TimeLeft()
    now[0] = 30.0
    assert left.after_frame(10) == ", 5 min left"
    assert left.after_frame(1) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "20 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (36000, "10.0 hours")]
)
def test_durations_are_said_in_the_unit_that_fits(seconds, words):
    assert duration(seconds) == words
