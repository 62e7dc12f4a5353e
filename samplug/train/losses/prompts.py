"""Simulated users of training: prompts for the objects of a batch, first and corrected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.masks.boxes import outer_boxes
from samplug.nn.constants import MASK_STRIDE, PREVIOUS_MASK_CLAMP
from samplug.nn.inputs import mask_to_logits
from samplug.nn.structs import PromptBatch
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.losses import Target, coverage

EROSIONS = (1, 1, 2, 4)  # pixels, one after the other
COARSE = 9  # side of the mean that blurs a coarse mask, in pixels of the decoder


def random_pixels(masks: Tensor, draws: ObjectDraws) -> Tensor:
    """A random pixel (N, 2) of each mask bool (N, H, W), more often deep inside than near the edge; (0, 0) of none."""
    depth, place = draws.uniform(2).unbind(1)
    depth = (depth * (len(EROSIONS) + 1)).floor()
    allowed = core = masks[:, None].float()
    for number, step in enumerate(EROSIONS, 1):
        core = -F.max_pool2d(-core, 2 * step + 1, 1, step)
        deeper = (depth >= number) & core.flatten(1).any(1)
        allowed = torch.where(deeper[:, None, None, None], core, allowed)
    order = allowed.flatten(1).cumsum(1, dtype=torch.int32)
    count = order[:, -1]
    wanted = (place * count).int().clamp_max(count - 1) + 1
    index = torch.searchsorted(order, wanted[:, None])[:, 0] * (count > 0)
    return torch.stack([index % masks.shape[-1], index // masks.shape[-1]], 1).float()


def correction_clicks(
    predicted: Tensor, truth: Tensor, draws: ObjectDraws, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A click (N, 2) on an error of each mask with its label (N,), 1 where the object was missed.

    Args:
        predicted: bool (N, h, w) at the decoder's stride.
        truth: likewise; where it is met, the click is one more on the object, or off it if there is none.
        draws: source of the choice.
        known: bool (N, h, w), where the truth is known; None for everywhere.
    """
    wrong = predicted != truth if known is None else (predicted != truth) & known
    for other in (truth, ~truth):
        wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, other)
    points = random_pixels(wrong, draws)
    x, y = points.long().unbind(1)
    labels = truth[torch.arange(len(truth), device=truth.device), y, x].long()
    return (points + 0.5) * MASK_STRIDE - 0.5, labels


def noisy_boxes(masks: Tensor, draws: ObjectDraws, noise: float = 0.1, most: float = 20.0) -> Tensor:
    """Boxes (N, 4) as drawn by hand: every edge off by a normal error.

    Args:
        masks: bool (N, H, W).
        draws: source of the errors.
        noise: the largest standard deviation, in sides of the box; how careful the user is varies below it.
        most: pixels that no edge is off by more than.
    """
    exact = outer_boxes(masks)
    sides = (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    care = noise * draws.uniform(1)
    error = draws.normal(4) * care * sides
    return exact + error.clamp(-most, most)


def coarse_masks(masks: Tensor, draws: ObjectDraws) -> Tensor:
    """Logits (N, 1, h, w) of masks bool (N, H, W) whose outlines are blurred and lie too far in or out."""
    blurred = F.avg_pool2d(coverage(masks)[:, None], COARSE, 1, COARSE // 2)
    bound = 0.2 + 0.6 * draws.uniform(1)[..., None, None]
    return mask_to_logits((blurred > bound * blurred.amax((-2, -1), keepdim=True)).float())


def first_prompts(masks: Tensor, image_index: Tensor, kind: str, draws: ObjectDraws) -> PromptBatch:
    """A `"click"` on each mask (N, H, W), a `"box"` around it, or a coarse `"mask"` of it."""
    if kind == "mask":
        return PromptBatch(image_index, masks=coarse_masks(masks, draws))
    if kind == "box":
        return PromptBatch(image_index, boxes=noisy_boxes(masks, draws))
    return one_click(image_index, random_pixels(masks, draws))


def one_click(image_index: Tensor, points: Tensor) -> PromptBatch:
    """One click (N, 2) on each object."""
    return PromptBatch(image_index, points=points[:, None], labels=torch.ones_like(image_index)[:, None])


def corrected_prompts(
    prompts: PromptBatch, logits: Tensor, target: Target, draws: ObjectDraws, with_mask: bool = True,
    from_truth: bool = False, attached: bool = False,
) -> PromptBatch:  # fmt: skip
    """The prompts with one more click each, on an error of the masks they gave.

    Args:
        prompts: the previous ones.
        logits: of the masks that they gave, (N, h, w).
        target: of the objects.
        draws: source of the clicks.
        with_mask: give the masks back as prompts too.
        from_truth: click anywhere on the object, not in the error.
        attached: give them back as they are, with their gradients.
    """
    predicted = torch.zeros_like(target.truth) if from_truth else logits > 0
    known = None if target.known is None else target.known > 0.5
    points, labels = (values[:, None] for values in correction_clicks(predicted, target.truth, draws, known))
    if prompts.points is not None and prompts.labels is not None:
        points, labels = torch.cat([prompts.points, points], 1), torch.cat([prompts.labels, labels], 1)
    previous = logits if attached else logits.detach().float().clamp(-PREVIOUS_MASK_CLAMP, PREVIOUS_MASK_CLAMP)
    masks = previous[:, None] if with_mask else None
    return PromptBatch(prompts.image_index, points=points, labels=labels, boxes=prompts.boxes, masks=masks)


def best_mask(logits: Tensor, iou: Tensor) -> Tensor:
    """The mask with the highest predicted IoU: (N, M, h, w), (N, M) -> (N, h, w)."""
    return logits[torch.arange(len(logits), device=logits.device), iou.argmax(1)]
