"""A step of training: gradients of answers one after the other, chunks, ignored pixels, absent objects, clips."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.networks import furthest, gradients, network, object_draws, rectangles, run_step

from samplug.masks.boxes import outer_boxes
from samplug.nn.sam2 import SAM2Model
from samplug.train.learn import select_learning
from samplug.train.losses import prompts
from samplug.train.losses.clip_loss import ClipPlan
from samplug.train.losses.image_loss import ImagePlan, Round
from samplug.train.losses.losses import Target, answer_losses
from samplug.train.losses.options import LossOptions
from samplug.train.losses.prompts import best_mask, corrected_prompts, first_prompts
from samplug.train.losses.step import follow
from samplug.transforms import normalise

ROUNDS = (Round(True, False), Round(False, False), Round(True, True))
BOTH = ImagePlan({"click": True, "box": False}, "click", ROUNDS)
EXACT = 1e-9  # in float64
FAMILIES = ("SAM", "MobileSAM", "SAM 2")


def step(model, batch, plan, options=None, backward=torch.Tensor.backward, **how):
    draws = object_draws(len(batch.image_index))
    found = follow(plan, model, batch, options or LossOptions(), draws, backward, **how).means()
    return found, gradients(model)


def whole_backward(model, batch, plan, options):
    """The same losses with the encoder in one graph with all answers, and one backward pass."""
    features, index = model.encode(normalise(batch.images[0])), batch.image_index
    target, source, losses = Target.of(batch.masks[0], index), object_draws(len(index)), []

    def answer(given, several):
        found = model.answer(features, given, several)
        parts = answer_losses(found, target, options, count=len(index), every_mask=False, in_clip=False)
        losses.append(torch.stack(list(parts.values())).sum())
        return best_mask(found.logits, found.iou)

    for kind, several in plan.several.items():
        given = first_prompts(target.masks, index, kind, source)
        logits = answer(given, several)
        for each in plan.rounds if kind == plan.corrected else ():
            given = corrected_prompts(given, logits, target, source, each.with_mask, each.from_truth)
            logits = answer(given, False)
    torch.stack(losses).mean().backward()
    return gradients(model)


@pytest.mark.parametrize(("family", "chunk"), [*((family, 16) for family in FAMILIES), ("SAM 2", 3)])
def test_answers_one_after_the_other_have_the_gradients_of_one_backward_pass(family, chunk, float64):
    model, batch = network(family, dropout=False), rectangles()
    select_learning(model, "all")
    expected = whole_backward(model, batch, BOTH, LossOptions())
    found, ours = step(model, batch, BOTH, LossOptions(chunk=chunk))
    assert furthest(ours, expected)[1] < EXACT
    assert found["loss"] == pytest.approx(sum(found[f"{part}_loss"] for part in ("click", "box", "correction")))
    assert {name.partition(".")[0] for name in ours} >= {"image_encoder"}


@pytest.mark.parametrize("plan", [ClipPlan("mask", (0, 2)), ClipPlan("mask", teacher_forcing=True)])
def test_objects_of_clips_in_chunks_have_the_gradients_of_all_at_once(plan, float64):
    model, batch = network("SAM 2", dropout=False), rectangles(frames=3)
    select_learning(model, "all", clips=True)
    found, expected = step(model, batch, plan)
    again, ours = step(model, batch, plan, LossOptions(chunk=1))
    assert furthest(ours, expected)[1] < EXACT
    assert again == pytest.approx(found)


@pytest.fixture
def exact_boxes(monkeypatch):
    """Boxes without noise, which is drawn for all objects of a batch."""
    monkeypatch.setattr(prompts, "noisy_boxes", lambda masks, _: outer_boxes(masks))


def rows_of(batch, rows):
    """The same images with some of their objects."""
    return dataclasses.replace(batch, masks=batch.masks[:, rows], image_index=batch.image_index[rows])


@pytest.mark.parametrize(("frames", "plan"), [(1, ImagePlan({"box": False}, "")), (3, ClipPlan("mask"))])
def test_parts_of_a_batch_divided_by_all_its_objects_have_the_gradients_of_the_whole(
    frames, plan, exact_boxes, float64
):
    model, batch = network("SAM 2", dropout=False), rectangles(frames=frames)
    select_learning(model, "all", clips=frames > 1)
    _, expected = step(model, batch, plan)
    for rows in ([0], [1, 2, 3]):
        follow(plan, model, rows_of(batch, rows), LossOptions(), object_draws(3), torch.Tensor.backward, count=4)
    assert furthest(gradients(model), expected)[1] < EXACT


def test_an_object_that_is_not_on_its_image_costs_nothing(exact_boxes, float64):
    model, batch = network("SAM 2"), rectangles()
    select_learning(model, "decoder")
    batch.masks[0, 1] = False
    found, expected = step(model, batch, ImagePlan({"box": False}, ""))
    others, ours = step(model, rows_of(batch, [0, 2, 3]), ImagePlan({"box": False}, ""), count=4)
    assert others["loss"] == pytest.approx(found["loss"]) and furthest(ours, expected)[1] < EXACT


def kept_for_backward(model, batch, plan, options=None):
    """The most bytes that are kept for a backward pass between two of them."""
    kept, most = [], []

    def backward(loss):
        most.append(sum(kept))
        loss.backward()
        kept.clear()

    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        step(model, batch, plan, options, backward)
    return max(most)


@pytest.mark.parametrize("family", ["SAM", "SAM 2"])
def test_memory_grows_neither_with_corrections_nor_with_objects(family):
    model = network(family)
    select_learning(model, "decoder")
    few, many = rectangles(images=1, objects=4), rectangles(images=1, objects=24)
    options = LossOptions(chunk=4)
    one = kept_for_backward(model, few, ImagePlan({"click": True}, "click", ROUNDS[:1]), options)
    assert kept_for_backward(model, few, ImagePlan({"click": True}, "click", 6 * ROUNDS[:1]), options) < 1.25 * one
    assert kept_for_backward(model, many, ImagePlan({"click": True}, "click", ROUNDS[:1]), options) < 1.1 * one
    attached = dataclasses.replace(options, attached=True)
    assert kept_for_backward(model, few, ImagePlan({"click": True}, "click", 6 * ROUNDS[:1]), attached) > 3 * one


@pytest.mark.parametrize(
    ("frames", "plan"),
    [(1, ImagePlan({"click": False}, "click", ROUNDS[:1])), (2, ClipPlan("box", (0,), (0,), ROUNDS[:1]))],
)
def test_masks_given_back_carry_gradients_only_if_asked(frames, plan):
    model, batch = network("SAM 2"), rectangles(frames)
    select_learning(model, "decoder")
    _, detached = step(model, batch, plan)
    _, attached = step(model, batch, plan, LossOptions(attached=True))
    name = "sam_mask_decoder.mask_tokens.weight"
    assert not torch.allclose(detached[name], attached[name], rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_encoder_records_nothing_and_one_that_learns_does(family):
    model, batch, modes = network(family), rectangles(), []
    model.image_encoder.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    for learn, records in (("token", False), ("decoder", False), ("late", True), ("all", True)):
        select_learning(model, learn)
        _, found = step(model, batch, BOTH)
        assert modes.pop() is records
        assert any(name.startswith("image_encoder.") for name in found) is records


def test_the_network_itself_decides_the_order_of_frames_and_what_is_remembered():
    model, batch, asked = network("SAM 2"), rectangles(frames=4), []
    select_learning(model, "memory", clips=True)
    select = model.select_memories

    def select_memories(frame, prompted, tracked, span):
        asked.append((frame, list(prompted), sorted(tracked)))
        return select(frame, prompted, tracked, span)

    model.select_memories = select_memories
    plan = ClipPlan("click", (0, 2), (0, 1), ROUNDS[:1])
    step(model, batch, plan)
    assert asked == [(1, [0, 2], []), (3, [0, 2, 1], [])]
    asked.clear()
    step(model, batch, plan, LossOptions(corrected_as_prompted=False))
    assert asked == [(1, [0, 2], []), (3, [0, 2], [1])]


def test_plans_of_clips_hold_what_can_be_done():
    visible = np.array([True, True, False, True])
    options = LossOptions(corrected=1.0, corrected_frames=3, prompted_frames=3)
    plans = [ClipPlan.draw(np.random.default_rng(seed), options, visible) for seed in range(200)]
    for plan in plans:
        assert plan.prompted[0] == 0 and sorted(plan.order(4)) == [0, 1, 2, 3]
        assert plan.kind == "mask" or 2 not in plan.prompted
        assert plan.kind != "mask" or not set(plan.prompted) & set(plan.corrected)
        assert 1 <= len(plan.rounds) <= options.corrections
    assert {plan.kind for plan in plans} == {"mask", "click", "box"}
    assert {len(plan.prompted) for plan in plans} == {1, 2, 3}
    assert any(2 in plan.prompted for plan in plans)


def test_plans_of_images_mix_kinds_and_corrections():
    options = LossOptions(image_prompts={"click": 0.4, "box": 0.4, "mask": 0.2})
    plans = [ImagePlan.draw(np.random.default_rng(seed), options) for seed in range(300)]
    assert {kind for plan in plans for kind in plan.several} == {"click", "box", "mask"}
    assert all(len(plan.several) == 1 for plan in plans)
    assert {len(plan.rounds) for plan in plans} == {0, 1, 2, 3}
    assert 0.6 < np.mean([bool(plan.rounds) for plan in plans]) < 0.9


@pytest.mark.parametrize("kind", ["click", "box", "mask"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_prompt_trains_every_network(family, kind):
    model, batch = network(family), rectangles()
    select_learning(model, "decoder")
    found, grads = step(model, batch, ImagePlan({kind: False}, kind, ROUNDS))
    assert all(torch.isfinite(each).all() for each in grads.values()) and found[f"{kind}_loss"] > 0
    assert ("presence_loss" in found) is isinstance(model, SAM2Model)


def test_an_object_that_left_the_clip_trains_presence_alone():
    model, batch = network("SAM 2"), rectangles(frames=3, images=1, objects=1)
    select_learning(model, "all", clips=True)
    batch.masks[1:] = False
    found, grads = step(model, batch, ClipPlan("mask"))
    assert found["mask_loss"] == found["dice_loss"] == found["iou_loss"] == 0 < found["presence_loss"]
    assert "clip_iou" not in found
    assert grads["sam_mask_decoder.pred_obj_score_head.layers.0.weight"].abs().max() > 0


@pytest.mark.parametrize("family", ["SAM", "MobileSAM"])
def test_clips_for_a_network_without_memory_are_an_error(family):
    model = network(family)
    with pytest.raises(ValueError, match="Got clips of 3 frames for SAMModel, which has no memory. Expected images"):
        run_step(
            model, rectangles(frames=3), LossOptions(), np.random.default_rng(0), object_draws(4), torch.Tensor.backward
        )


@pytest.mark.parametrize("frames", [1, 3])
def test_a_step_depends_on_its_generators_alone(frames):
    model, batch = network("SAM 2", dropout=False), rectangles(frames=frames)
    select_learning(model, "all", clips=frames > 1)
    found = []
    for seed in (1, 1, 2):
        how = np.random.default_rng(seed), object_draws(4, seed), torch.Tensor.backward
        found.append((run_step(model, batch, LossOptions(), *how), gradients(model)))
    assert found[0][0] == found[1][0] != found[2][0]
    assert all(torch.equal(each, found[1][1][name]) for name, each in found[0][1].items())


def test_features_from_a_cache_take_the_place_of_the_encoder():
    model, batch = network("SAM 2"), rectangles(frames=2)
    select_learning(model, "decoder")
    with torch.no_grad():
        features = model.encode_image(normalise(batch.images.flatten(0, 1)))
    plan = ClipPlan("mask")
    expected, grads = step(model, batch, plan)
    model.image_encoder = None
    cached = dataclasses.replace(batch, images=batch.images * 0, features=features)
    found, ours = step(model, cached, plan)
    assert found == pytest.approx(expected, rel=1e-5) and furthest(ours, grads)[1] < 1e-5


def test_bfloat16_has_gradients_near_those_of_float32():
    model, batch = network("SAM 2"), rectangles()
    select_learning(model, "decoder")
    _, expected = step(model, batch, BOTH)
    with torch.autocast("cpu", torch.bfloat16):
        found, ours = step(model, batch, BOTH)
    assert np.isfinite(found["loss"]) and ours.keys() == expected.keys()
    name = "sam_mask_decoder.mask_tokens.weight"
    assert torch.cosine_similarity(ours[name].flatten(), expected[name].flatten(), 0) > 0.8
