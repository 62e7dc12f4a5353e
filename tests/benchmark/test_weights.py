"""The random weights keep what they promise: without it, the comparisons that use them would say little."""

import pytest
import torch
from support.images import photograph, prompts_of

from samplug.benchmark.weights import noise, randomise
from samplug.checkpoints.config import build

VARIANTS = [
    "samplug-nano",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("sam_b", "mobile_sam", "sam2.1_t")),
]


@pytest.fixture(scope="module", params=VARIANTS)
def answer(request):
    """A function from kinds of prompts to what a random network answers to them on a photograph."""
    model = randomise(build({"variant": request.param}))
    with torch.inference_mode():
        features = model.encode((photograph(256) - model.pixel_mean) / model.pixel_std)
        yield lambda kind, multimask=False: model.answer(features, prompts_of(kind, 256), multimask)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_masks_have_both_signs(answer):
    for kind in ("point", "boxes", "mask"):
        share = (answer(kind).logits > 0).float().mean((1, 2, 3))
        assert share.min() > 0.02 and share.max() < 0.75, (kind, share)


def test_masks_of_far_clicks_are_different(answer):
    masks = answer("point").logits[:, 0] > 0
    assert max(overlap(masks[i], masks[j]) for i in range(5) for j in range(i)) < 0.6


def test_a_mask_prompt_is_found_in_the_answer(answer):
    given = prompts_of("mask", 256).masks[:, 0] > 0
    masks = answer("mask").logits[:, 0] > 0
    assert all(overlap(mask, prompt) > 0.3 for mask, prompt in zip(masks, given, strict=True))


def test_the_three_masks_of_a_click_differ(answer):
    masks = answer("point", multimask=True).logits[0] > 0
    assert max(overlap(masks[i], masks[j]) for i, j in ((0, 1), (0, 2), (1, 2))) < 0.9


def test_predicted_overlaps_differ_between_prompts_and_between_masks(answer):
    iou = torch.cat([answer("points").iou, answer("boxes").iou])
    assert iou.std() > 0.03
    assert answer("point", multimask=True).iou.std(1).mean() > 0.01


def test_the_presence_follows_the_clicks(answer):
    presence = answer("points").presence
    if presence is not None:  # SAM 2
        assert presence[0] > 0 > presence[4]  # two clicks on the object, two off it


def test_a_tensor_depends_on_its_name_shape_and_seed_alone():
    like = torch.empty(4, 3)
    assert noise("a.weight", like, 0).equal(noise("a.weight", like + 1, 0))
    assert not noise("a.weight", like, 0).equal(noise("b.weight", like, 0))
    assert not noise("a.weight", like, 0).equal(noise("a.weight", like, 1))


def test_no_tensor_is_left_constant():
    fresh = build({"variant": "samplug-nano"})
    for key, tensor in randomise(fresh).state_dict().items():
        assert tensor.numel() == 1 or tensor.unique().numel() > tensor.numel() / 2, key
