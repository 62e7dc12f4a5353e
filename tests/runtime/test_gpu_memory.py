"""A GPU whose memory runs out while objects are followed or found: fewer at once, said once, or one line."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import pytest
import torch
from support.scarce import prompts_in, room_for, rows_in, said_of_memory
from support.videos import BOXES, Cameras, alike, close, film, predictor, predictor_of, ready, taught, write_video  # noqa: F401

from samplug.checkpoints.load import load_model
from samplug.cli import main
from samplug.errors import UsageError
from samplug.runtime.adaptive_batch import AdaptiveBatch, DeviceOutOfMemoryError
from samplug.tracking import Motion, Tracker, steps

CLICKS = [[20, 20], [60, 50], [90, 30], [40, 70], [100, 80]]
FULL = "The GPU's memory is full: going on with "


@pytest.fixture
def in_batches(monkeypatch):
    """Objects are asked about together, as on a GPU."""
    monkeypatch.setattr(steps, "runs_batched", lambda features: True)


# Frames of several streams --------------------------------------------------------------------------------------------


def watched(network, together):
    """What becomes of five streams, so many of which are encoded at once."""
    frames = film()
    worker = predictor_of(network)
    if together:
        worker.add_callback(
            "on_predict_start", lambda made: setattr(made, "frames_at_once", AdaptiveBatch(together, "frame"))
        )
    return list(worker(source=Cameras(*(frames[i : i + 3] for i in range(5))), stream=True, points=CLICKS[:1]))


@pytest.mark.host
def test_frames_of_streams_are_encoded_in_parts_that_fit(network, capture_log):
    alone, together = watched(network, None), watched(network, 5)
    with room_for(network.image_encoder, 2):
        parts = watched(network, 5)
    assert close(alone, together) and close(alone, parts) and len(alone) == 15
    assert said_of_memory(capture_log) == [FULL + "2 frames at once, not 5."]


def test_frames_of_streams_are_encoded_one_by_one_on_a_cpu(network, capture_log):
    with room_for(network.image_encoder, 1):
        alone = watched(network, None)
    assert alike(alone, watched(network, 1)) and not said_of_memory(capture_log)


def test_one_frame_that_does_not_fit_is_an_error_that_says_what_to_do(network, capture_log):
    with (
        room_for(network.image_encoder, 0),
        pytest.raises(DeviceOutOfMemoryError, match="one frame: give a smaller imgsz"),
    ):
        watched(network, 5)
    assert said_of_memory(capture_log) == [FULL + "2 frames at once, not 5.", FULL + "1 frame at once, not 2."]


# Objects of a video ---------------------------------------------------------------------------------------------------


def followed(network):
    return list(predictor_of(network)(source=film()[:4], stream=True, points=CLICKS, keep_lost=True))


@pytest.mark.host
@pytest.mark.parametrize(
    ("part", "count"),
    [("sam_mask_decoder", prompts_in), ("memory_encoder.fuser", rows_in)],
    ids=["answers", "memories"],
)
def test_objects_are_followed_and_remembered_in_parts_that_fit(network, in_batches, capture_log, part, count):
    together = followed(network)
    with room_for(network.get_submodule(part), 3, count):
        parts = followed(network)
    assert close(together, parts) and parts[-1].obj_ids == (0, 1, 2, 3, 4)
    assert said_of_memory(capture_log) == [FULL + "2 objects at once, not 5."]


def test_one_object_that_does_not_fit_is_an_error_that_says_what_to_do(network, in_batches):
    with (
        room_for(network.memory_encoder.fuser, 0),
        pytest.raises(DeviceOutOfMemoryError, match="one object: give a smaller imgsz"),
    ):
        followed(network)


def test_policies_learn_from_parts_what_they_learn_from_objects_alone(network, in_batches):
    frames = [network.encode_image(torch.randn(1, 3, 64, 64)) for _ in range(4)]
    click = lambda at: steps.PromptBatch(torch.tensor([0]), torch.tensor([[at]]), torch.tensor([[1]]))  # noqa: E731

    def walked(run_slices):
        tracker = Tracker(network, Motion, run_slices=run_slices)
        for i, features in enumerate(frames):
            tracker.start_frame(i, features)
            for obj_id in range(3) if i == 0 else ():
                tracker.prompt(obj_id, click([20.0 + 10 * obj_id, 30.0]))
            with room_for(network.sam_mask_decoder, 2, prompts_in):
                yield tracker.step().output, [vars(track.policy) for track in tracker._tracks.values()]

    one_by_one, halved = walked(AdaptiveBatch(1, "object").run), walked(AdaptiveBatch(8, "object").run)
    for (alone, policies), (parts, others) in zip(one_by_one, halved, strict=True):
        assert torch.allclose(alone.logits, parts.logits, atol=1e-3)
        assert [each["stable"] for each in policies] == [each["stable"] for each in others]
        assert [each["good"] for each in policies] == [each["good"] for each in others]


def test_a_tracker_by_itself_asks_about_all_objects_at_once(network, in_batches):
    features = network.encode_image(torch.randn(1, 3, 64, 64))
    seen = []
    handle = network.memory_encoder.fuser.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    tracker = Tracker(network)
    tracker.start_frame(0, features)
    for obj_id in range(4):
        click = torch.tensor([[[20.0, 30.0]]])
        tracker.prompt(obj_id, steps.PromptBatch(torch.tensor([0]), click, torch.tensor([[1]])))
    tracker.step()
    handle.remove()
    assert seen == [4]


# Objects of a memory bank ---------------------------------------------------------------------------------------------


def shown(network, images):
    """What becomes of four objects that were shown together, on two more images."""
    predictor = ready(network)
    predictor(images[0], bboxes=[*BOXES, *BOXES], obj_ids=[7, -3, 5, 2], update_memory=True)
    return [*predictor(images[1]), *predictor(images[2])], predictor.memory_bank[0].memories


@pytest.mark.host
@pytest.mark.parametrize(
    ("part", "count"), [("sam_mask_decoder", prompts_in), ("memory_encoder.fuser", rows_in)], ids=["find", "remember"]
)
def test_objects_are_found_and_shown_in_parts_that_fit(network, images, in_batches, capture_log, part, count):
    together, memories = shown(network, images)
    with room_for(network.get_submodule(part), 3, count):
        parts, remembered = shown(network, images)
    assert parts[1].obj_ids == (7, -3, 5, 2) and close(together, parts)
    assert torch.allclose(memories, remembered, atol=1e-4)
    assert said_of_memory(capture_log) == [FULL + "2 objects at once, not 4."]


def test_one_object_that_cannot_be_looked_for_is_an_error_that_says_what_to_do(taught, images):
    with (
        room_for(taught.model.sam_mask_decoder, 0, prompts_in),
        pytest.raises(DeviceOutOfMemoryError, match="one object"),
    ):
        taught(images[1])


# The shell ------------------------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.parametrize(
    ("words", "part", "why"),
    [
        (["track", "points=[[20, 20]]"], "image_encoder", "not enough memory for one frame: give a smaller imgsz"),
        (["track", "points=[[20, 20]]"], "sam_mask_decoder", "has not enough memory: give a smaller imgsz"),
        (["track", "points=[[20, 20]]"], "memory_encoder.fuser", "not enough memory for one object: give a"),
        (["track", "track=True"], "sam_mask_decoder", "not enough memory for one click: give a smaller imgsz"),
        (["predict", "track=False"], "image_encoder", "has not enough memory: give a smaller imgsz"),
        (["predict", "track=False", "tile=64"], "image_encoder", "has not enough memory: give a smaller imgsz"),
        (["predict", "track=False"], "sam_mask_decoder", "not enough memory for one click: give a smaller imgsz"),
        (["predict", "track=False", "points=[[20, 20]]"], "sam_mask_decoder", "not enough memory for one image"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_the_shell_says_in_a_line_that_a_gpu_has_no_memory(nano_file, tmp_path, monkeypatch, words, part, why):
    write_video(tmp_path / "clip.avi", film()[:3])
    loaded = load_model(nano_file)
    monkeypatch.setattr("samplug.model.load_model", lambda *_: loaded)
    said = [f"model={nano_file}", f"source={tmp_path}/clip.avi", "imgsz=64", "save=False", f"project={tmp_path}"]
    with full(loaded.get_submodule(part)), pytest.raises(UsageError, match=why) as refusal:
        main.samplug([*words, *said])
    assert "\n" not in str(refusal.value) and "device=cpu" in str(refusal.value)


def full(module):
    return room_for(module, 0, lambda given, named: 1)


def test_measuring_says_in_a_line_that_a_gpu_has_no_memory(nano_file, tmp_path, monkeypatch):
    loaded = load_model(nano_file)
    monkeypatch.setattr("samplug.model.load_model", lambda *_: loaded)
    words = [
        "val",
        "data=scenes",
        f"model={nano_file}",
        "pictures=2",
        "clips=0",
        "side=64",
        "imgsz=64",
        f"project={tmp_path}",
    ]
    with full(loaded.image_encoder), pytest.raises(UsageError, match="has not enough memory: give a smaller imgsz"):
        main.samplug(words)
