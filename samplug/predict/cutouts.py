"""Masks as bits around their objects: what is found stays small until somebody wants whole masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.masks import Taps, boxes_of, taps_at
from samplug.view import Size, View

Box = tuple[int, int, int, int]  # xyxy in whole pixels, the last ones left out


@dataclass(frozen=True, eq=False)
class Cutout:
    """One mask in a frame of (H, W) pixels.

    Attributes:
        frame: (H, W).
        top: row of the frame where the bits begin.
        left: column likewise.
        width: columns of the bits.
        bits: (h, ceil(width / 8)) uint8, eight pixels a byte, lowest bit first.
    """

    frame: Size
    top: int
    left: int
    width: int
    bits: Tensor

    @classmethod
    def of(cls, pixels: Tensor, top: int, left: int, frame: Size) -> Cutout:
        """Keep (h, w) bool pixels, whose first lies at a place of the frame."""
        padded = F.pad(pixels.view(torch.uint8), (0, -pixels.shape[1] % 8))
        bits = (padded.unflatten(1, (padded.shape[1] // 8, 8)) << _places(pixels.device)).sum(2, dtype=torch.uint8)
        return cls(frame, top, left, pixels.shape[1], bits)

    @property
    def pixels(self) -> Tensor:
        """(h, w) bool."""
        bits = (self.bits[..., None] >> _places(self.bits.device)) & 1
        return bits.flatten(1)[:, : self.width].view(torch.bool)

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the frame."""
        return slice(self.top, self.top + len(self.bits)), slice(self.left, self.left + self.width)

    @property
    def edges(self) -> Box:
        """The same as xyxy, the last ones left out."""
        return self.left, self.top, self.left + self.width, self.top + len(self.bits)

    @cached_property
    def area(self) -> int:
        """How many pixels are on."""
        return int(self.pixels.sum())

    def cpu(self) -> Cutout:
        """The same on the CPU."""
        return replace(self, bits=self.bits.cpu())

    def inside(self, window: Box) -> Tensor:
        """(h, w) bool, the mask in a window of the frame."""
        left, top, right, bottom = window
        seen = torch.zeros(max(bottom - top, 0), max(right - left, 0), dtype=torch.bool, device=self.bits.device)
        x1, y1, x2, y2 = common(self.edges, window)
        if x1 < x2 and y1 < y2:
            some = replace(self, bits=self.bits[y1 - self.top : y2 - self.top])
            seen[y1 - top : y2 - top, x1 - left : x2 - left] = some.pixels[:, x1 - self.left : x2 - self.left]
        return seen

    def area_inside(self, window: Box) -> int:
        """How many pixels of a window are on."""
        part = common(self.edges, window)
        return self.area if part == self.edges else int(self.inside(part).sum())

    def overlap(self, other: Cutout, window: Box) -> float:
        """The IoU with another mask of the frame, as far as a window goes; 0 where neither is on."""
        part = common(self.edges, other.edges, window)
        both = int((self.inside(part) & other.inside(part)).sum())
        return both / (self.area_inside(window) + other.area_inside(window) - both) if both else 0.0

    def whole(self) -> Tensor:
        """(H, W) bool."""
        mask = torch.zeros(self.frame, dtype=torch.bool, device=self.bits.device)
        mask[self.box] = self.pixels
        return mask

    def spread(self, view: View) -> Cutout:
        """The mask of the picture that this mask of the network's input, (h, w) its frame, is taken for.

        A pixel is on if any pixel of the input is that it would be mixed from: Ultralytics (8.4.190) resizes masks of
        ones and zeros and keeps what is above zero.
        """
        pixels, sides = self.pixels, zip(self.box, taps_at(self.frame, view, self.bits.device), strict=True)
        begins: list[int] = []
        for axis, (inside, taps) in enumerate(sides):
            reached, begin = _reached(taps, inside)
            around = F.pad(pixels, (0, 0, 1, 1) if axis == 0 else (1, 1))
            low, high = ((cells - inside.start + 1).clamp(0, around.shape[axis] - 1) for cells in reached[:2])
            second = (reached[2] > 0)[:, None] if axis == 0 else reached[2] > 0
            pixels = around.index_select(axis, low) | (around.index_select(axis, high) & second)
            begins.append(begin)
        top, left = begins
        return Cutout.of(pixels, top, left, view.picture)


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def _reached(taps: Taps, inside: slice) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """The taps of the pixels that look at any of these cells, and the number of the first pixel."""
    ends = torch.tensor([[inside.start], [inside.stop - 1]], device=taps.low.device)
    (part,) = taps.reached_by(*ends)
    some = taps[part]
    return (some.low, some.high, some.weight), part.start


def common(*boxes: Box) -> Box:
    """What boxes xyxy share; turned inside out where they share nothing."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return max(left), max(top), min(right), min(bottom)


class Cutouts:
    """N masks, those of one picture in one frame.

    Attributes:
        items: one mask each.
        frame: (H, W), also where there is no mask.
        device: where they are.
    """

    dtype = torch.bool

    def __init__(self, items: Iterable[Cutout], frame: Size, device: torch.device) -> None:
        self.items, self.frame, self.device = tuple(items), frame, device

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Tensor) -> Cutouts:
        """The chosen masks, by numbers (K,)."""
        return Cutouts((self.items[i] for i in index.tolist()), self.frame, self.device)

    @classmethod
    def of(cls, masks: Tensor) -> Cutouts:
        """Keep (N, H, W) bool masks."""
        frame = masks.shape[1], masks.shape[2]
        boxes = boxes_of(masks).int().tolist()
        items = (
            Cutout.of(mask[top : bottom + 1, left : right + 1], top, left, frame)
            for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True)
        )
        return cls(items, frame, masks.device)

    @staticmethod
    def cat(parts: Sequence[Cutouts]) -> Cutouts:
        """Join, in order."""
        return Cutouts((item for part in parts for item in part.items), parts[0].frame, parts[0].device)

    def whole(self) -> Tensor:
        """(N, H, W) bool.

        Raises:
            ValueError: they are masks of pictures of different sizes.
        """
        frames = {item.frame for item in self.items} or {self.frame}
        if len(frames) > 1:
            raise ValueError(f"Masks of pictures of different sizes do not stack: {sorted(frames)}. Take one picture.")
        masks = torch.zeros((len(self), *frames.pop()), dtype=torch.bool, device=self.device)
        for mask, item in zip(masks, self.items, strict=True):
            mask[item.box] = item.pixels
        return masks

    def of_picture(self, view: View) -> Cutouts:
        """The same at the picture's size, if they are in the network's input."""
        if self.frame == view.picture:
            return self
        return Cutouts((item.spread(view) for item in self.items), view.picture, self.device)
