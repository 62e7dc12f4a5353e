"""Each pixel left to one object."""

from __future__ import annotations

import torch
from torch import Tensor

from samplug.masks.boxes import mask_boxes
from samplug.masks.packed import PackedMasks
from samplug.masks.resize import bilinear_weights, enlarge
from samplug.transforms import ImageTransform


def resolve_overlaps(masks: Tensor, sources: Tensor | PackedMasks, scores: Tensor, transform: ImageTransform) -> Tensor:
    """Leave each pixel of (N, H, W) bool masks, which may be changed, to one of the masks that cover it.

    `sources` are what they were made of, over the network's whole input: logits (N, a, b), of which the highest owns a
    pixel, or packed masks, of which the one with the highest score (N,) does.
    """
    if isinstance(sources, PackedMasks):
        return best_owner(masks, scores)
    shared = masks.sum(0, dtype=torch.int32) > 1
    if not shared.any():
        return masks
    left, top, right, bottom = mask_boxes(shared[None])[0].int().tolist()
    window = slice(top, bottom + 1), slice(left, right + 1)
    owner = owners(masks[(slice(None), *window)], sources, transform, window)
    for i, mask in enumerate(masks):
        mask[window] &= owner == i
    return masks


def owners(masks: Tensor, logits: Tensor, transform: ImageTransform, window: tuple[slice, slice]) -> Tensor:
    """(h, w) int32: which of the masks (N, h, w) of a window has the highest logit at each pixel; -1 where none is."""
    weights = bilinear_weights((logits.shape[1], logits.shape[2]), transform, logits.device)
    rows, columns = (axis[part] for axis, part in zip(weights, window, strict=True))
    best = torch.full(masks.shape[1:], -torch.inf, device=logits.device)
    owner = torch.full_like(best, -1, dtype=torch.int32)
    for i, (mask, values_on_grid) in enumerate(zip(masks, logits, strict=True)):
        for first, values in enlarge(values_on_grid, rows, columns):
            part = slice(first, first + len(values))
            better = mask[part] & (values > best[part])
            owner[part] = torch.where(better, i, owner[part])
            best[part] = torch.where(better, values, best[part])
    return owner


def best_owner(masks: Tensor, scores: Tensor) -> Tensor:
    """(N, H, W) bool masks with each pixel left to the object of the highest score (N,) that covers it."""
    owned = torch.zeros_like(masks)
    taken = torch.zeros(masks.shape[1:], dtype=torch.bool, device=masks.device)
    for i in scores.argsort(descending=True, stable=True).tolist():
        owned[i] = masks[i] & ~taken
        taken = taken | masks[i]
    return owned
