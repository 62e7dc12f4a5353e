"""Images left out while objects are shown or found, and answers that are no numbers: neither reaches the memory."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOXES, alike, predictor, ready, taught  # noqa: F401

from samplug import PromptError, resources
from samplug.checkpoints.load import load_model

SKIP = {"on_error": "skip", "update_memory": True}
OUTSIDE = {"points": [[900, 3]], "obj_ids": [9], "cls": [5], "names": {5: "ghost"}}
SHOWN = [
    {"bboxes": [BOXES[0]], "obj_ids": [4], "cls": [0], "names": {0: "cup"}},
    {"bboxes": [[30, 30, 110, 150]], "obj_ids": [5], "cls": [1], "names": {1: "pen"}},
    {"bboxes": [[10, 10, 90, 80]], "obj_ids": [4], "cls": [0], "names": {0: "cup"}},
]


def but(bad):
    """What is shown on three images, of which one has a prompt that lies outside of it."""
    return [OUTSIDE if i == bad else shown for i, shown in enumerate(SHOWN)]


def state(predictor):
    """All that a memory holds, to be compared."""
    return {name: value.copy() for name, value in vars(predictor.memory_bank).items()}


def same_memories(predictor, other):
    pairs = list(zip(predictor.memory_bank, other.memory_bank, strict=True))
    return all(a.ids == b.ids and torch.equal(a.memories, b.memories) for a, b in pairs)


# Images left out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_image_left_out_is_as_if_it_had_not_been_given(network, images, bad, batch):
    predictor, alone = ready(network, batch=batch), ready(network, batch=batch)
    results = predictor(images, prompts=but(bad), **SKIP)
    expected = []
    for start in range(0, 3, batch):
        some = [i for i in range(start, min(start + batch, 3)) if i != bad]
        if some:
            expected += alone([images[i] for i in some], prompts=[SHOWN[i] for i in some], update_memory=True)
    assert same_memories(predictor, alone) and alike(results, expected)
    good = [f"image{i}.jpg" for i in range(3) if i != bad]
    assert [each.name for each in predictor.memory_bank] == [each.path for each in results] == good
    assert [each.name for each in predictor.errors.all] == [f"image{bad}.jpg"]
    assert predictor.obj_id_to_idx == alone.obj_id_to_idx and 5 not in predictor.memory_bank.names
    for a, b in zip(results, expected, strict=True):
        assert torch.equal(a.presence, b.presence) and torch.equal(a.iou, b.iou) and a.names == b.names
    assert alike(predictor(images), alone(images))


@pytest.mark.parametrize("batch", [1, 3])
def test_of_several_images_the_bad_one_is_left_out_by_itself_and_named(network, images, batch, capture_log):
    predictor = ready(network, batch=batch)
    assert len(predictor(images, prompts=but(1), update_memory=True)) == 2
    assert [each.ids for each in predictor.memory_bank] == [(4,), (4,)]
    assert any("image1.jpg is skipped: points[0]: (900, 3)" in line for line in capture_log)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_run_that_ends_at_a_bad_prompt_leaves_the_memory_as_it_was(network, taught, images, batch):
    predictor = ready(network, batch=batch)
    predictor.memory_bank = taught.memory_bank
    before, found = state(predictor), predictor(images[2])
    with pytest.raises(PromptError, match=r"points\[0\]: \(900, 3\) lies outside the image of width 256"):
        predictor(images, prompts=but(2), on_error="raise", update_memory=True)
    assert state(predictor) == before and predictor.memory_bank is taught.memory_bank
    assert alike(predictor(images[2]), found)


@pytest.mark.parametrize("batch", [1, 2])
def test_where_no_prompt_fits_nothing_is_shown_and_nothing_found(network, taught, images, batch):
    predictor = ready(network, batch=batch)
    predictor.memory_bank = taught.memory_bank
    predictor(images[:2])
    before = state(predictor)
    assert predictor(images[0], **OUTSIDE, **SKIP) == [] and predictor.found == []
    assert predictor(images[:2], prompts=[OUTSIDE] * 2, **SKIP) == [] and predictor.found == []
    with pytest.raises(PromptError, match="outside"):
        predictor(images[:2], prompts=[OUTSIDE] * 2, update_memory=True)
    assert state(predictor) == before


@pytest.mark.parametrize("batch", [1, 3])
def test_files_that_are_left_out_do_not_move_what_is_shown_on_the_others(network, images, tmp_path, batch):
    for name, image in zip("acd", images, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    (tmp_path / "b.png").write_bytes(b"no image")
    shown = {f"{name}.png": each for name, each in zip("abcd", [SHOWN[0], SHOWN[1], OUTSIDE, SHOWN[2]], strict=True)}
    predictor, alone = ready(network, batch=batch), ready(network, batch=batch)
    results = predictor(tmp_path, prompts=shown, **SKIP)
    expected = alone(images[::2], prompts=SHOWN[::2], update_memory=True)
    assert same_memories(predictor, alone) and alike(results, expected) and predictor.obj_idx_to_id == {0: 4}
    assert [Path(each.path).name for each in results] == ["a.png", "d.png"]
    assert [Path(each.name).name for each in predictor.errors.all] == ["b.png", "c.png"]


def test_an_image_that_was_set_stays_in_hand_where_a_prompt_does_not_fit_it(network, taught, images):
    predictor = ready(network)
    predictor.options["on_error"] = "skip"
    predictor.run_options = dict(predictor.options)
    predictor.set_image(images[0])
    assert predictor(**OUTSIDE, update_memory=True) == [] and len(predictor.memory_bank) == 0
    found = predictor(bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    assert same_memories(predictor, taught) and alike(found, taught(images[0]))


@pytest.mark.parametrize("said", [{}, {"prompts": SHOWN[:2], "update_memory": True}])
def test_a_result_that_memory_cannot_hold_is_left_out_alone(network, images, monkeypatch, said):
    predictor, plain = ready(network, batch=2), ready(network, batch=2)
    for each in (predictor, plain):
        each(images[2], bboxes=[[10, 10, 90, 80]], obj_ids=[4], update_memory=True)
    expected = plain(images[:2], **said)[1]
    most = 2 * 3 * len(expected.obj_ids) * 200 * 150  # bytes for the second's masks, but not for those of the first
    monkeypatch.setattr(resources, "free_memory", lambda: most * 1.2)
    results = predictor(images[:2], on_error="skip", **said)
    assert alike(results, [expected]) and torch.equal(results[0].presence, expected.presence)
    assert torch.equal(results[0].iou, expected.iou) and results[0].orig_shape == (200, 150)
    assert len(predictor.found) == 1 and torch.equal(predictor.found[0].presence, expected.presence)
    assert same_memories(predictor, plain), "what was shown on an image is known, whatever becomes of its result"


# Numbers that are none ------------------------------------------------------------------------------------------------

CLICK, MASK = {"points": [[60, 70]]}, {"masks": [np.eye(240, 320)]}
WEIGHTS = {
    "image_encoder.trunk.pos_embed": (CLICK, MASK),
    "sam_mask_decoder.iou_token.weight": (CLICK, MASK),
    "sam_mask_decoder.pred_obj_score_head.layers.0.bias": (CLICK, MASK),
    "sam_mask_decoder.iou_prediction_head.layers.0.bias": (CLICK, MASK),
    "sam_mask_decoder.output_hypernetworks_mlps.0.layers.0.bias": (CLICK,),  # what is absent has no mask to be NaN
    "memory_encoder.out_proj.weight": (CLICK, MASK),
    "memory_attention.norm.weight": (CLICK, MASK),
}


@pytest.fixture
def own(nano_file):
    """A network that a test may break."""
    return load_model(nano_file)


def break_weights(network, name):
    network.state_dict()[name].view(-1)[0] = np.nan


def break_features(network, rows):
    """Let the encoder give NaN for some images of a batch."""

    def overflow(module, given, maps):
        maps["backbone_fpn"][-1][rows] = np.nan

    return network.image_encoder.register_forward_hook(overflow)


@pytest.mark.parametrize(("name", "said"), [(name, said) for name, ways in WEIGHTS.items() for said in ways])
def test_nan_in_the_weights_is_reported_and_not_remembered(own, images, name, said):
    predictor = ready(own)
    break_weights(own, name)
    with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity: {name}"):
        predictor(images[0], **said, obj_ids=[1], update_memory=True)
    assert len(predictor.memory_bank) == 0 and predictor.obj_idx_set == set()


@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("memory_encoder")])
def test_nan_in_the_weights_is_reported_where_objects_are_found(own, images, name):
    predictor = ready(own, batch=2)
    predictor(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    before = state(predictor)
    break_weights(own, name)
    with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity: {name}"):
        predictor(images[1:])
    assert state(predictor) == before


@pytest.mark.parametrize("rows", [0, 1])
def test_features_that_are_nan_are_reported_and_no_image_of_the_batch_is_remembered(own, images, rows):
    predictor = ready(own, batch=2)
    predictor(images[2], bboxes=[[10, 10, 90, 80]], obj_ids=[4], update_memory=True)
    before, found = state(predictor), predictor(images[:2])
    hook = break_features(own, rows)
    for said in ({"prompts": SHOWN[:2], "update_memory": True}, {}):
        with pytest.raises(FloatingPointError, match="features of the image hold NaN"):
            predictor(images[:2], **said)
        assert state(predictor) == before
    hook.remove()
    assert alike(predictor(images[:2]), found)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.startswith("sam_mask_decoder")])
def test_an_answer_that_is_nan_is_not_remembered_by_hand_though_its_memory_is_finite(own, images, name):
    predictor = ready(own)
    predictor.setup_source(images[0])
    break_weights(own, name)
    with torch.inference_mode():
        predictor.get_im_features(predictor.preprocess([images[0]]))
        with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity: {name}"):
            predictor.update_memory([5], torch.full((1, 1, 2), 30.0), torch.ones(1, 1))
    assert len(predictor.memory_bank) == 0


def test_features_that_are_nan_are_reported_by_hand(own, images):
    predictor = ready(own)
    predictor(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    before = state(predictor)
    break_features(own, 0)
    clicks, mask = (torch.full((1, 1, 2), 30.0), torch.ones(1, 1)), torch.ones(1, 128, 128)
    with torch.inference_mode():
        predictor.get_im_features(predictor.preprocess([images[1]]))
        for call in (
            lambda: predictor.update_memory([5], *clicks),
            lambda: predictor.update_memory([5], masks=mask),
            lambda: predictor.track_step(0, *clicks),
            predictor.track_step,
        ):
            with pytest.raises(FloatingPointError, match="features of the image hold NaN"):
                call()
    assert state(predictor) == before
