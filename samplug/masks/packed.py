"""Masks packed into bits around their objects: small until somebody needs the whole mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.masks.boxes import Box, has_area, intersection, mask_box, mask_boxes
from samplug.masks.resize import bilinear_weights
from samplug.transforms import ImageTransform, Size


@dataclass(frozen=True, eq=False)
class PackedMask:
    """One mask in a frame of (H, W) pixels."""

    size: Size  # (H, W) of the frame
    top: int  # row of the frame where the bits begin
    left: int  # column likewise
    width: int  # columns of the bits
    bits: Tensor  # (h, ceil(width / 8)) uint8, eight pixels a byte, lowest bit first

    @classmethod
    def pack(cls, pixels: Tensor, top: int, left: int, size: Size) -> PackedMask:
        """Pack (h, w) bool pixels that begin at this row and column of the frame."""
        padded = F.pad(pixels.view(torch.uint8), (0, -pixels.shape[1] % 8))
        shifted = padded.unflatten(1, (padded.shape[1] // 8, 8)) << _bit_numbers(pixels.device)
        return cls(size, top, left, pixels.shape[1], shifted.sum(2, dtype=torch.uint8))

    @property
    def pixels(self) -> Tensor:
        """(h, w) bool."""
        bits = (self.bits[..., None] >> _bit_numbers(self.bits.device)) & 1
        return bits.flatten(1)[:, : self.width].view(torch.bool)

    @property
    def slices(self) -> tuple[slice, slice]:
        """The packed rows and columns of the frame."""
        return slice(self.top, self.top + len(self.bits)), slice(self.left, self.left + self.width)

    @property
    def box(self) -> Box:
        """The outer edges of the packed pixels in the frame."""
        return self.left, self.top, self.left + self.width, self.top + len(self.bits)

    @property
    def pixel_box(self) -> Box:
        """The first and last pixels that are on in the frame; zeros where none is."""
        box = mask_box(self.pixels)
        if box is None:
            return 0, 0, 0, 0
        return box[0] + self.left, box[1] + self.top, box[2] + self.left, box[3] + self.top

    @cached_property
    def area(self) -> int:
        """How many pixels are on."""
        return int(self.pixels.sum())

    def cpu(self) -> PackedMask:
        """The same on the CPU."""
        return replace(self, bits=self.bits.cpu())

    def unpack(self) -> Tensor:
        """(H, W) bool."""
        return self.crop((0, 0, self.size[1], self.size[0]))

    def crop(self, window: Box) -> Tensor:
        """(h, w) bool, the mask in a window of the frame."""
        left, top, right, bottom = window
        cropped = torch.zeros(max(bottom - top, 0), max(right - left, 0), dtype=torch.bool, device=self.bits.device)
        x1, y1, x2, y2 = shared = intersection(self.box, window)
        if has_area(shared):
            rows = replace(self, bits=self.bits[y1 - self.top : y2 - self.top])
            cropped[y1 - top : y2 - top, x1 - left : x2 - left] = rows.pixels[:, x1 - self.left : x2 - self.left]
        return cropped

    def area_in(self, window: Box) -> int:
        """How many pixels of a window are on."""
        part = intersection(self.box, window)
        return self.area if part == self.box else int(self.crop(part).sum())

    def iou(self, other: PackedMask, window: Box) -> float:
        """The IoU with another mask of the frame inside a window; 0 where neither is on."""
        part = intersection(self.box, other.box, window)
        shared = int((self.crop(part) & other.crop(part)).sum())
        return shared / (self.area_in(window) + other.area_in(window) - shared) if shared else 0.0

    def to_image(self, transform: ImageTransform) -> PackedMask:
        """This mask of the network's input, at the image's size.

        A pixel is on if any pixel of the input is that it is interpolated from: Ultralytics (8.4.190) resizes masks of
        ones and zeros and keeps what is above zero.
        """
        pixels, begins = self.pixels, []
        axes = zip(self.slices, bilinear_weights(self.size, transform, self.bits.device), strict=True)
        for axis, (cells, weights) in enumerate(axes):
            ends = torch.tensor([[cells.start], [cells.stop - 1]], device=weights.low.device)
            (inside,) = weights.pixels_of(*ends)
            part = weights[inside]
            padded = F.pad(pixels, (0, 0, 1, 1) if axis == 0 else (1, 1))
            low, high = ((at - cells.start + 1).clamp(0, padded.shape[axis] - 1) for at in (part.low, part.high))
            second = (part.weight > 0)[:, None] if axis == 0 else part.weight > 0
            pixels = padded.index_select(axis, low) | (padded.index_select(axis, high) & second)
            begins.append(inside.start)
        top, left = begins
        return PackedMask.pack(pixels, top, left, transform.image_size)


def _bit_numbers(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


class PackedMasks:
    """N masks of one image in one frame.

    Its `size` (H, W) is that of the frame, also where there is no mask; of images of several sizes, that of the first.
    """

    def __init__(self, items: Iterable[PackedMask], size: Size, device: torch.device) -> None:
        self.items, self.size, self.device = tuple(items), size, device

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Tensor) -> PackedMasks:
        """The masks of these indices (K,)."""
        items = [self.items[i] for i in index.tolist()]
        return PackedMasks(items, items[0].size if items else self.size, self.device)

    @classmethod
    def pack(cls, masks: Tensor) -> PackedMasks:
        """Pack (N, H, W) bool masks."""
        size = masks.shape[1], masks.shape[2]
        boxes = mask_boxes(masks).int().tolist()
        items = (
            PackedMask.pack(mask[top : bottom + 1, left : right + 1], top, left, size)
            for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True)
        )
        return cls(items, size, masks.device)

    @staticmethod
    def cat(parts: Sequence[PackedMasks]) -> PackedMasks:
        """Join, in order."""
        return PackedMasks((item for part in parts for item in part.items), parts[0].size, parts[0].device)

    def unpack(self) -> Tensor:
        """(N, H, W) bool; ValueError for masks of images of different sizes."""
        sizes = {item.size for item in self.items} or {self.size}
        if len(sizes) > 1:
            raise ValueError(f"Masks have different sizes: {sorted(sizes)}. Expected one: take one image at a time.")
        masks = torch.zeros((len(self), *sizes.pop()), dtype=torch.bool, device=self.device)
        for mask, item in zip(masks, self.items, strict=True):
            mask[item.slices] = item.pixels
        return masks

    def to_image(self, transform: ImageTransform) -> PackedMasks:
        """The same at the image's size, if they are in the network's input."""
        if self.size == transform.image_size:
            return self
        return PackedMasks((item.to_image(transform) for item in self.items), transform.image_size, self.device)
