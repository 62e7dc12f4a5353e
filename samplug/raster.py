"""Small maps of logits at a large size without being made large: counts, boxes and masks from where edges run.

Bilinear values lie between those of the cells they are mixed from. So where all cells that pixels look at are above a
threshold, the pixels are, and where none is, they are not: nothing has to be computed but the pixels along an edge.

N maps, (a, b) their cells, R cells that a pixel mixes along a side, (H, W) the pixels, K windows of R x R cells along
edges, P pixels a window at most along a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

# Numbers of cells worked on at once: what stays in a CPU's cache, what keeps another device busy.
AT_ONCE = {"cpu": 2**16}
AT_ONCE_ELSEWHERE = 2**25


@dataclass(frozen=True, eq=False)
class Side:
    """The pixels of one side of a picture, each a mixture of R neighbouring cells of a map.

    Attributes:
        start: (S,) int64, the first cell that a pixel looks at; never falls from one pixel to the next.
        weights: (S, R) float32, how much of each.
        cells: cells of the map along this side.
    """

    start: Tensor
    weights: Tensor
    cells: int

    @classmethod
    def of(cls, pixels: int, span: float, cells: int) -> Side:
        """Stretch the first `span` cells of a map over so many pixels, corners not aligned; see the first `cells`."""
        at = ((np.arange(pixels) + 0.5) * (span / pixels) - 0.5).clip(0, cells - 1)
        start = np.floor(at).astype(np.int64).clip(0, max(cells - 2, 0))
        second = at - start
        weights = np.stack([1 - second, second], 1)[:, : min(cells, 2)]
        return cls(torch.from_numpy(start), torch.from_numpy(weights.astype(np.float32)), cells)

    def after(self, first: Side) -> Side:
        """The same pixels in a map that is brought to this side's cells by `first`: two steps in one."""
        firsts = first.start.numpy()
        read = self.start.numpy()[:, None] + np.arange(self.reach)  # (S, r) cells in between
        start = firsts[read[:, 0]]
        offset = firsts[read] - start[:, None]
        weights = np.zeros((len(start), int(offset.max(initial=0)) + first.reach), np.float32)
        shares = self.weights.numpy()[..., None] * first.weights.numpy()[read]  # (S, r, r')
        for near, far in np.ndindex(shares.shape[1:]):
            weights[np.arange(len(start)), offset[:, near] + far] += shares[:, near, far]
        room = first.cells - weights.shape[1]
        return shifted(start, weights, np.minimum(start, room), first.cells)

    @property
    def reach(self) -> int:
        """R."""
        return self.weights.shape[1]

    def __len__(self) -> int:
        return len(self.start)

    def to(self, device: torch.device) -> Side:
        """The same on a device."""
        return Side(self.start.to(device), self.weights.to(device), self.cells)

    def part(self, cells: slice) -> tuple[Side, int]:
        """The pixels that look at no other cells than these, and the number of the first of them."""
        first = torch.tensor([cells.start, cells.stop - self.reach + 1], device=self.start.device)
        low, high = torch.searchsorted(self.start, first).tolist()
        return Side(self.start[low:high] - cells.start, self.weights[low:high], cells.stop - cells.start), low


def shifted(start: np.ndarray, weights: np.ndarray, to: np.ndarray, cells: int) -> Side:
    """A side whose pixels begin at earlier cells, with zeros for those they did not look at."""
    moved = np.zeros_like(weights)
    for j in range(weights.shape[1]):
        place = start - to + j
        inside = place < weights.shape[1]
        moved[inside.nonzero()[0], place[inside]] = weights[inside, j]
    return Side(torch.from_numpy(to), torch.from_numpy(moved), cells)


@dataclass(frozen=True, eq=False)
class Groups:
    """The pixels of a side by the cell they begin at: those of one group look at the same cells.

    Attributes:
        first: (G,) int64, the first pixel of each.
        count: (G,) int64, how many pixels each has.
        weights: (R - 1, P, G) float32, of all cells but the first; NaN where a group has fewer than P pixels, so that
            nothing is ever above it.
        of_pixel: (S,) int64, the group of each pixel.
    """

    first: Tensor
    count: Tensor
    weights: Tensor
    of_pixel: Tensor

    @classmethod
    def of(cls, side: Side) -> Groups:
        """Group the pixels of a side."""
        groups = side.cells - side.reach + 1
        count = torch.bincount(side.start, minlength=groups)
        first = count.cumsum(0) - count
        weights = side.weights.new_full((side.reach - 1, int(count.max()), groups), torch.nan)
        weights[:, torch.arange(len(side), device=first.device) - first[side.start], side.start] = side.weights[:, 1:].T
        return cls(first, count, weights, side.start)


@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of N masks at the size of the pixels.

    Attributes:
        stability: (N,) float32, the overlap of the masks at both moved thresholds; NaN where both are empty.
        boxes: (N, 4) float32 xyxy, the first and last pixels that are on; zeros for an empty mask.
    """

    stability: Tensor
    boxes: Tensor

    def __getitem__(self, index: Tensor) -> Survey:
        return Survey(self.stability[index], self.boxes[index])

    @staticmethod
    def cat(parts: list[Survey]) -> Survey:
        """Join, in order."""
        return Survey(torch.cat([each.stability for each in parts]), torch.cat([each.boxes for each in parts]))


@dataclass(frozen=True, eq=False)
class Patch:
    """The cells of a map around its mask, and where they begin."""

    logits: Tensor  # (a', b')
    top: int
    left: int


class Raster:
    """A grid of pixels over maps of logits."""

    def __init__(self, rows: Side, columns: Side, device: torch.device | str = "cpu") -> None:
        self.sides = rows.to(torch.device(device)), columns.to(torch.device(device))
        self.rows, self.columns = (Groups.of(side) for side in self.sides)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.sides[0]), len(self.sides[1])

    def survey(self, logits: Tensor, threshold: float, offset: float) -> Survey:
        """Look at masks (N, a, b): their stability and their boxes.

        Args:
            logits: of any float dtype.
            threshold: above it a pixel is on.
            offset: how far it moves up and down to judge stability.
        """
        cells = max(1, logits[:1].numel())
        count = max(1, AT_ONCE.get(logits.device.type, AT_ONCE_ELSEWHERE) // cells)
        parts = [self._survey(few.float(), threshold, offset) for few in logits.split(count)]
        return Survey.cat(parts) if parts else Survey(logits.new_zeros(0).float(), logits.new_zeros(0, 4).float())

    def _survey(self, logits: Tensor, threshold: float, offset: float) -> Survey:
        steps = threshold - offset, threshold, threshold + offset
        lowest, highest = self._windows(levels(logits, steps))
        cut = lowest < highest
        cuts = cut.nonzero().unbind(1)
        values = self._values(logits, *cuts)
        flat = lowest.masked_fill(cut, 0)
        outer, inner = (self._count(flat >= n, values > step, cuts[0]) for n, step in ((1, steps[0]), (3, steps[2])))
        return Survey(
            inner / outer, self._boxes((flat >= 2).view(torch.uint8), (values > threshold).view(torch.uint8), *cuts)
        )

    def _windows(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest of each window's R x R numbers, (N, G, G'); 0 in windows without a pixel."""
        lowest = highest = numbers
        for axis, (side, groups) in enumerate(zip(self.sides, (self.rows, self.columns), strict=True), start=1):
            windows = range(side.reach)
            length = len(groups.count)
            lowest = reduce(torch.minimum, [lowest.narrow(axis, i, length) for i in windows])
            highest = reduce(torch.maximum, [highest.narrow(axis, i, length) for i in windows])
        used = (self.rows.count > 0)[:, None] & (self.columns.count > 0)
        return lowest * used, highest * used

    def _values(self, logits: Tensor, owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The pixels of K windows, (P, P', K); NaN beyond the last."""
        down, across = self.rows.weights.index_select(2, row), self.columns.weights.index_select(2, column)
        stride = logits.shape[2]
        flat, at = logits.reshape(-1), (owner * logits.shape[1] + row) * stride + column
        lines = [
            mixed([flat.index_select(0, at + (i * stride + j)) for j in range(1 + len(across))], across)
            for i in range(1 + len(down))
        ]  # (P', K) each
        return mixed(lines, down[:, :, None])

    def _count(self, full: Tensor, on: Tensor, owner: Tensor) -> Tensor:
        """(N,) how many pixels are on: all of the windows (N, G, G') that are full, some of those along edges."""
        wide = full.float() @ self.columns.count.float()  # whole numbers below 2^24
        inside = (wide.long() * self.rows.count).sum(1)
        along = on.view(torch.uint8).flatten(0, 1).sum(0, dtype=torch.int32)
        return inside.index_add(0, owner, along.long())

    def _boxes(self, full: Tensor, on: Tensor, owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        top, bottom = extent(full.amax(2), on.amax(1), owner, row, self.rows)
        left, right = extent(full.amax(1), on.amax(0), owner, column, self.columns)
        boxes = torch.stack([left, top, right, bottom], 1)
        return torch.where((bottom < 0)[:, None], 0, boxes).float()

    def patch(self, logits: Tensor, threshold: float) -> Patch:
        """Cut out of one map (a, b) the cells that its mask is made of."""
        on = logits > threshold
        bounds = []
        for axis, side in enumerate(self.sides):
            where = on.any(1 - axis).nonzero()
            first, last = (int(where[0]), int(where[-1])) if len(where) else (0, 0)
            bounds.append((max(first - side.reach + 1, 0), min(last + side.reach, side.cells)))
        (top, bottom), (left, right) = bounds
        return Patch(logits[top:bottom, left:right].clone(), top, left)

    def draw(self, patch: Patch, threshold: float) -> tuple[Tensor, int, int]:
        """A mask's pixels: (h, w) bool around it, and the row and the column where that begins."""
        starts, lengths = (patch.top, patch.left), patch.logits.shape
        (rows, top), (columns, left) = (
            side.part(slice(start, start + length))
            for side, start, length in zip(self.sides, starts, lengths, strict=True)
        )
        if not len(rows) or not len(columns):
            return torch.zeros(0, 0, dtype=torch.bool, device=patch.logits.device), top, left
        return Raster(rows, columns, patch.logits.device)._draw(patch.logits.float(), threshold), top, left

    def _draw(self, logits: Tensor, threshold: float) -> Tensor:
        lowest, highest = self._windows(levels(logits[None], (threshold,)))
        mask = lowest[0].index_select(1, self.columns.of_pixel).index_select(0, self.rows.of_pixel).view(torch.bool)
        owner, row, column = (lowest < highest).nonzero(as_tuple=True)
        on = self._values(logits[None], owner, row, column) > threshold
        down, across, which = on.nonzero(as_tuple=True)
        width = mask.shape[1]
        corner = self.rows.first.index_select(0, row) * width + self.columns.first.index_select(0, column)
        mask.view(-1).index_fill_(0, corner.index_select(0, which) + (down * width + across), True)
        return mask


def mixed(cells: list[Tensor], weights: Tensor) -> Tensor:
    """The mixture of R cells by the weights of all but the first, (R - 1, P, …); they add up to one."""
    first = cells[0]
    total = first
    for cell, weight in zip(cells[1:], weights, strict=True):
        total = total + weight * (cell - first)
    return total


def levels(logits: Tensor, steps: tuple[float, ...]) -> Tensor:
    """How many of the rising steps each number is above, uint8."""
    over: Iterator[Tensor] = ((logits > step).view(torch.uint8) for step in steps)
    return reduce(torch.add, over)


def extent(full: Tensor, on: Tensor, owner: Tensor, group: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """The first and the last pixels that are on along a side; beyond the last one and -1 where none is.

    Args:
        full: (N, G) uint8, whether a group is on as a whole.
        on: (P, K) uint8, pixels along edges.
        owner: (K,) whose they are.
        group: (K,) their groups.
        groups: of this side.
    """
    pixels = len(groups.of_pixel)
    first = torch.where(full > 0, groups.first, pixels).amin(1)
    last = torch.where(full > 0, groups.first + groups.count - 1, -1).amax(1)
    places = groups.first[group].int() + torch.arange(len(on), device=on.device, dtype=torch.int32)[:, None]
    first = first.scatter_reduce(0, owner, torch.where(on > 0, places, pixels).amin(0).long(), "amin")
    last = last.scatter_reduce(0, owner, torch.where(on > 0, places, -1).amax(0).long(), "amax")
    return first, last
