"""`reverse="both"`: run forwards and backwards from a frame, given out and saved in the order of time."""

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, film, follow, predictor_of, rows, write_video

from samplug import SAM
from samplug.errors import PromptError
from samplug.predict.video.stream import KeptOutputs
from samplug.tracking import Objects

AHEAD = {3: {1: {"bboxes": BOX}}, 5: {2: {"bboxes": OTHER}}}


@pytest.fixture(scope="module")
def frames():
    return film()


def spread(count=8):
    """Frames that grow lighter, which a lossy video with masks drawn into it keeps apart."""
    return [np.full((96, 128, 3), 20 + 25 * i, np.uint8) for i in range(count)]


@pytest.mark.parametrize(
    ("host", "own", "numbers"),
    [
        ({}, {"prompts": AHEAD}, range(8)),
        ({"vid_stride": 2}, {"start": 4, "bboxes": [BOX]}, [0, 2, 4, 6]),
        ({"vid_stride": 3}, {"start": 4, "bboxes": [BOX]}, [1, 4, 7]),
        ({}, {"start": 0, "bboxes": [BOX]}, range(8)),
        ({}, {"start": 7, "bboxes": [BOX]}, range(8)),
    ],
)
def test_frames_come_in_the_order_of_time(network, frames, tmp_path, host, own, numbers):
    for source in (frames, write_video(tmp_path / "clip.avi", frames)):
        results = list(follow(network, source, host, reverse="both", **own))
        assert [result.frame for result in results] == list(numbers)
        assert all((result.orig_img == frames[result.frame]).all() for result in results)


def test_masks_are_those_of_each_direction_by_itself(network, frames):
    both = {
        result.frame: rows(result) for result in follow(network, frames, reverse="both", prompts=AHEAD, keep_lost=True)
    }
    forwards = {
        result.frame: rows(result) for result in follow(network, frames, start=3, prompts=AHEAD, keep_lost=True)
    }
    assert all(torch.equal(forwards[n][obj], both[n][obj]) for n in forwards for obj in forwards[n])
    alone = {3: AHEAD[3]}
    back = {
        result.frame: rows(result) for result in follow(network, frames, reverse=True, prompts=alone, keep_lost=True)
    }
    single = {
        result.frame: rows(result) for result in follow(network, frames, reverse="both", prompts=alone, keep_lost=True)
    }
    assert all(torch.allclose(back[n][1], single[n][1], atol=1e-3) for n in range(3))


def test_the_saved_video_and_the_labels_are_in_the_order_of_time(nano_file, tmp_path):
    path = write_video(tmp_path / "clip.avi", spread())
    said = {"project": str(tmp_path), "name": "out", "save": True, "save_txt": True, "imgsz": 64, "verbose": False}
    results = SAM(nano_file).track(
        str(path), bboxes=[[50, 30, 80, 66]], start=3, reverse="both", keep_lost=True, **said
    )
    assert len(results) == 8
    capture, seen = cv2.VideoCapture(str(next((tmp_path / "out").glob("clip.*")))), []
    while (frame := capture.read()[1]) is not None:
        seen.append(frame.mean())
    assert len(seen) == 8 and (np.diff(seen) > 3).all()
    assert len(list((tmp_path / "out" / "labels").iterdir())) == sum(map(bool, map(len, results)))


def test_several_videos_each_go_both_ways(network, frames, tmp_path):
    for name in "ab":
        write_video(tmp_path / f"{name}.avi", frames[:4])
    results = list(follow(network, tmp_path, start=2, reverse="both", bboxes=[BOX]))
    assert [result.frame for result in results] == [0, 1, 2, 3] * 2


def test_what_was_run_is_not_corrected_any_more_and_the_error_says_what_to_do(network, frames):
    worker = predictor_of(network)
    for i, _ in enumerate(worker(source=frames[:4], stream=True, start=2, reverse="both", bboxes=[BOX])):
        if i == 1:
            for call in (
                lambda: worker.add_new_prompts(9, bboxes=OTHER),
                lambda: worker.remove_object(0),
                worker.clear_prompts,
                worker.reset,
            ):
                with pytest.raises(PromptError, match="before the run"):
                    call()


def test_a_correction_of_a_callback_is_given_out(network, frames):
    worker = predictor_of(network)

    def correct(predictor):
        stream = predictor.inference_state[0]
        if stream.current_frame.number == 4 and not stream.gives_out:
            predictor.add_new_prompts(9, bboxes=OTHER)

    worker.add_callback("on_predict_batch_end", correct)
    results = list(worker(source=frames[:6], stream=True, start=3, reverse="both", bboxes=[BOX], keep_lost=True))
    assert [9 in result.obj_ids for result in results] == [True, True, True, False, True, True]


def test_frames_that_cannot_be_read_are_left_out_once(network, frames, tmp_path):
    for i, frame in enumerate(frames[:5]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "1.png").write_bytes(b"no image")
    worker = predictor_of(network)
    results = list(worker(source=str(tmp_path), stream=True, start=3, reverse="both", bboxes=[BOX], on_error="skip"))
    assert [result.frame for result in results] == [0, 2, 3, 4]
    assert len(worker.errors.all) == 1


def test_answers_are_kept_by_number_and_given_once():
    kept = KeptOutputs()
    for number, ids in ((5, (1,)), (2, (1, 2)), (5, (3,))):
        kept.put(number, Objects(ids, None))
    assert kept.pop(5).ids == (3,) and kept.pop(2).ids == (1, 2)
    assert kept.pop(5) is None and kept.pop(9) is None
