"""Losses and clicks against values worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.networks import object_draws
from torchvision.ops import sigmoid_focal_loss

from samplug.masks.boxes import outer_boxes
from samplug.nn.structs import Answer
from samplug.train.losses import prompts
from samplug.train.losses.losses import Target, answer_losses, balanced_bce, coverage, dice, focal, target_iou
from samplug.train.losses.options import LossOptions


def maps(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_balanced_bce_weighs_a_rare_object_like_its_background():
    """One pixel of four, all logits 0, so each pixel costs ln 2; weights 0.5/0.25 = 2 and 0.5/0.75 = 2/3."""
    target = maps([1, 0], [0, 0])
    assert balanced_bce(torch.zeros(2, 2), target, 1.0).item() == pytest.approx(math.log(2) * (2 + 3 * 2 / 3) / 4)
    only_object_right = maps([20, 20], [20, 20])
    assert balanced_bce(only_object_right, target, 1.0).item() == pytest.approx(20 * 3 * (2 / 3) / 4, rel=1e-5)
    assert balanced_bce(only_object_right, target, 0.0).item() == pytest.approx(20 * 3 / 4, rel=1e-5)


def test_dice_of_a_half_right_mask():
    """Three pixels found, two of them right, of two wanted: 1 - (2*2 + 1) / (3 + 2 + 1)."""
    logits = maps([40, 40], [40, -40])
    assert dice(logits, maps([1, 1], [0, 0])).item() == pytest.approx(1 - 5 / 6)


def test_the_iou_with_a_target_counts_pixels():
    logits = maps([1, 1], [1, -1])[None, None]
    assert target_iou(logits, maps([1, 1], [0, 0])[None]).item() == pytest.approx(2 / 3)
    assert target_iou(-torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


def answer(logits: torch.Tensor) -> Answer:
    return Answer(logits, torch.zeros(logits.shape[:2]), torch.zeros(1, 1, 8), torch.full((1, 1), 100.0))


def answer_loss(said: Answer, target: torch.Tensor, balance: float, every_mask: bool, in_clip=False) -> torch.Tensor:
    """The balanced loss of answers whose objects are where `target` is above 0."""
    options = LossOptions(loss="balanced", balance=balance)
    how = {"count": len(target), "every_mask": every_mask, "in_clip": in_clip}
    return sum(answer_losses(said, Target(target > 0, target), options, **how).values())


def test_only_the_mask_that_fits_best_is_trained_unless_all_are_asked_for():
    target = maps([1, 1], [0, 0])[None]
    right, wrong = maps([3, 3], [-3, -3]), maps([-3, -3], [3, 3])
    logits = torch.stack([right, wrong])[None].requires_grad_()
    answer_loss(answer(logits), target, balance=1.0, every_mask=False).backward()
    assert logits.grad[0, 0].abs().min() > 0
    assert logits.grad[0, 1].abs().max() == 0
    logits.grad = None
    answer_loss(answer(logits), target, balance=1.0, every_mask=True).backward()
    assert logits.grad[0, 1].abs().min() > 0


def test_the_predicted_overlap_of_every_mask_is_trained():
    """Masks are right and wholly wrong, both are said to overlap by 0: the mean error is (1 + 0) / 2."""
    target = maps([1, 1], [0, 0])[None]
    logits = torch.stack([maps([50, 50], [-50, -50]), maps([-50, -50], [50, 50])])[None]
    assert answer_loss(answer(logits), target, balance=1.0, every_mask=False).item() == pytest.approx(0.5, abs=1e-3)


def test_an_object_that_is_not_there_trains_presence_alone():
    """Two objects, one gone: its wrong mask costs nothing; presence 0 costs ln 2 for each."""
    logits = torch.stack([maps([50, 50], [-50, -50]), maps([50, 50], [50, 50])])[:, None]
    said = Answer(logits, torch.tensor([[1.0], [0.0]]), torch.zeros(2, 1, 8), torch.zeros(2, 1))
    target = torch.stack([maps([1, 1], [0, 0]), maps([0, 0], [0, 0])])
    loss = answer_loss(said, target, balance=0.0, every_mask=False, in_clip=True)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-4)


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def stack(*masks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(masks))


def test_random_clicks_lie_inside_and_random_corrections_in_the_error():
    mask, part = stack(*[square(40, 5, 9, 6)] * 50), stack(*[square(40, 5, 9, 3)] * 50)
    for x, y in prompts.random_pixels(mask, object_draws(50)).long().tolist():
        assert mask[0, y, x]
    points, labels = prompts.correction_clicks(part, mask, object_draws(50))
    assert labels.tolist() == [1] * 50
    for x, y in ((points + 1.5 - 0.5) / prompts.MASK_STRIDE).long().tolist():
        assert mask[0, y, x] and not part[0, y, x]
    points, labels = prompts.correction_clicks(mask, part, object_draws(50))
    assert labels.tolist() == [0] * 50
    again, labels = prompts.correction_clicks(mask, mask, object_draws(50))
    assert labels.tolist() == [1] * 50


def test_random_clicks_reach_every_pixel_but_prefer_the_middle():
    mask = stack(*[square(40, 5, 5, 21)] * 4000)
    places = prompts.random_pixels(mask, object_draws(4000))
    assert len({tuple(place) for place in places.tolist()}) > 400
    assert ((places - 15).abs().amax(1) <= 2).float().mean() > 3 * 25 / 441


def test_a_click_inside_a_mask_that_fills_the_image_is_possible():
    assert prompts.random_pixels(stack(np.ones((9, 9), bool)), object_draws(1)).min() >= 0


def test_a_noisy_box_is_near_the_edges_of_the_mask():
    mask = square(100, 20, 30, 40)
    many = stack(*[mask] * 60)
    off = (prompts.noisy_boxes(many, object_draws(60)) - outer_boxes(many)).abs()
    assert 0.5 < off.mean() < 4
    assert off.max() <= 20


# Meta's losses, and what is unknown


META = LossOptions(loss="meta")


def test_the_focal_loss_is_torchvisions():
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(3, 2, 8, 8), torch.rand(3, 2, 8, 8).round()
    expected = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2).mean((-2, -1))
    assert torch.allclose(focal(logits, target), expected, rtol=1e-5)


@pytest.mark.parametrize("options", [META, LossOptions(loss="balanced"), LossOptions(full_masks=True)])
def test_pixels_whose_truth_is_unknown_change_nothing(options):
    """The lower half is ignored: other logits there are the same loss, and get no gradient; above they are not."""
    masks, ignore = torch.zeros(1, 32, 32, dtype=torch.bool), torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[:, 4:12, 4:20], ignore[:, 20:] = True, True
    target = Target.of(masks, torch.tensor([0]), ignore)
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 8, 8)

    def loss(values):
        said = Answer(values, torch.full((1, 3), 0.5), torch.zeros(1, 1, 8), torch.zeros(1, 1))
        return sum(answer_losses(said, target, options, count=1, every_mask=False, in_clip=False).values())

    below, above = logits.clone(), logits.clone()
    below[..., 6:, :] += 3
    above[..., :3, :] += 3
    assert loss(below).item() == pytest.approx(loss(logits).item())
    assert loss(above).item() != pytest.approx(loss(logits).item(), rel=1e-2)


def test_no_correction_is_asked_for_where_the_truth_is_unknown():
    mask, everything = stack(*[square(40, 5, 9, 6)] * 50), torch.ones(50, 40, 40, dtype=torch.bool)
    known = everything.clone()
    known[:, 12:] = False
    points, labels = prompts.correction_clicks(everything, mask, object_draws(50), known)
    assert (points[:, 1] < 12 * prompts.MASK_STRIDE).all() and not labels.any()


def test_where_nothing_is_and_nothing_is_found_the_click_is_off_the_object():
    nothing = torch.zeros(4, 9, 9, dtype=torch.bool)
    assert prompts.correction_clicks(nothing, nothing, object_draws(4))[1].tolist() == [0] * 4


def test_an_object_smaller_than_a_pixel_of_the_decoder_is_still_one():
    mask = stack(square(40, 9, 9, 2))
    assert Target.of(mask, torch.tensor([0])).truth.sum() == 1
    assert not Target.of(mask & False, torch.tensor([0])).truth.any()


def test_a_coarse_mask_is_near_the_mask_but_not_it():
    masks = stack(*[square(128, 20, 30, 64)] * 20)
    coarse = prompts.coarse_masks(masks, object_draws(20))
    ious = target_iou(coarse, coverage(masks))[:, 0]
    assert coarse.shape == (20, 1, 32, 32) and set(coarse.unique().tolist()) == {-10, 10}
    assert 0.4 < ious.min() < ious.max() < 1


def test_the_loss_of_a_network_is_the_one_it_was_trained_with():
    settings = SimpleNamespace(corrections=1, full_masks=True)
    small, meta = (LossOptions.of(SimpleNamespace(variant=name), settings) for name in ("samplug-nano", "sam2.1_t"))
    assert (small.loss, meta.loss, meta.corrections, meta.full_masks) == ("balanced", "meta", 1, True)


def test_a_corrected_prompt_carries_the_mask_and_a_click_on_its_error():
    masks, index = torch.zeros(1, 64, 64, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
    masks[:, 8:56, :32] = True
    target = Target.of(masks, index)
    assert target.share.sum() * 16 == masks.sum()
    logits = torch.where(target.truth, 1.0, -1.0)
    logits[:, 4:8, 12:16] = 1  # too much, at pixels 48..64, 16..32
    draws = object_draws(1)
    first = prompts.first_prompts(masks, index, "click", draws)
    corrected = prompts.corrected_prompts(first, logits, target, draws)
    assert corrected.labels.tolist() == [[1, 0]]
    x, y = corrected.points[0, 1].tolist()
    assert 48 <= x < 64 and 16 <= y < 32
    assert torch.equal(corrected.masks[:, 0], logits)
    boxed = prompts.first_prompts(masks, index, "box", draws)
    boxed = prompts.corrected_prompts(boxed, logits, target, draws, with_mask=False)
    assert boxed.boxes is not None and boxed.masks is None and boxed.labels.tolist() == [[0]]


def test_the_best_mask_is_that_of_the_highest_predicted_overlap():
    logits = torch.arange(6.0).view(2, 3, 1, 1)
    assert prompts.best_mask(logits, torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1]])).flatten().tolist() == [1, 3]
