"""Where everything is looked for: the network's input as Ultralytics goes about it, or the picture as Meta does.

A ground has a frame, in whose pixels masks are judged, and can be cut into windows, each shown to the network alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.raster import Raster, Side
from samplug.view import Size, View


@dataclass(frozen=True)
class Window:
    """A part of a frame: xyxy in its pixels, and its layer (0 is the whole)."""

    box: tuple[int, int, int, int]
    layer: int = 0

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


class Ground(Protocol):
    """What is segmented."""

    @property
    def frame(self) -> Size:
        """(H, W) of the pixels that masks, boxes and windows are in."""

    def shown(self, window: Window) -> bool:
        """Whether there is anything of the picture in a window."""

    def input(self, window: Window) -> Tensor:
        """The network's input (1, 3, h, w) that shows a window."""

    def clicks(self, grid: np.ndarray, window: Window) -> Tensor:
        """A grid (P, 2) in 0-1 spread over a window, in pixels of the network's input, (P, 2) float32."""

    def raster(self, window: Window, cells: Size) -> Raster:
        """The window's pixels over the network's maps of logits (a, b)."""

    def area(self, pixels: float) -> float:
        """An area given in pixels of the picture, in those of the frame."""


@dataclass(frozen=True, eq=False)
class InInput:
    """As Ultralytics (8.4.190): all in the pixels of the network's input (1, 3, h, w), padding included.

    Windows are cut out of the input and enlarged to its size. No click falls on the padding.
    """

    im: Tensor
    view: View

    @property
    def frame(self) -> Size:
        """(h, w)."""
        return self.im.shape[-2], self.im.shape[-1]

    def shown(self, window: Window) -> bool:
        """Whether any of the window is picture, not padding."""
        return bool((self._share(window) > 0).all())

    def _share(self, window: Window) -> np.ndarray:
        """How much of a window's width and height is picture; less than nothing beyond its end."""
        picture = np.multiply(self.view.picture, self.view.gains)[::-1]  # not rounded: so Ultralytics spreads clicks
        size = window.size[::-1]
        return np.minimum(picture - window.box[:2], size) / size

    def input(self, window: Window) -> Tensor:
        """The window, enlarged."""
        left, top, right, bottom = window.box
        part = self.im[..., top:bottom, left:right]
        return part if window.size == self.frame else F.interpolate(part, self.frame, mode="bilinear")

    def clicks(self, grid: np.ndarray, window: Window) -> Tensor:
        """Spread over what is picture."""
        clicks = grid * self._share(window) * self.frame[::-1]
        return torch.from_numpy(clicks.astype(np.float32)).to(self.im.device)

    def raster(self, window: Window, cells: Size) -> Raster:
        """All cells stretched over the window."""
        rows, columns = (Side.of(pixels, span, span) for pixels, span in zip(window.size, cells, strict=True))
        return Raster(rows, columns, self.im.device)

    def area(self, pixels: float) -> float:
        """By the gains."""
        return pixels * math.prod(self.view.gains)


@dataclass(frozen=True, eq=False)
class InPicture:
    """As Meta: all in the picture's own pixels.

    Windows are cut out of the picture (H, W, 3) BGR and fitted as the whole is, which `im` shows.
    """

    im: Tensor
    view: View
    picture: np.ndarray
    prepare: Callable[[np.ndarray], Tensor]

    @property
    def frame(self) -> Size:
        """(H, W)."""
        return self.view.picture

    def shown(self, window: Window) -> bool:
        """Always: there is no padding."""
        return True

    def input(self, window: Window) -> Tensor:
        """The window, fitted."""
        if window.size == self.frame:
            return self.im
        left, top, right, bottom = window.box
        return self.prepare(self.picture[top:bottom, left:right])

    def _view(self, window: Window) -> View:
        return View(window.size, self.view.network, self.view.resize)

    def clicks(self, grid: np.ndarray, window: Window) -> Tensor:
        """Spread over the whole window."""
        view = self._view(window)
        clicks = grid * (np.array(window.size) * view.gains)[::-1]
        return torch.from_numpy(clicks.astype(np.float32)).to(self.im.device)

    def raster(self, window: Window, cells: Size) -> Raster:
        """In one step, or in Meta's two where there is padding: to the input's size and from there to the window's."""
        view = self._view(window)
        rows, columns = (
            Side.of(pixels, span, span)
            if view.resize == "stretch"
            else Side.of(pixels, inside, inside).after(Side.of(side, span, span))
            for pixels, inside, side, span in zip(window.size, view.content, view.network, cells, strict=True)
        )
        return Raster(rows, columns, self.im.device)

    def area(self, pixels: float) -> float:
        """The same."""
        return pixels


def grid_of(side: int) -> np.ndarray:
    """Return side² points, xy in 0-1, in the middles of a side × side raster, row by row."""
    middles = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def crops(frame: Size, layers: int, ratio: float) -> list[Window]:
    """Cut a frame into the whole and, in layer i, 2^i × 2^i windows; `ratio` of the shorter side is shared in layer 1.

    The same as in Segment Anything (arXiv 2304.02643, appendix B).
    """
    height, width = frame
    windows = [Window((0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(ratio * min(height, width) * (2 / count))
        across, down = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for i in range(count * count):
            left, top = (i // count) * (across - overlap), (i % count) * (down - overlap)
            windows.append(Window((left, top, min(left + across, width), min(top + down, height)), layer))
    return windows
