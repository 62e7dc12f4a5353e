"""Boxes and parts of masks, in whole pixels: x1, y1, x2, y2 of the first and the last pixel inside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.types import Answer

Box = tuple[float, float, float, float]

MASK_GAIN = 4  # masks come at a quarter of the input's size


def masks_of(logits: Tensor) -> Tensor:
    """Logits (1, M, 4h, 4w) as masks (M, 16h, 16w) in pixels of the network's input."""
    return F.interpolate(logits.float(), scale_factor=MASK_GAIN, mode="bilinear")[0] > 0


def candidates_of(answer: Answer, present_above: float) -> Tensor:
    """All masks (M, 16h, 16w) of an answer; empty ones where the object is absent."""
    masks = masks_of(answer.logits)
    away = answer.presence is not None and answer.presence.item() <= present_above
    return torch.zeros_like(masks) if away else masks


def box_of(mask: Tensor) -> Box | None:
    """The box of a mask (H, W); None if it is empty."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return None
    return columns[0].item(), rows[0].item(), columns[-1].item(), rows[-1].item()


def overlap(a: Box | None, b: Box | None) -> float:
    """The share of two boxes' union that both cover; 0 where one is missing."""
    if a is None or b is None:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def largest_part(mask: Tensor) -> Tensor:
    """The largest connected part of a mask (H, W); pixels that touch at a corner are connected."""
    inside = mask.flatten()
    labels = torch.arange(1, inside.numel() + 1, device=mask.device) * inside
    while True:
        # Every pixel takes its neighbours' largest label, and then the label of the pixel that this label names.
        near = F.max_pool2d(labels.view(1, 1, *mask.shape).float(), 3, stride=1, padding=1).long().flatten() * inside
        further = torch.where(inside, near[near - 1], 0)
        if torch.equal(further, labels):
            break
        labels = further
    sizes = labels.bincount()
    sizes[0] = 0
    return (labels == sizes.argmax()).view(mask.shape) & mask
