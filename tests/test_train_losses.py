"""Losses and clicks against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from samplug.nn.types import Answer
from samplug.train import prompting
from samplug.train.check import centre
from samplug.train.losses import answer_loss, balanced_bce, dice, overlap


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


def test_overlap_counts_pixels():
    logits = maps([1, 1], [1, -1])[None, None]
    assert overlap(logits, maps([1, 1], [0, 0])[None]).item() == pytest.approx(2 / 3)
    assert overlap(-torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


def answer(logits: torch.Tensor) -> Answer:
    return Answer(logits, torch.zeros(logits.shape[:2]), torch.zeros(1, 1, 8), torch.full((1, 1), 100.0))


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
    target, visible = torch.stack([maps([1, 1], [0, 0]), maps([0, 0], [0, 0])]), torch.tensor([True, False])
    loss = answer_loss(said, target, balance=0.0, every_mask=False, visible=visible)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-4)


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_the_centre_is_that_of_the_largest_piece():
    mask = square(40, 2, 2, 5) | square(40, 20, 22, 11)
    assert centre(mask).tolist() == [27, 25]
    with pytest.raises(ValueError, match="empty"):
        centre(np.zeros((4, 4), bool))


def stack(*masks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(masks))


def test_random_clicks_lie_inside_and_random_corrections_in_the_error():
    generator = torch.Generator().manual_seed(0)
    mask, part = stack(*[square(40, 5, 9, 6)] * 50), stack(*[square(40, 5, 9, 3)] * 50)
    for x, y in prompting.inside(mask, generator).long().tolist():
        assert mask[0, y, x]
    points, labels = prompting.correcting(part, mask, generator)
    assert labels.tolist() == [1] * 50
    for x, y in ((points + 1.5 - 0.5) / prompting.MASK_STRIDE).long().tolist():
        assert mask[0, y, x] and not part[0, y, x]
    points, labels = prompting.correcting(mask, part, generator)
    assert labels.tolist() == [0] * 50
    again, labels = prompting.correcting(mask, mask, generator)
    assert labels.tolist() == [1] * 50


def test_random_clicks_reach_every_pixel_but_prefer_the_middle():
    mask = stack(*[square(40, 5, 5, 21)] * 4000)
    places = prompting.inside(mask, torch.Generator().manual_seed(1))
    assert len({tuple(place) for place in places.tolist()}) > 400
    assert ((places - 15).abs().amax(1) <= 2).float().mean() > 3 * 25 / 441


def test_a_click_inside_a_mask_that_fills_the_picture_is_possible():
    assert centre(np.ones((9, 9), bool)).tolist() == [4, 4]
    assert prompting.inside(stack(np.ones((9, 9), bool)), torch.Generator()).min() >= 0


def test_a_box_has_the_edges_of_the_mask_and_a_loose_one_is_near_them():
    mask = square(100, 20, 30, 40)
    many = stack(*[mask] * 60)
    assert prompting.boxes_around(many)[0].tolist() == [30, 20, 70, 60]
    off = (prompting.loose_boxes(many, torch.Generator().manual_seed(0)) - prompting.boxes_around(many)).abs()
    assert 0.5 < off.mean() < 4
    assert off.max() <= 20
