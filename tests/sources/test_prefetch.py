"""Where the host reads the next image or frame while this one is answered, nothing else changes.

Ultralytics does so on a GPU, and on any device for a network that has `prefetch`.
"""

import inspect
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, film, predictor_of, write_video
from ultralytics.engine.predictor import BasePredictor

from samplug import PromptError, SAM2DynamicInteractivePredictor, SAM2Predictor
from samplug.checkpoints.load import load_model

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        '"prefetch"' not in inspect.getsource(BasePredictor.stream_inference),
        reason="this release of Ultralytics reads nothing ahead",
    ),
]


@pytest.fixture(scope="module")
def ahead(nano_file):
    """The same network, under which the host reads ahead."""
    model = load_model(nano_file)
    model.prefetch = True
    return model


@pytest.fixture
def folder(tmp_path):
    """Images and videos, and of each kind one that is none."""
    for i, frame in enumerate(film()[:4]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "1.png").write_bytes(b"no image")
    write_video(tmp_path / "a.avi", film()[:3])
    (tmp_path / "b.avi").write_bytes(b"no video")
    write_video(tmp_path / "c.avi", film()[3:])
    return tmp_path


def imaged(network, kind=SAM2Predictor, **overrides):
    made = kind(overrides={"imgsz": 64, "verbose": False, "save": False, **overrides})
    made.setup_model(network, verbose=False)
    return made


def answered(worker, source, **said):
    """What is told of every image or frame, and the names of those left out."""
    told = [
        (each.path, getattr(each, "frame", None), each.orig_img, each.masks.data, each.boxes.data)
        for each in worker(source=source, stream=True, **said)
    ]
    return told, [Path(fault.name).name for fault in worker.errors.all]


def same(told, others):
    """Whether two runs told the same, bit by bit."""
    return len(told) == len(others) and all(
        one[:2] == other[:2] and np.array_equal(one[2], other[2]) and all(map(torch.equal, one[3:], other[3:]))
        for one, other in zip(told, others, strict=True)
    )


def frames_read(threads):
    """Frames of a film, and the threads in which they were asked for."""
    for frame in film():
        threads.append(threading.get_ident())
        yield frame


@pytest.mark.parametrize(("kind", "here", "read"), [("network", True, 1), ("ahead", False, 2)])
def test_it_reads_ahead_in_a_thread_of_its_own_or_not_at_all(kind, here, read, request):
    threads = []
    running = predictor_of(request.getfixturevalue(kind))(source=frames_read(threads), stream=True, bboxes=[BOX])
    next(running)
    running.close()
    assert (threads[0] == threading.get_ident()) is here and len(threads) == read


@pytest.mark.parametrize("batch", [1, 3])
def test_images_and_frames_by_themselves_are_answered_alike(network, ahead, folder, batch):
    images = sorted(map(str, folder.glob("*.png")))
    each = [{"bboxes": [BOX]}, {"points": [[9, 9]]}, {"bboxes": [BOX, OTHER]}, {"bboxes": [OTHER] * 3}]
    for source, prompts, count, bad in (
        (str(folder), {"bboxes": [BOX, OTHER]}, 11, ["1.png", "b.avi"]),
        (str(folder / "a.avi"), {"points": [[40, 40]]}, 3, []),
        (images, {"prompts": each}, 3, ["1.png"]),
        (images[2:], {"points_stride": 4, "conf_thres": 0.0, "stability_score_thresh": 0.0}, 2, []),
    ):
        told, left_out = answered(imaged(ahead, batch=batch), source, **prompts)
        assert same(told, answered(imaged(network, batch=batch), source, **prompts)[0])
        assert len(told) == count and left_out == bad


def test_objects_shown_on_the_first_frame_are_found_alike(network, ahead, folder):
    said = {"bboxes": [BOX, OTHER], "obj_ids": [4, 5], "update_memory": True}
    runs = [
        answered(imaged(each, SAM2DynamicInteractivePredictor), str(folder / "c.avi"), **said)
        for each in (network, ahead)
    ]
    assert same(runs[0][0], runs[1][0]) and len(runs[0][0]) == 5


LATER = {0: {1: {"bboxes": BOX}}, 3: {2: {"points": [9, 9]}}}
FOLLOWED = {
    "videos": (lambda folder: str(folder), {"bboxes": [BOX]}, 3 + 3 + 5, ["1.png", "b.avi"]),
    "a video": (lambda folder: str(folder / "c.avi"), {"bboxes": [BOX, OTHER], "obj_ids": [7, 3]}, 5, []),
    "both ways": (lambda folder: folder / "c.avi", {"prompts": {2: LATER[0]}, "reverse": "both"}, 5, []),
    "frames with prompts": (lambda folder: film(), {"prompts": LATER}, 8, []),
    "files": (lambda folder: sorted(map(str, folder.glob("*.png"))), {"bboxes": [BOX]}, 3, ["1.png"]),
    "a generator": (lambda folder: iter(film()), {"bboxes": [BOX]}, 8, []),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_objects_are_followed_alike(network, ahead, folder, name):
    source, said, count, bad = FOLLOWED[name]
    told, left_out = answered(predictor_of(ahead), source(folder), **said)
    assert same(told, answered(predictor_of(network), source(folder), **said)[0])
    assert len(told) == count and left_out == bad


def test_a_video_that_is_given_up_is_left_out_though_its_next_frame_was_read(network, ahead, tmp_path):
    for name, size in (("a", (128, 96)), ("b", (32, 32)), ("c", (128, 96))):
        write_video(tmp_path / f"{name}.avi", [cv2.resize(frame, size) for frame in film()[:4]])
    told, left_out = answered(predictor_of(ahead), str(tmp_path), bboxes=[[50, 50, 90, 90]])
    assert same(told, answered(predictor_of(network), str(tmp_path), bboxes=[[50, 50, 90, 90]])[0])
    assert len(told) == 8 and left_out == ["b.avi"]
    with pytest.raises(PromptError, match="outside"):
        answered(predictor_of(ahead), str(tmp_path / "b.avi"), bboxes=[[50, 50, 90, 90]])


def test_a_frame_that_went_by_can_be_corrected(network, ahead, folder):
    runs = []
    for model in (network, ahead):
        worker, told = predictor_of(model), []
        for result in worker(source=str(folder / "c.avi"), stream=True, bboxes=[BOX]):
            if result.frame == 2:
                worker.add_new_prompts(9, bboxes=OTHER, frame_idx=1)
            told.append((result.obj_ids, result.logits))
        runs.append(told)
    assert [ids for ids, _ in runs[1]] == [ids for ids, _ in runs[0]] == [(0,)] * 3 + [(0, 9)] * 2
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(*runs, strict=True))


def open_files():
    """The files that this process holds open."""
    links = Path("/proc/self/fd").iterdir()
    return {os.path.realpath(link) for link in links}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads what Linux says of a process")
@pytest.mark.parametrize("worker", [predictor_of, imaged])
@pytest.mark.parametrize("end", ["close", "error", "finish"])
def test_a_run_that_ends_early_or_late_lets_go_of_its_file(ahead, tmp_path, worker, end):
    path, before = str(write_video(tmp_path / "film.avi", film() * 4)), set(threading.enumerate())
    running = worker(ahead)(source=path, stream=True, bboxes=[BOX])
    next(running)
    assert path in open_files() and len(set(threading.enumerate()) - before) == 1
    if end == "error":
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt)
    elif end == "close":
        running.close()
    else:
        assert len(list(running)) == 31
    assert path not in open_files() and not set(threading.enumerate()) - before
