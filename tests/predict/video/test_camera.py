"""Frame by frame under a loop of one's own."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, Cameras, alike, film, follow, predictor_of

from samplug.errors import PromptError
from samplug.predict.video.camera import SAM2CameraPredictor
from samplug.tracking import Track


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
    with pytest.raises(PromptError, match="has passed"):
        camera.add_new_prompts(2, bboxes=OTHER, frame_idx=0)
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


def test_a_wrong_argument_is_refused_before_the_first_frame():
    with pytest.raises(ValueError, match="prompt_every=0"):
        SAM2CameraPredictor(overrides={"verbose": False, "prompt_every": 0, "prompter": lambda frame: []})


def test_a_result_keeps_its_image_where_the_caller_fills_the_frame_again(camera, frames):
    frame = frames[0].copy()
    result = camera.step(frame, {7: {"bboxes": BOX}})
    frame[:] = 0
    assert np.array_equal(result.orig_img, frames[0])


def test_prompts_of_a_frame_that_was_broken_off_in_the_encoder_are_not_those_of_the_next(camera, frames, monkeypatch):
    camera.step(frames[0], {7: {"bboxes": BOX}})
    camera.add_new_prompts(5, points=[40, 40], frame_idx=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SAM2CameraPredictor, "_encode_frames", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        camera.step(frames[1], {8: {"bboxes": OTHER}})
    result = camera.step(frames[1])
    assert result.frame == 1 and {*camera.inference_state[0].tracker.ids} == {5, 7}


STEPS = ["encode_image", "condition_on_memory", "segment", "select_mask", "encode_memory", "postprocess"]


@contextmanager
def interrupted(predictor, step):
    """Ctrl-C in a step of the network, or when the results are made; some steps are taken on some frames only."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    owner = predictor if step == "postprocess" else predictor.network
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(owner), step, interrupt)
        yield


def fields(value):
    """A state in a form that can be compared: policies have no equality."""
    if isinstance(value, dict):
        return {key: fields(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fields(item) for item in value]
    return fields(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor) else str(value)


def camera_of(network, **options):
    made = SAM2CameraPredictor(overrides={"imgsz": 128, "verbose": False, "logits": True, **options})
    made.setup_model(network, verbose=False)
    return made


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("policy", [None, "hybrid"])
def test_a_step_that_is_broken_off_leaves_everything_as_it_was(network, frames, step, policy):
    cameras = [camera_of(network, policy=policy, expire_after=3) for _ in range(2)]
    for i, frame in enumerate(frames):
        if step != "condition_on_memory" or i:
            with interrupted(cameras[0], step):
                cameras[0].step(frame[::-1], {8: {"points": [50, 60], "cls": 4, "names": {4: "cup"}}})
        prompts = {7: {"bboxes": BOX}} if not i else None
        done, expected = [camera.step(frame, prompts) for camera in cameras]
        assert alike([done], [expected]) and (done.frame, done.obj_ids, done.names) == (i, (7,), {7: "7"})
    ours, others = [camera.inference_state[0] for camera in cameras]
    assert (ours.classes, ours.names, ours.detected, ours.prompts) == ({}, {}, set(), others.prompts)
    assert fields(ours.state()) == fields(others.state())


def test_an_object_that_expired_on_a_frame_that_was_broken_off_is_still_there(network, frames, monkeypatch):
    camera = camera_of(network, expire_after=9)
    camera.step(frames[0], {7: {"bboxes": BOX}, 8: {"bboxes": OTHER}})
    monkeypatch.setattr(Track, "is_expired", lambda *_: True)
    with interrupted(camera, "postprocess"):
        camera.step(frames[1])
    assert camera.inference_state[0].tracker.ids == (7, 8)
    assert camera.step(frames[1]) and camera.inference_state[0].tracker.ids == ()


def test_a_correction_that_is_broken_off_changes_nothing(network, frames):
    ours, other = (predictor_of(network) for _ in range(2))
    runs = [worker(source=frames[:4], stream=True, bboxes=[BOX], obj_ids=[4]) for worker in (ours, other)]
    for i, (result, expected) in enumerate(zip(*runs, strict=True)):
        assert alike([result], [expected])
        for earlier in (None, i - 1) if i else ():
            with interrupted(ours, "encode_memory"):
                ours.add_new_prompts(4, points=[20, 80], frame_idx=earlier)


def test_a_frame_that_is_broken_off_counts_in_no_stream(network, frames):
    worker = predictor_of(network)
    run = worker(source=Cameras(frames[:3], frames[3:6]), stream=True, bboxes=[BOX])
    next(run), next(run)
    taken = []

    def interrupt(*_):
        taken.append(1)
        if len(taken) == 2:
            raise KeyboardInterrupt

    hook = network.sam_mask_decoder.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    hook.remove()
    assert [stream.current_frame.number for stream in worker.inference_state.values()] == [0, 0]
