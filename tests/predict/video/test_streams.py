"""Following objects through Ultralytics' streams, several at once."""

import itertools
import time

import cv2
import numpy as np
import pytest
from support.videos import BOX, OTHER, Cameras, alike, camera, film, follow, predictor_of

from samplug.errors import PromptError


@pytest.fixture(scope="module")
def frames():
    return film()


def test_streams_side_by_side_equal_each_by_itself(network, frames):
    films = [frames[:3], [frame[::-1, :100] for frame in frames[:3]]]
    prompts = [{"bboxes": [BOX], "obj_ids": [4]}, {0: {9: {"points": [50, 40]}}}]
    results = list(follow(network, Cameras(*films), prompts=prompts))
    assert [result.frame for result in results] == [0, 0, 1, 1, 2, 2]
    assert alike(results[::2], follow(network, films[0], bboxes=[BOX], obj_ids=[4]))
    assert alike(results[1::2], follow(network, films[1], points=[50, 40], obj_ids=[9]))


def test_one_of_several_streams_is_named(network, frames):
    worker = predictor_of(network)
    for result in worker(source=Cameras(frames[:2], frames[2:4]), stream=True, bboxes=[BOX]):
        if result.frame == 0 and result.path == "camera1":
            with pytest.raises(ValueError, match="2 streams are running"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=None)
            worker.add_new_prompts(3, bboxes=OTHER, frame_idx=None, stream=1)
            assert [each.obj_ids for each in worker.results] == [(0,), (0, 3)]
            with pytest.raises(PromptError, match="from 0 up"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=-1, stream=0)
            with pytest.raises(ValueError, match="no stream 2"):
                worker.remove_object(3, stream=2)
        elif result.frame == 1 and result.path == "camera1":
            with pytest.raises(PromptError, match="cannot seek back"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=0, stream=0)
    assert [each.obj_ids for each in worker.results] == [(0,), (0, 3)]


def test_black_frames_of_a_lost_signal_never_enter_memory(network, frames):
    black = np.zeros_like(frames[0])
    shot = [black, frames[0], frames[1], black, black, frames[2], frames[3]]
    results = list(follow(network, Cameras(shot), bboxes=[BOX], keep_lost=True))
    assert [len(result.boxes) for result in results] == [0, 1, 1, 1, 1, 1, 1]
    assert not results[3].masks.data.any() and results[3].boxes.conf[0] < 1e-3
    shown = [result for result, frame in zip(results, shot, strict=True) if frame.any()]
    assert alike(shown, follow(network, frames[:4], bboxes=[BOX]))


def test_a_stream_over_http_is_followed(network, frames):
    with camera(frames) as source:
        worker = predictor_of(network, stream_buffer=True)
        running = worker(source=source, stream=True, bboxes=[BOX], obj_ids=[5])
        results = [next(running) for _ in range(3)]
        running.close()
        assert not any(thread.is_alive() for thread in worker.dataset.threads)
    jpegs = [cv2.imencode(".jpg", frame)[1] for frame in frames[:3]]
    decoded = [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in jpegs]
    assert [result.frame for result in results] == [0, 1, 2] and results[2].obj_ids == (5,)
    assert all(np.abs(r.orig_img.astype(int) - d).mean() < 3 for r, d in zip(results, decoded, strict=True))
    assert not worker.dropped_frames


def test_of_a_stream_that_is_too_fast_the_newest_frame_is_taken_and_the_rest_counted(network, caplog):
    shades = [np.full((64, 64, 3), 20 + i, np.uint8) for i in range(220)]
    with camera(shades, pause=0.02) as source:
        worker = predictor_of(network)
        running, taken = worker(source=source, stream=True, bboxes=[[8, 8, 40, 40]]), []
        for result in itertools.islice(running, 5):
            taken.append(round(float(result.orig_img.mean())) - 20)
            time.sleep(0.15)
        running.close()
    (lost,) = worker.dropped_frames.values()
    between = taken[-1] - taken[0] + 1 - len(taken)
    assert taken == sorted(set(taken)) and between >= 8
    assert between - 5 <= lost < len(shades)  # a shade may be one off
    said = [record.message for record in caplog.records]
    assert sum("comes faster than the model works" in line for line in said) == 1
    assert any(f"{lost} frames dropped, {len(taken)} done" in line for line in said)
