"""How good the network is on scenes it has not seen: overlaps at the picture's own size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch

from . import clicks, scenes
from .asking import best_mask, clicked, more_clicks, normalised
from .batches import Batch, gather
from .prompting import boxes_around

SEED = 2**32  # first of the pictures for measuring: training's generators are seeded with pairs of numbers
AT_ONCE = 8  # pictures


@torch.no_grad()
def measure(
    model: SAM2Model, size: int, *, level: float = 1.0, count: int = 200, prompts: int = 3, held_out: bool = False
) -> dict[str, float]:
    """Mean overlaps on pictures that training never draws.

    Args:
        model: The network; it is left in eval mode.
        size: Side of the pictures in pixels.
        level: Of the scenes.
        count: Pictures.
        prompts: Objects asked for in each.
        held_out: Of the outlines and surfaces that training never draws either.

    Returns:
        `click`, `three_clicks`, `box`: IoU of the one mask that a user gets. `click_chosen`, `box_chosen`: of the one
        of three that the network holds for the best. `click_best`: of the best of three. `box_as_mask`: of the box
        itself. `same`: IoU between the masks of two prompts of one picture and `same_truth` what it should be; a
        network that does not hear its prompt has 1.
    """
    model.eval()
    device = model.device
    rows = []
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        generators = (np.random.default_rng(SEED + number) for number in numbers)
        drawn = [scenes.draw(rng, size, size, level=level, held_out=held_out) for rng in generators]
        batch = gather(drawn, prompts).to(device)
        rows.append(_overlaps(model, model.encode(normalised(model, batch.images[0])), batch))
    total = sum(len(row["click"]) for row in rows)
    return {name: sum(row[name].sum().item() for row in rows) / total for name in rows[0]}


def _overlaps(model: SAM2Model, features: Features, batch: Batch) -> dict[str, Tensor]:
    """Each (N,)."""
    click_prompts, box_prompts = central_clicks(batch), PromptBatch(batch.owner, boxes=boxes_around(batch.masks[0]))
    click, box = (model.answer(features, prompts, multimask=True) for prompts in (click_prompts, box_prompts))
    first = logits = model.answer(features, click_prompts).logits[:, 0]
    corrected = click_prompts
    for _ in range(2):
        corrected = central_correction(corrected, logits, batch)
        logits = model.answer(features, corrected).logits[:, 0]
    truth = batch.masks[0]
    found, beside = masks_of(first, batch), torch.roll(torch.arange(len(first)), -1)
    return {
        "click": iou(found, truth),
        "click_chosen": iou(masks_of(best_mask(click.logits, click.iou), batch), truth),
        "click_best": torch.stack([iou(masks_of(one, batch), truth) for one in click.logits.unbind(1)]).amax(0),
        "three_clicks": iou(masks_of(logits, batch), truth),
        "box": iou(masks_of(model.answer(features, box_prompts).logits[:, 0], batch), truth),
        "box_chosen": iou(masks_of(best_mask(box.logits, box.iou), batch), truth),
        "box_as_mask": iou(filled(batch), truth),
        "same": iou(found, found[beside]),
        "same_truth": iou(truth, truth[beside]),
    }


def central_clicks(batch: Batch) -> PromptBatch:
    """A click at the centre of each object."""
    points = np.stack([clicks.centre(mask) for mask in batch.masks[0].cpu().numpy()])
    return clicked(batch.owner, torch.from_numpy(points).to(batch.owner.device))


def central_correction(prompts: PromptBatch, logits: Tensor, batch: Batch) -> PromptBatch:
    """One more click each at the centre of the largest error, with the masks (N, h, w) that it corrects."""
    found, wanted = masks_of(logits, batch).cpu().numpy(), batch.masks[0].cpu().numpy()
    pairs = zip(found, wanted, strict=True)
    corrections = [clicks.correction(one, truth) or (clicks.centre(truth), 1) for one, truth in pairs]
    points, labels = zip(*corrections, strict=True)
    device = batch.owner.device
    return more_clicks(
        prompts, torch.from_numpy(np.stack(points)).to(device), torch.tensor(labels, device=device), logits
    )


def masks_of(logits: Tensor, batch: Batch) -> Tensor:
    """Masks (N, H, W) at the picture's size of logits (N, h, w)."""
    size = batch.masks.shape[-2:]
    return F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0] > 0


def iou(found: Tensor, wanted: Tensor) -> Tensor:
    """Overlap of masks (N, H, W), each with its own: (N,)."""
    union = (found | wanted).sum((1, 2))
    return (found & wanted).sum((1, 2)) / union.clamp_min(1)


def filled(batch: Batch) -> Tensor:
    """The boxes as masks (N, H, W): what a user gets without any network."""
    height, width = batch.masks.shape[-2:]
    left, top, right, bottom = (edge[:, None, None] for edge in boxes_around(batch.masks[0]).unbind(1))
    x = torch.arange(width, device=batch.masks.device) + 0.5
    y = torch.arange(height, device=batch.masks.device)[:, None] + 0.5
    return (x > left) & (x < right) & (y > top) & (y < bottom)
