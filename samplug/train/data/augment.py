"""How an image and its masks lie in the network's input while training: as predictors fit them, or changed at random.

(H, W) the image's size, (h, w) the input's, (h', w') that of the image inside the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from samplug.nn.constants import LETTERBOX_VALUE, MASK_STRIDE
from samplug.transforms import ImageTransform, Size, fit_image


@dataclass(frozen=True)
class Augmentation:
    """Changes of an image; those of `Augmentation()` are none."""

    fliplr: bool = False  # mirror it
    flipud: bool = False  # turn it upside down
    zoom: float = 1.0  # factor of its size inside the input
    shift: tuple[float, float] = (0.0, 0.0)  # of its centre, (down, right), in shares of its size inside the input
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of hue, saturation and brightness

    @staticmethod
    def draw(settings: Any, rng: np.random.Generator) -> Augmentation:
        """Draw one as `TrainSettings` says; a larger image is cut by the input, a smaller one lies inside it."""
        flips, zoom = rng.random(2), 1 + settings.scale * rng.uniform(-1, 1)
        shift = (abs(zoom - 1) / 2 + settings.translate) * rng.uniform(-1, 1, 2)
        gains = 1 + rng.uniform(-1, 1, 3) * (settings.hsv_h, settings.hsv_s, settings.hsv_v)
        lies_as_fitted = not (settings.scale or settings.translate)
        return Augmentation(
            fliplr=bool(flips[0] < settings.fliplr),
            flipud=bool(flips[1] < settings.flipud),
            zoom=1.0 if lies_as_fitted else float(zoom),
            shift=(0.0, 0.0) if lies_as_fitted else (float(shift[0]), float(shift[1])),
            gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        )

    def without_geometry(self) -> Augmentation:
        """The same flips and colours, the image as large as it is fitted: no object leaves it."""
        return Augmentation(self.fliplr, self.flipud, gains=self.gains)

    def fit_image(self, image: np.ndarray, input_size: Size) -> np.ndarray:
        """An image (H, W, 3) RGB as input (h, w, 3); without changes, byte by byte what a predictor feeds."""
        size = (image.shape[0], image.shape[1])
        rows, columns = ImageTransform(size, input_size).content
        if self.is_fitted:
            fitted = np.array(fit_image(np.ascontiguousarray(self._flipped(image)), input_size))
        else:
            fitted = np.full((*input_size, 3), LETTERBOX_VALUE, np.uint8)
            matrix, grey = self._matrix(size, (rows, columns)), (LETTERBOX_VALUE,) * 3
            fitted[:rows, :columns] = cv2.warpAffine(self._flipped(image), matrix, (columns, rows), borderValue=grey)
        if self.gains != (1.0, 1.0, 1.0):
            fitted[:rows, :columns] = self._recoloured(fitted[:rows, :columns])
        return fitted

    def fit_mask(self, mask: np.ndarray, input_size: Size) -> np.ndarray:
        """A mask (H, W) of the image as (h, w): the pixels of which it covers at least half; none of the padding."""
        rows, columns = ImageTransform((mask.shape[0], mask.shape[1]), input_size).content
        shares: np.ndarray = self._flipped(mask).astype(np.uint8) * 255
        smaller = rows * columns < mask.size
        shares = cv2.resize(shares, (columns, rows), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        if not self.is_fitted:
            shares = cv2.warpAffine(shares, self._matrix((rows, columns), (rows, columns)), (columns, rows))
        fitted = np.zeros(input_size, bool)
        fitted[:rows, :columns] = shares > 127
        return fitted

    @property
    def is_fitted(self) -> bool:
        """Whether the image is as large, and lies, as predictors fit it."""
        return self.zoom == 1 and self.shift == (0, 0)

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[:: -1 if self.flipud else 1, :: -1 if self.fliplr else 1])

    def _matrix(self, size: Size, content: Size) -> np.ndarray:
        """From pixels of an array of a size to those of the image inside the input, (2, 3); centres are at integers."""
        matrix = np.zeros((2, 3))
        for row, axis in enumerate((1, 0)):  # x, then y
            scale = self.zoom * content[axis] / size[axis]
            offset = content[axis] * ((1 - self.zoom) / 2 + self.shift[axis])
            matrix[row, row], matrix[row, 2] = scale, offset + (scale - 1) / 2
        return matrix

    def _recoloured(self, image: np.ndarray) -> np.ndarray:
        levels = np.arange(256)[:, None] * self.gains
        levels[:, 0] %= 180  # the hue of OpenCV, in half degrees
        table = levels.clip(0, 255).astype(np.uint8)[None]
        return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def vanishes(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) of the input covers no pixel of the decoder's masks, a quarter of it, by more than half."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return True
    top, left = (int(each[0]) // MASK_STRIDE * MASK_STRIDE for each in (rows, columns))
    bottom, right = (-(-int(each[-1] + 1) // MASK_STRIDE) * MASK_STRIDE for each in (rows, columns))
    blocks = mask[top:bottom, left:right].reshape((bottom - top) // MASK_STRIDE, MASK_STRIDE, -1, MASK_STRIDE)
    return bool(blocks.mean((1, 3)).max() <= 0.5)
