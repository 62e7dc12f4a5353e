"""Masks cleaned by their 8-connected regions: small holes filled, small islands dropped."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import mask_boxes
from samplug.masks.iou import nms
from samplug.masks.packed import PackedMask, PackedMasks


def clean_mask(
    mask: np.ndarray, max_hole: float, min_island: float, outside: np.ndarray | None = None
) -> tuple[np.ndarray, bool]:
    """Fill the small holes of one mask (H, W), then drop its small islands, never the largest; and whether it had any.

    Background in `outside` (H, W) belongs to no hole, however small its region.
    """
    numbers, areas = connected_regions(~mask)
    holes = np.concatenate([[False], areas < max_hole])
    if outside is not None:
        holes[numbers[outside]] = False
    if holes.any():
        mask = mask | holes[numbers]
    numbers, areas = connected_regions(mask)
    islands = areas < min_island
    if not islands.any():
        return mask, bool(holes.any())
    if islands.all():
        islands[areas.argmax()] = False
    return np.concatenate([[False], ~islands])[numbers], True


def connected_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8-connected regions of what is on: (H, W) int32 numbers from 1 (0 is off), and the regions' areas."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return numbers, stats[1:, cv2.CC_STAT_AREA]


def remove_small_regions(masks: Tensor, min_area: float = 0, nms_thresh: float = 0.7) -> tuple[Tensor, Tensor]:
    """Fill holes, drop islands of fewer pixels than `min_area`, and drop masks that have become duplicates by that.

    Of two masks (N, H, W) whose new boxes have an IoU above `nms_thresh` one stays, preferably an unchanged one.

    Returns:
        The masks that stay, (K, H, W) bool, and their indices, (K,) int64: unchanged ones first.
    """
    if masks.dtype != torch.bool:
        raise TypeError(f"masks are {masks.dtype}. Expected bool masks: write masks > threshold.")
    cleaned = torch.empty_like(masks)
    for mask, target in zip(masks, cleaned, strict=True):
        target.copy_(torch.from_numpy(clean_mask(mask.cpu().numpy(), min_area, min_area)[0]))
    unchanged = (cleaned == masks).flatten(1).all(1).float()
    keep = nms(mask_boxes(cleaned).cpu(), unchanged.cpu(), nms_thresh).to(masks.device)
    return cleaned[keep], keep


def clean_result_masks(masks: Tensor, fill_holes: float = 0, min_area: float = 0) -> None:
    """Fill holes and drop islands of (N, H, W) bool masks, in place; the cost follows the objects' size.

    Holes and islands have fewer pixels than the limits, which below 1 are shares of the mask's own area; True fills all
    holes. Background that reaches the box around a mask is no hole, and the largest island is never dropped.
    """
    if not (fill_holes or min_area):
        return
    for mask, (left, top, right, bottom) in zip(masks, mask_boxes(masks).int().tolist(), strict=True):
        window = mask[top : bottom + 1, left : right + 1]
        inside = window.cpu().numpy()
        area = int(inside.sum())
        outside = np.pad(np.zeros_like(inside), 1, constant_values=True)  # makes one region of what is no hole
        cleaned, _ = clean_mask(np.pad(inside, 1), in_pixels(fill_holes, area), in_pixels(min_area, area), outside)
        window.copy_(torch.from_numpy(cleaned[1:-1, 1:-1]))


def in_pixels(limit: float, area: int) -> float:
    """A limit in pixels, from pixels, a share of an area, or True for any number."""
    if limit is True:
        return math.inf
    return limit * area if limit < 1 else limit


def clean_packed_masks(masks: PackedMasks, min_area: float, nms_thresh: float) -> tuple[PackedMasks, Tensor, Tensor]:
    """The same of packed masks: those that stay, their boxes (K, 4) xyxy on the CPU, as `mask_boxes`, their indices.

    Never a mask's largest region goes. A mask without small regions comes, and stays, before those that had some.
    """
    cleaned = [_clean_packed(mask, min_area) for mask in masks.items]
    boxes = torch.tensor([mask.pixel_box for mask, _ in cleaned], dtype=torch.float32).reshape(-1, 4)
    keep = nms(boxes, torch.tensor([not changed for _, changed in cleaned], dtype=torch.float32), nms_thresh)
    stack = PackedMasks((mask for mask, _ in cleaned), masks.size, masks.device)
    return stack[keep], boxes[keep], keep.to(masks.device)


def _clean_packed(mask: PackedMask, min_area: float) -> tuple[PackedMask, bool]:
    """One mask without its small regions, and whether it had any."""
    pixels, outside, top, left = _with_rim(mask, min_area)
    cleaned, changed = clean_mask(pixels, min_area, min_area, outside)
    if not changed:
        return mask, False
    return PackedMask.pack(torch.from_numpy(cleaned).to(mask.bits.device), top, left, mask.size), True


def _with_rim(mask: PackedMask, min_area: float) -> tuple[np.ndarray, np.ndarray, int, int]:
    """One mask's pixels in a rim of background where its frame goes on, which pixels are that rim, and their place.

    Where so little of the frame is left beside the mask that it may be a hole, it is the whole frame without a rim.
    """
    margins = [(part.start, side - part.stop) for part, side in zip(mask.slices, mask.size, strict=True)]
    if any(
        0 < margin * other < min_area for pair, other in zip(margins, mask.size[::-1], strict=True) for margin in pair
    ):
        whole = mask.unpack().cpu().numpy()
        return whole, np.zeros_like(whole), 0, 0
    pixels = mask.pixels.cpu().numpy()
    rim = [[min(margin, 1) for margin in pair] for pair in margins]
    outside = np.pad(np.zeros_like(pixels), rim, constant_values=True)
    return np.pad(pixels, rim), outside, mask.top - rim[0][0], mask.left - rim[1][0]
