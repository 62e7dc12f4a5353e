"""Stability, boxes and masks of small maps of logits at a large size, without enlarging the maps.

Interpolated values lie between those of the cells they come from. So where all of these cells are above a threshold,
the pixels are, and where none is, they are not: only pixels along edges are computed.

N maps, (a, b) their cells, R cells that a pixel is interpolated from along a side, (H, W) the pixels, K windows of
R x R cells along edges, P pixels a window at most along a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import mask_boxes
from samplug.masks.resize import sample_positions

CPU_CHUNK_CELLS = 2**16  # computed at once: they stay in the cache
GPU_CHUNK_CELLS = 2**25  # they keep the device busy


@dataclass(frozen=True, eq=False)
class Axis:
    """Interpolation along one side of an image: each pixel is a weighted sum of R neighbouring cells of a map."""

    start: Tensor  # (S,) int64, the first of these cells; it never falls from one pixel to the next
    weights: Tensor  # (S, R) float32
    cells: int  # of the map along this side

    @classmethod
    def bilinear(cls, pixels: int, span: float, cells: int) -> Axis:
        """For a side of so many pixels; `span` and `cells` as in `sample_positions`."""
        return cls.at(sample_positions(pixels, span, cells), cells)

    @classmethod
    def at(cls, at: np.ndarray, cells: int) -> Axis:
        """For pixels at these positions (S,) among the cells of a map, rising, from 0 to the last cell."""
        start = np.floor(at).astype(np.int64).clip(0, max(cells - 2, 0))
        second = at - start
        weights = np.stack([1 - second, second], 1)[:, : min(cells, 2)]
        return cls(torch.from_numpy(start), torch.from_numpy(weights.astype(np.float32)), cells)

    def compose(self, first: Axis) -> Axis:
        """Two interpolations as one: by `first` from a map to this side's cells, and from these to the pixels."""
        firsts = first.start.numpy()
        between = self.start.numpy()[:, None] + np.arange(self.kernel_size)  # (S, r)
        start = firsts[between[:, 0]]
        offset = firsts[between] - start[:, None]
        weights = np.zeros((len(start), int(offset.max(initial=0)) + first.kernel_size), np.float32)
        products = self.weights.numpy()[..., None] * first.weights.numpy()[between]  # (S, r, r')
        for i, j in np.ndindex(products.shape[1:]):
            weights[np.arange(len(start)), offset[:, i] + j] += products[:, i, j]
        last_start = first.cells - weights.shape[1]
        return _start_earlier(start, weights, np.minimum(start, last_start), first.cells)

    @property
    def kernel_size(self) -> int:
        """R."""
        return self.weights.shape[1]

    def __len__(self) -> int:
        return len(self.start)

    def reach(self, first: int, last: int) -> slice:
        """The cells that pixels are interpolated from along with any of the cells first … last."""
        return slice(max(first - self.kernel_size + 1, 0), min(last + self.kernel_size, self.cells))

    def crop(self, cells: slice) -> tuple[Axis, int]:
        """The pixels that are interpolated from these cells alone, and the number of the first of them."""
        first = torch.tensor([cells.start, cells.stop - self.kernel_size + 1])
        low, high = torch.searchsorted(self.start, first).tolist()
        return Axis(self.start[low:high] - cells.start, self.weights[low:high], cells.stop - cells.start), low


def _start_earlier(start: np.ndarray, weights: np.ndarray, to: np.ndarray, cells: int) -> Axis:
    """An axis whose pixels start at earlier cells, with zero weights for those that are added."""
    moved = np.zeros_like(weights)
    for j in range(weights.shape[1]):
        column = start - to + j
        inside = column < weights.shape[1]
        moved[inside.nonzero()[0], column[inside]] = weights[inside, j]
    return Axis(torch.from_numpy(to), torch.from_numpy(moved), cells)


@dataclass(frozen=True, eq=False)
class PixelRuns:
    """The pixels of a side in runs that are interpolated from the same cells, one a start cell."""

    first: Tensor  # (G,) int64, the first pixel of each run
    count: Tensor  # (G,) int64, its length
    weights: Tensor  # (R - 1, P, G) float32, of all cells but the first; NaN (never above) beyond a run's last pixel
    of_pixel: Tensor  # (S,) int64, the run of each pixel

    @classmethod
    def of(cls, axis: Axis, device: torch.device) -> PixelRuns:
        """Group the pixels of an axis; on the CPU, so that a GPU is not waited for, and then on a device."""
        runs = axis.cells - axis.kernel_size + 1
        count = torch.bincount(axis.start, minlength=runs)
        first = count.cumsum(0) - count
        weights = axis.weights.new_full((axis.kernel_size - 1, int(count.max()), runs), torch.nan)
        weights[:, torch.arange(len(axis)) - first[axis.start], axis.start] = axis.weights[:, 1:].T
        return cls(*(each.to(device, non_blocking=True) for each in (first, count, weights, axis.start)))


class MaskStatistics(NamedTuple):
    """Statistics of N masks at the size of the pixels."""

    stability: Tensor  # (N,) float32, IoU of the masks at both moved thresholds; NaN where both are empty
    boxes: Tensor  # (N, 4) float32 xyxy, the first and last pixels that are on; zeros for an empty mask


@dataclass(frozen=True, eq=False)
class LogitsCrop:
    """The cells of a map that its mask is interpolated from, and where they begin."""

    logits: Tensor  # (a', b')
    top: int
    left: int


class Raster:
    """A grid of pixels over maps of logits."""

    def __init__(self, rows: Axis, columns: Axis, device: torch.device | str = "cpu") -> None:
        self.axes = rows, columns
        self.rows, self.columns = (PixelRuns.of(axis, torch.device(device)) for axis in self.axes)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.axes[0]), len(self.axes[1])

    def statistics(self, logits: Tensor, threshold: float, offset: float) -> MaskStatistics:
        """Stability and boxes of the masks of logits (N, a, b); the threshold moves up and down by the offset."""
        cells = CPU_CHUNK_CELLS if logits.device.type == "cpu" else GPU_CHUNK_CELLS
        chunks = logits.split(max(1, cells // max(1, logits[:1].numel())))
        parts = [self._statistics(chunk.float(), threshold, offset) for chunk in chunks]
        return MaskStatistics(*map(torch.cat, zip(*parts, strict=True)))

    def _statistics(self, logits: Tensor, threshold: float, offset: float) -> MaskStatistics:
        steps = threshold - offset, threshold, threshold + offset
        lowest, highest = self._windows(_count_below(logits, steps))
        edge = lowest < highest
        edges = edge.nonzero().unbind(1)
        values = self._values(logits, *edges)
        full = lowest.masked_fill(edge, 0)
        outer, inner = (self._count(full >= n, values > step, edges[0]) for n, step in ((1, steps[0]), (3, steps[2])))
        boxes = self._boxes((full >= 2).view(torch.uint8), (values > threshold).view(torch.uint8), *edges)
        return MaskStatistics(inner / outer, boxes)

    def _windows(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest of each window's R x R numbers, (N, G, G'); 0 in windows without a pixel."""
        lowest = highest = numbers
        for dim, (axis, runs) in enumerate(zip(self.axes, (self.rows, self.columns), strict=True), start=1):
            offsets, length = range(axis.kernel_size), len(runs.count)
            lowest = reduce(torch.minimum, [lowest.narrow(dim, i, length) for i in offsets])
            highest = reduce(torch.maximum, [highest.narrow(dim, i, length) for i in offsets])
        used = (self.rows.count > 0)[:, None] & (self.columns.count > 0)
        return lowest * used, highest * used

    def _values(self, logits: Tensor, owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The pixels of K windows, (P, P', K); NaN beyond the last."""
        down, across = self.rows.weights.index_select(2, row), self.columns.weights.index_select(2, column)
        stride = logits.shape[2]
        flat, at = logits.reshape(-1), (owner * logits.shape[1] + row) * stride + column
        lines = [
            _weighted_sum([flat.index_select(0, at + (i * stride + j)) for j in range(1 + len(across))], across)
            for i in range(1 + len(down))
        ]  # (P', K) each
        return _weighted_sum(lines, down[:, :, None])

    def _count(self, full: Tensor, on: Tensor, owner: Tensor) -> Tensor:
        """(N,) how many pixels are on: all of the windows (N, G, G') that are full, some of those along edges."""
        wide = full.float() @ self.columns.count.float()  # whole numbers below 2^24
        inside = (wide.long() * self.rows.count).sum(1)
        along = on.view(torch.uint8).flatten(0, 1).sum(0, dtype=torch.int32)
        return inside.index_add(0, owner, along.long())

    def _boxes(self, full: Tensor, on: Tensor, owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        top, bottom = _first_and_last(full.amax(2), on.amax(1), owner, row, self.rows)
        left, right = _first_and_last(full.amax(1), on.amax(0), owner, column, self.columns)
        boxes = torch.stack([left, top, right, bottom], 1)
        return torch.where((bottom < 0)[:, None], 0, boxes).float()

    def crop_logits(self, logits: Tensor, threshold: float, chosen: Tensor) -> tuple[LogitsCrop, ...]:
        """Cut out of some (K,) of the maps (N, a, b) the cells that their masks are interpolated from."""
        boxes = mask_boxes(logits > threshold)[chosen].int().tolist()
        crops = []
        for i, (left, top, right, bottom) in zip(chosen.tolist(), boxes, strict=True):
            rows, columns = (
                axis.reach(*ends) for axis, ends in zip(self.axes, ((top, bottom), (left, right)), strict=True)
            )
            crops.append(LogitsCrop(logits[i, rows, columns].clone(), rows.start, columns.start))
        return tuple(crops)

    def draw_mask(self, crop: LogitsCrop, threshold: float) -> tuple[Tensor, int, int]:
        """A mask's pixels: (h, w) bool around it, and the row and the column where that begins."""
        sides = zip(self.axes, (crop.top, crop.left), crop.logits.shape, strict=True)
        (rows, top), (columns, left) = (axis.crop(slice(start, start + length)) for axis, start, length in sides)
        if not len(rows) or not len(columns):
            return torch.zeros(0, 0, dtype=torch.bool, device=crop.logits.device), top, left
        return Raster(rows, columns, crop.logits.device)._draw(crop.logits.float(), threshold), top, left

    def _draw(self, logits: Tensor, threshold: float) -> Tensor:
        lowest, highest = self._windows(_count_below(logits[None], (threshold,)))
        mask = lowest[0].index_select(1, self.columns.of_pixel).index_select(0, self.rows.of_pixel).view(torch.bool)
        owner, row, column = (lowest < highest).nonzero(as_tuple=True)
        on = self._values(logits[None], owner, row, column) > threshold
        down, across, which = on.nonzero(as_tuple=True)
        width = mask.shape[1]
        corner = self.rows.first.index_select(0, row) * width + self.columns.first.index_select(0, column)
        mask.view(-1).index_fill_(0, corner.index_select(0, which) + (down * width + across), True)
        return mask


def _weighted_sum(cells: list[Tensor], weights: Tensor) -> Tensor:
    """The sum of R cells by the weights of all but the first, (R - 1, P, …); the weights add up to one."""
    first = total = cells[0]
    for cell, weight in zip(cells[1:], weights, strict=True):
        total = total + weight * (cell - first)
    return total


def _count_below(logits: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """How many of the thresholds are below each logit, uint8."""
    return reduce(torch.add, ((logits > threshold).view(torch.uint8) for threshold in thresholds))


def _first_and_last(full: Tensor, on: Tensor, owner: Tensor, run: Tensor, runs: PixelRuns) -> tuple[Tensor, Tensor]:
    """The first and the last pixels that are on along a side; beyond the last one and -1 where none is.

    `full` (N, G) uint8: whether a run is on as a whole; `on` (P, K): pixels along edges of the masks `owner` (K,), in
    the runs `run` (K,).
    """
    pixels = len(runs.of_pixel)
    first = torch.where(full > 0, runs.first, pixels).amin(1)
    last = torch.where(full > 0, runs.first + runs.count - 1, -1).amax(1)
    numbers = runs.first[run].int() + torch.arange(len(on), device=on.device, dtype=torch.int32)[:, None]
    first = first.scatter_reduce(0, owner, torch.where(on > 0, numbers, pixels).amin(0).long(), "amin")
    last = last.scatter_reduce(0, owner, torch.where(on > 0, numbers, -1).amax(0).long(), "amax")
    return first, last
