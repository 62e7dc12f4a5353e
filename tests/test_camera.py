"""Frame by frame under a loop of one's own."""

import numpy as np
import pytest
import torch
from films import BOX, OTHER, alike, film, follow

from samplug.predict.camera import SAM2CameraPredictor
from samplug.prompts import PromptError


@pytest.fixture(scope="module")
def frames():
    return film()


@pytest.fixture
def camera(network):
    made = SAM2CameraPredictor(overrides={"imgsz": 128, "verbose": False, "vid_stride": 2, "logits": True})
    made.setup_model(network, verbose=False)
    made.non_overlap_masks = False
    return made


def test_stepping_equals_a_run_over_the_same_frames(camera, network, frames):
    ahead = {0: {4: {"bboxes": BOX}}, 2: {9: {"points": [100, 60], "cls": 3}}}
    stepped = [camera.step(frame, ahead.get(i)) for i, frame in enumerate(frames[:4])]
    assert [result.frame for result in stepped] == [0, 1, 2, 3]
    assert alike(stepped, follow(network, frames[:4], prompts=ahead))


def test_objects_may_come_late_and_a_frame_stepped_can_be_corrected(camera, network, frames):
    assert [len(camera.step(frame).boxes) for frame in frames[:2]] == [0, 0]
    camera.add_new_prompts(1, bboxes=BOX, frame_idx=None)
    assert camera.results[0].obj_ids == (1,)
    alone = list(follow(network, frames[1:4], bboxes=[BOX], obj_ids=[1]))
    assert alike([camera.results[0], camera.step(frames[2])], alone[:2])
    with pytest.raises(PromptError, match="went by"):
        camera.add_new_prompts(2, bboxes=OTHER)
    camera.remove_object(1)
    assert camera.step(frames[3], {"bboxes": [OTHER], "obj_ids": [5]}).obj_ids == (5,)
    camera.reset()
    assert camera.step(frames[4]).obj_ids == ()


def test_a_wrong_prompt_does_not_cost_a_frame(camera, network, frames):
    first = camera.step(frames[0], {1: {"bboxes": BOX}})
    with pytest.raises(PromptError, match="outside"):
        camera.step(frames[1], {2: {"points": [900, 3]}})
    second = camera.step(frames[1])
    assert alike([first, second], follow(network, frames[:2], bboxes=[BOX], obj_ids=[1]))


def test_every_kind_of_frame_is_taken(camera, network, frames, tmp_path):
    from PIL import Image

    tensor = torch.from_numpy(frames[1][..., ::-1].copy()).permute(2, 0, 1) / 255
    given = [frames[0], tensor, Image.fromarray(frames[2][..., ::-1])]
    stepped = [camera.step(frame, {1: {"bboxes": BOX}} if i == 0 else None) for i, frame in enumerate(given)]
    assert alike(stepped, follow(network, frames[:3], bboxes=[BOX], obj_ids=[1]))
    with pytest.raises(OSError, match="x.png: it is empty"):
        (tmp_path / "x.png").write_bytes(b"")
        camera.step(str(tmp_path / "x.png"))


def test_a_black_frame_is_a_lost_signal(camera, network, frames):
    first = camera.step(frames[0], {1: {"bboxes": BOX}})
    assert camera.step(np.zeros_like(frames[0])).obj_ids == ()
    second = camera.step(frames[1])
    assert second.frame == 2 and alike([first, second], follow(network, frames[:2], bboxes=[BOX], obj_ids=[1]))


def test_a_wrong_argument_is_refused_at_the_first_frame(network, frames):
    camera = SAM2CameraPredictor(overrides={"verbose": False, "prompt_every": 0, "prompter": lambda frame: []})
    camera.setup_model(network, verbose=False)
    with pytest.raises(ValueError, match="prompt_every=0"):
        camera.step(frames[0])
