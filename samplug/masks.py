"""Masks brought to the picture's size; their boxes, their stability, their small regions, one owner per pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug.view import Size, View

NOT_MINE = -10.0  # ceiling for the logits of a pixel that another object owns
BAND = 1 << 19  # picture pixels worked on at once: small enough for the cache, and no extra memory worth counting


# ------------------------------------------------------------------ to the picture's size


@dataclass(frozen=True, eq=False)
class Taps:
    """Which two cells of a map each pixel of a picture's side lies between, and how far towards the second."""

    low: Tensor  # (S,) int64
    high: Tensor  # (S,) int64
    weight: Tensor  # (S,) float32

    @classmethod
    def of(cls, side: int, span: float, cells: int, device: torch.device) -> Taps:
        """For a side of so many pixels that covers `span` cells of a map; only the first `cells` are asked."""
        last = cells - 1
        at = ((np.arange(side) + 0.5) * (span / side) - 0.5).clip(0, last)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, last)
        weight = (at - low).astype(np.float32)
        return cls(*(torch.from_numpy(part).to(device) for part in (low, high, weight)))

    def __getitem__(self, part: slice) -> Taps:
        return Taps(self.low[part], self.high[part], self.weight[part])

    def __len__(self) -> int:
        return len(self.low)

    def reached_by(self, first: Tensor, last: Tensor) -> list[slice]:
        """For each range of cells first … last, (N,) int64 both, the pixels that look at any of them."""
        start = torch.searchsorted(self.high, first)
        stop = torch.searchsorted(self.low, last, right=True)
        return [slice(*pair) for pair in torch.stack([start, stop], 1).tolist()]


def taps_of(logits: Tensor, view: View) -> tuple[Taps, Taps]:
    """The taps of a picture's rows and columns in (N, a, b) logits over the network's whole input."""
    return taps_at((logits.shape[-2], logits.shape[-1]), view, logits.device)


def taps_at(grid: Size, view: View, device: torch.device) -> tuple[Taps, Taps]:
    """The same in a map of (a, b) cells."""
    spans = view.span(grid)
    whole = [max(round(span), 1) for span in spans]
    # Cells of the padding are left out where the picture ends between two cells, and seen where it ends inside one, on
    # either side: so does Ultralytics' `scale_masks`, and masks should be equal to the last row.
    ends_between = sum(abs(span - cells) for span, cells in zip(spans, whole, strict=True)) <= 1e-3
    cells = whole if ends_between else grid
    rows, columns = (Taps.of(*each, device) for each in zip(view.picture, spans, cells, strict=True))
    return rows, columns


def enlarge(mask: Tensor, rows: Taps, columns: Taps, band: int = BAND) -> Iterator[tuple[int, Tensor]]:
    """One (a, b) map at the pixels of these taps, as (first row, (h, W) float32) bands from top to bottom."""
    mask = mask.float()
    left, right = mask.index_select(1, columns.low), mask.index_select(1, columns.high)
    wide = torch.lerp(left, right, columns.weight)
    step = max(band // max(len(columns), 1), 1)
    for top in range(0, len(rows), step):
        part = rows[top : top + step]
        upper, lower = wide.index_select(0, part.low), wide.index_select(0, part.high)
        yield top, torch.lerp(upper, lower, part.weight[:, None])


def resize_to_picture(logits: Tensor, view: View, threshold: float = 0.0) -> Tensor:
    """Masks at the picture's size.

    Bilinear, corners not aligned, in one step from the map to the picture, which may end inside a cell of the map: what
    Ultralytics does (8.4.190) and, for a stretched picture, Meta's SAM 2. Meta's SAM goes through the network's size
    first; that moves edges by a fraction of a pixel and costs more. Only where a mask can be is computed, as a bilinear
    value exceeds the threshold only if a cell around it does. Needs a few MB beside the result for any picture's size.

    Args:
        logits: (N, a, b) over the network's whole input, any float dtype.
        view: how the picture lies in that input.
        threshold: above it a pixel is on.

    Returns:
        (N, H, W) bool on the logits' device.
    """
    masks = torch.zeros((len(logits), *view.picture), dtype=torch.bool, device=logits.device)
    rows, columns = taps_of(logits, view)
    if not masks.numel():
        return masks
    inside = logits[:, : int(rows.high[-1]) + 1, : int(columns.high[-1]) + 1] > threshold
    left, top, right, bottom = boxes_of(inside).long().T.contiguous()
    places = zip(rows.reached_by(top, bottom), columns.reached_by(left, right), strict=True)
    for i, (down, across) in enumerate(places):
        for first, values in enlarge(logits[i], rows[down], columns[across]):
            start = down.start + first
            torch.gt(values, threshold, out=masks[i, start : start + len(values), across])
    return masks


# ------------------------------------------------------------------ boxes and scores


def boxes_of(masks: Tensor) -> Tensor:
    """The boxes around masks, as pixel indices: the right and lower edges are the last pixels that are on.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32 xyxy; zeros for an empty mask.

    Raises:
        TypeError: for masks that are not bool (of numbers, "on" would be a guess).
    """
    if masks.dtype != torch.bool:
        raise TypeError(f"masks are {masks.dtype}: boxes are taken of bool masks, write masks > threshold.")
    if not masks.numel():
        return torch.zeros((len(masks), 4), device=masks.device)
    bits = masks.view(torch.uint8)  # ten times faster than any() on bool
    top, bottom = ends(bits.amax(2))
    left, right = ends(bits.amax(1))
    return torch.stack([left, top, right, bottom], 1).float()


def ends(bits: Tensor) -> tuple[Tensor, Tensor]:
    """First and last 1 in each row of (N, L) zeros and ones; 0 and 0 where there is none."""
    first = bits.argmax(1)
    last = bits.shape[1] - 1 - bits.flip(1).argmax(1)
    return first, torch.where(bits.amax(1) > 0, last, 0)


def stability(logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> Tensor:
    """How little masks change with their threshold (Segment Anything, section 2 of its appendix on data).

    Args:
        logits: (N, h, w).
        threshold: where masks are cut.
        offset: how far the threshold is moved up and down.

    Returns:
        (N,) float32 in 0 … 1: the overlap of the masks at both thresholds; 0 where both are empty.
    """
    inner = (logits > threshold + offset).sum((-1, -2), dtype=torch.int32)
    outer = (logits > threshold - offset).sum((-1, -2), dtype=torch.int32)
    return inner / outer.clamp(min=1)


# ------------------------------------------------------------------ one owner per pixel


def one_owner(logits: Tensor) -> Tensor:
    """(N, H, W) logits with each pixel left to its highest object; the others are held at -10 or below there."""
    if len(logits) < 2:
        return logits
    owner = logits.argmax(0, keepdim=True)
    index = torch.arange(len(logits), device=logits.device)[:, None, None]
    return torch.where(owner == index, logits, logits.clamp(max=NOT_MINE))


def best_owner(masks: Tensor, scores: Tensor) -> Tensor:
    """(N, H, W) bool masks with each pixel left to the object of the highest score (N,) that claims it."""
    owned = torch.zeros_like(masks)
    taken = torch.zeros(masks.shape[1:], dtype=torch.bool, device=masks.device)
    for i in scores.argsort(descending=True, stable=True).tolist():
        owned[i] = masks[i] & ~taken
        taken = taken | masks[i]
    return owned


# ------------------------------------------------------------------ small regions


def fill_holes(masks: Tensor, area: float) -> Tensor:
    """(N, H, W) bool masks with holes of fewer than `area` pixels filled (8-connected parts of the background)."""
    return each_on_cpu(masks, lambda mask: filled(mask, area))


def drop_islands(masks: Tensor, area: float) -> Tensor:
    """(N, H, W) bool masks without their parts of fewer than `area` pixels (8-connected); the largest always stays."""
    return each_on_cpu(masks, lambda mask: without_islands(mask, area))


def remove_small_regions(masks: Tensor, min_area: float = 0, nms_thresh: float = 0.7) -> tuple[Tensor, Tensor]:
    """Fill small holes, drop small islands, and drop masks that have become duplicates by that.

    Args:
        masks: (N, H, W) bool.
        min_area: holes and islands of fewer pixels go.
        nms_thresh: of two masks whose new boxes overlap by more than this IoU one stays, rather an unchanged one.

    Returns:
        The masks that stay, (K, H, W) bool, and their indices, (K,) int64: unchanged ones first.
    """
    cleaned = drop_islands(fill_holes(masks, min_area), min_area)
    unchanged = (cleaned == masks).flatten(1).all(1).float() if len(masks) else torch.zeros(0)
    keep = without_duplicates(boxes_of(cleaned), unchanged, nms_thresh).to(masks.device)
    return cleaned[keep], keep


def each_on_cpu(masks: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A function of one (H, W) bool array applied to each of a stack; the stack itself is left as it was."""
    if masks.dtype != torch.bool:
        raise TypeError(f"masks are {masks.dtype}: regions are counted in bool masks, write masks > threshold.")
    changed = torch.empty_like(masks)
    for mask, target in zip(masks, changed, strict=True):
        target.copy_(torch.from_numpy(change(mask.cpu().numpy())))
    return changed


def parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8-connected parts of what is on: (H, W) int32 numbers from 1 (0 is off), and the parts' areas."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return numbers, stats[1:, cv2.CC_STAT_AREA]


def filled(mask: np.ndarray, area: float) -> np.ndarray:
    """One mask with its small holes filled."""
    numbers, areas = parts(~mask)
    small = np.concatenate([[False], areas < area])
    return mask | small[numbers] if small.any() else mask


def without_islands(mask: np.ndarray, area: float) -> np.ndarray:
    """One mask without its small parts."""
    numbers, areas = parts(mask)
    large = areas >= area
    if large.all():
        return mask
    if not large.any():
        large[areas.argmax()] = True
    return np.concatenate([[False], large])[numbers]


def without_duplicates(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of boxes (N, 4), best score first, of which none overlaps a better one by more than the threshold."""
    order = scores.cpu().argsort(descending=True, stable=True)
    overlaps = box_overlap(boxes.cpu()[order]) > threshold
    alive = torch.ones(len(order), dtype=torch.bool)
    kept = []
    for i in range(len(order)):
        if alive[i]:
            kept.append(i)
            alive &= ~overlaps[i]
    return order[torch.tensor(kept, dtype=torch.int64)]


def box_overlap(boxes: Tensor) -> Tensor:
    """(N, N) IoU of every box with every other."""
    corner = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(
        boxes[:, None, :2], boxes[None, :, :2]
    )
    shared = corner.clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (areas[:, None] + areas - shared).clamp(min=1e-9)
