"""Prompts for the objects of a batch, first and corrected: what a simulated user gives the network.

N objects, (H, W) the input's size, (h, w) a quarter of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import PromptBatch

from .prompting import correcting, inside, loose_boxes

CLICK, BOX, MASK = "click", "box", "mask"
MOST_CERTAIN = 32.0  # a mask goes back into the network with its logits held within


def normalised(model: SAM2Model, images: Tensor) -> Tensor:
    """Pictures (F, 3, H, W), 0 to 255, as the network wants them."""
    mean, deviation = model.get_buffer("pixel_mean"), model.get_buffer("pixel_std")
    return (images.float() - mean) / deviation


def first_prompts(masks: Tensor, owner: Tensor, kind: str, generator: torch.Generator) -> PromptBatch:
    """A click on each mask (N, H, W), or a box around it."""
    if kind == BOX:
        return PromptBatch(owner, boxes=loose_boxes(masks, generator))
    return clicked(owner, inside(masks, generator))


def clicked(owner: Tensor, points: Tensor) -> PromptBatch:
    """One click (N, 2) on each object."""
    return PromptBatch(owner, points=points[:, None], labels=torch.ones_like(owner)[:, None])


def corrected_prompts(
    prompts: PromptBatch, logits: Tensor, truth: Tensor, generator: torch.Generator, with_mask: bool = True
) -> PromptBatch:
    """The prompts with one more click each, on an error of the masks they gave.

    Args:
        prompts: What was asked before.
        logits: Of the masks that came, (N, h, w).
        truth: What was wanted, bool (N, h, w).
        generator: Source of the clicks.
        with_mask: Give the masks back as prompts too.
    """
    points, labels = correcting(logits > 0, truth, generator)
    return more_clicks(prompts, points, labels, logits if with_mask else None)


def more_clicks(prompts: PromptBatch, points: Tensor, labels: Tensor, logits: Tensor | None) -> PromptBatch:
    """The prompts with clicks (N, 2) and labels (N,) added, and with masks (N, h, w) if there are any."""
    points, labels = points[:, None], labels[:, None]
    if prompts.points is not None and prompts.labels is not None:
        points, labels = torch.cat([prompts.points, points], 1), torch.cat([prompts.labels, labels], 1)
    masks = None if logits is None else logits.detach().float()[:, None].clamp(-MOST_CERTAIN, MOST_CERTAIN)
    return PromptBatch(prompts.owner, points=points, labels=labels, boxes=prompts.boxes, masks=masks)


def best_mask(logits: Tensor, iou: Tensor) -> Tensor:
    """The mask with the highest predicted overlap: (N, M, h, w), (N, M) -> (N, h, w), without gradient."""
    return logits.detach()[torch.arange(len(logits), device=logits.device), iou.argmax(1)]
