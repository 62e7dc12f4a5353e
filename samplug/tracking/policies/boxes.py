"""Candidate masks and their boxes, in pixels of the network's input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.masks.iou import box_iou
from samplug.nn.constants import MASK_STRIDE
from samplug.nn.structs import Answer

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


def masks_of(logits: Tensor) -> Tensor:
    """Logits (1, M, 4h, 4w) as masks (M, 16h, 16w)."""
    return F.interpolate(logits.float(), scale_factor=MASK_STRIDE, mode="bilinear")[0] > 0


def alternative_masks(answer: Answer, present_above: float) -> Tensor:
    """All masks (M, 16h, 16w) of an answer; empty ones where the object is absent."""
    masks = masks_of(answer.logits)
    away = answer.presence is not None and answer.presence.item() <= present_above
    return torch.zeros_like(masks) if away else masks


def iou_of_pair(box: Box | None, other: Box | None) -> float:
    """The IoU of two boxes; 0 where one is missing."""
    if box is None or other is None:
        return 0.0
    return box_iou(*torch.tensor([[box], [other]], dtype=torch.float64)).item()


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
