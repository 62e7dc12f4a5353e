"""What everything mode works on, cut into crops: the network's input as in Ultralytics, or the image as in Meta's SAM.

Both have a size (H, W), in whose pixels masks are given, and can show the network a window of themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.masks.boxes import Box
from samplug.masks.raster import Axis, Raster
from samplug.nn.constants import MASK_STRIDE
from samplug.transforms import ImageTransform, Size


@dataclass(frozen=True)
class Window:
    """A crop or tile: its outer edges, and its layer of crops (0 is the whole)."""

    box: Box
    layer: int = 0

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


@dataclass(frozen=True, eq=False)
class InputSpace:
    """Everything in pixels of the network's input (1, 3, h, w), padding included, as in Ultralytics (8.4.190).

    Windows are cut out of the input and enlarged to its size. No point lies on the padding. Masks are judged there;
    with `smooth` those that stay are drawn at the image's size.
    """

    im: Tensor
    transform: ImageTransform
    smooth: bool = False

    @property
    def size(self) -> Size:
        """(h, w)."""
        return self.transform.input_size

    def has_image(self, window: Window) -> bool:
        """Whether any of the window is image, not padding."""
        return bool((self._image_share(window) > 0).all())

    def _image_share(self, window: Window) -> np.ndarray:
        """How much of a window's width and height is image; negative where it lies in the padding."""
        # Not rounded to whole pixels, as in Ultralytics.
        image = np.multiply(self.transform.image_size, self.transform.gains)[::-1]
        size = window.size[::-1]
        return np.minimum(image - window.box[:2], size) / size

    def network_input(self, window: Window) -> Tensor:
        """(1, 3, h, w): the window, enlarged."""
        left, top, right, bottom = window.box
        part = self.im[..., top:bottom, left:right]
        return part if window.size == self.size else F.interpolate(part, self.size, mode="bilinear")

    def points(self, grid: np.ndarray, window: Window) -> Tensor:
        """A grid (P, 2) in 0-1 spread over the window's part of the image: (P, 2) float32 xy of the network's input."""
        points = grid * self._image_share(window) * self.size[::-1]
        return torch.from_numpy(points.astype(np.float32)).to(self.im.device)

    @property
    def _cells(self) -> Size:
        """The size of the network's logits."""
        return self.size[0] // MASK_STRIDE, self.size[1] // MASK_STRIDE

    def raster(self, window: Window) -> Raster:
        """The window's pixels over the network's logits."""
        sides = zip(window.size, self._cells, strict=True)
        rows, columns = (Axis.bilinear(pixels, span, span) for pixels, span in sides)
        return Raster(rows, columns, self.im.device)

    @property
    def drawn_size(self) -> Size:
        """(H, W) of the masks that stay."""
        return self.transform.image_size if self.smooth else self.size

    def drawing(self, window: Window) -> tuple[Raster, int, int]:
        """The pixels that a window's masks are drawn in, over its logits, and the row and column where they begin."""
        left, top, right, bottom = window.box
        if not self.smooth:
            return self.raster(window), top, left
        sizes = self.transform.image_size, self.transform.content, (top, left), window.size, self._cells
        (rows, first_row), (columns, first_column) = map(_image_pixels, *sizes)
        return Raster(rows, columns, self.im.device), first_row, first_column

    def area(self, image_area: float) -> float:
        """An area in pixels of the image, in those of the masks that stay."""
        return image_area if self.smooth else image_area * prod(self.transform.gains)


@dataclass(frozen=True, eq=False)
class ImageSpace:
    """Everything in pixels of the image (H, W, 3) BGR, as in Meta's SAM.

    Windows are cut out of the image and fitted to the network's input by `preprocess`; `im` is the whole image fitted.
    """

    im: Tensor
    transform: ImageTransform
    image: np.ndarray
    preprocess: Callable[[np.ndarray], Tensor]

    @property
    def size(self) -> Size:
        """(H, W)."""
        return self.transform.image_size

    def has_image(self, window: Window) -> bool:
        """Always: there is no padding."""
        return True

    def network_input(self, window: Window) -> Tensor:
        """(1, 3, h, w): the window, fitted."""
        if window.size == self.size:
            return self.im
        left, top, right, bottom = window.box
        return self.preprocess(self.image[top:bottom, left:right])

    @property
    def drawn_size(self) -> Size:
        """(H, W)."""
        return self.size

    def drawing(self, window: Window) -> tuple[Raster, int, int]:
        """The pixels that a window's masks are drawn in, over its logits, and the row and column where they begin."""
        return self.raster(window), window.box[1], window.box[0]

    def _transform(self, window: Window) -> ImageTransform:
        return ImageTransform(window.size, self.transform.input_size, self.transform.resize)

    def points(self, grid: np.ndarray, window: Window) -> Tensor:
        """A grid (P, 2) in 0-1 spread over the window: (P, 2) float32 xy of the network's input."""
        points = grid * (np.array(window.size) * self._transform(window).gains)[::-1]
        return torch.from_numpy(points.astype(np.float32)).to(self.im.device)

    def raster(self, window: Window) -> Raster:
        """The window's pixels over the network's logits: in one step, or by way of the input where that has padding."""
        transform, axes = self._transform(window), []
        for pixels, content, side in zip(window.size, transform.content, transform.input_size, strict=True):
            cells = side // MASK_STRIDE
            if transform.resize == "stretch":
                axes.append(Axis.bilinear(pixels, cells, cells))
            else:
                axes.append(Axis.bilinear(pixels, content, content).compose(Axis.bilinear(side, cells, cells)))
        rows, columns = axes
        return Raster(rows, columns, self.im.device)

    def area(self, image_area: float) -> float:
        """The area itself."""
        return image_area


def _image_pixels(pixels: int, content: int, first: int, length: int, cells: int) -> tuple[Axis, int]:
    """The interpolation of the pixels of a side of the image that a window of the input shows, and the first of them.

    The side has so many pixels and covers `content` pixels of the input. The window begins at `first` and has `length`
    pixels of the input, and `cells` of the logits.
    """
    at_input = (np.arange(pixels) + 0.5) * (content / pixels) - first
    inside = ((at_input >= 0) & (at_input < length)).nonzero()[0]
    end = (content - first) * cells / length  # cells beyond it are padding, unless the image ends inside of one
    last = round(end) if abs(end - round(end)) < 1e-3 else cells
    at = (at_input[inside] * (cells / length) - 0.5).clip(0, min(max(last, 1), cells) - 1)
    return Axis.at(at, cells), int(inside[0])


CropSpace = InputSpace | ImageSpace


def point_grid(side: int) -> np.ndarray:
    """(side², 2) points xy in 0-1, in the middles of a side × side raster, row by row."""
    middles = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def crop_windows(size: Size, layers: int, ratio: float) -> list[Window]:
    """The whole, and in layer i 2^i × 2^i crops that share `ratio` of the shorter side in layer 1.

    As in Segment Anything (arXiv 2304.02643, appendix B).
    """
    height, width = size
    windows = [Window((0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(ratio * min(height, width) * (2 / count))
        across, down = (ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for i in range(count * count):
            left, top = (i // count) * (across - overlap), (i % count) * (down - overlap)
            windows.append(Window((left, top, min(left + across, width), min(top + down, height)), layer))
    return windows
