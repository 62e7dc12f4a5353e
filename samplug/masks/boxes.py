"""Boxes around masks: by the last pixels that are on, as in Ultralytics, or by the outer edges of those pixels."""

from __future__ import annotations

import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # xyxy in whole pixels


def mask_boxes(masks: Tensor) -> Tensor:
    """The first and last pixels of (N, H, W) bool masks that are on, (N, 4) float32 xyxy; zeros for an empty mask.

    TypeError for masks that are not bool: of numbers, "on" would be a guess.
    """
    if masks.dtype != torch.bool:
        raise TypeError(f"masks are {masks.dtype}. Expected bool masks: write masks > threshold.")
    if not masks.numel():
        return torch.zeros((len(masks), 4), device=masks.device)
    bits, edges = masks.view(torch.uint8), []  # ten times faster than any() on bool
    for on in (bits.amax(1), bits.amax(2)):  # columns, rows
        last = on.shape[1] - 1 - on.flip(1).argmax(1)
        edges.append((on.argmax(1), torch.where(on.amax(1) > 0, last, 0)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1).float()


def outer_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float32 xyxy around the outer edges of the pixels of (N, H, W) bool masks; no area for an empty mask."""
    boxes = mask_boxes(masks)
    nonempty = masks.flatten(1).any(1) if masks.numel() else masks.new_zeros(len(masks))
    return boxes + nonempty[:, None] * boxes.new_tensor([0, 0, 1, 1])


def mask_box(mask: Tensor) -> Box | None:
    """The first and last pixels of one (H, W) bool mask that are on, xyxy; None if it is empty."""
    if not mask.any():
        return None
    left, top, right, bottom = mask_boxes(mask[None])[0].int().tolist()
    return left, top, right, bottom


def intersection(*boxes: Box) -> Box:
    """What boxes share; its edges are in reverse order where they share nothing."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return max(left), max(top), min(right), min(bottom)


def has_area(box: Box) -> bool:
    """Whether a box holds a pixel."""
    return box[0] < box[2] and box[1] < box[3]


def enclosing_box(*boxes: Box) -> Box:
    """The smallest box around all of these."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
