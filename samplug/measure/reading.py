"""Picture files, index masks and polygons as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from samplug.view import Size

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VOID = 255  # in an index mask: nobody knows
FINE = 4  # polygons are filled on a raster so many times as fine


class DataError(ValueError):
    """The data set cannot be read; the message says what came, what is accepted and what to do."""


def read_picture(path: str | Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB."""
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if picture is None:
        raise DataError(f"{path} is not a picture that OpenCV can read.")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def read_index_mask(path: str | Path) -> np.ndarray:
    """An index mask (H, W): 0 off all objects, else the object's number; colours of a palette do not matter."""
    try:
        with Image.open(path) as picture:
            array = np.array(picture)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if array.ndim != 2:
        raise DataError(
            f"{path} is a picture of {array.shape[2]} colours: save masks as grey or palette PNG, in which a pixel "
            "is the number of its object (0 for none, 255 where nobody knows)."
        )
    return array.astype(np.int64)


def numbers_of(indices: Sequence[np.ndarray]) -> list[int]:
    """The objects in index masks of one picture or video; 255 is one of them only if there is no other."""
    numbers = sorted(set().union(*(np.unique(index).tolist() for index in indices)) - {0})
    return [number for number in numbers if number != VOID] or numbers


def masks_of(index: np.ndarray, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The masks (N, H, W) of some objects in an index mask, and where it is void, if that is anywhere."""
    masks = np.stack([index == number for number in numbers]) if numbers else np.zeros((0, *index.shape), bool)
    void = index == VOID
    return masks, void if VOID not in numbers and void.any() else None


def polygon_mask(parts: Sequence[np.ndarray], shape: Size) -> np.ndarray:
    """The pixels (H, W) of which at least half lies in any of some polygons (K, 2), xy; pixel 0 spans 0 to 1."""
    mask = np.zeros(shape, bool)
    for part in parts:
        corners = np.asarray(part, np.float64).clip(0, shape[::-1])
        left, top = np.floor(corners.min(0)).astype(int)
        width, height = np.ceil(corners.max(0)).astype(int) - (left, top)
        if width < 1 or height < 1:
            continue
        fine = np.zeros((FINE * height, FINE * width), np.uint8)
        cv2.fillPoly(fine, [np.round((corners - (left, top)) * FINE - 0.5).astype(np.int32)], 255)
        half = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) > 127
        mask[top : top + height, left : left + width] |= half
    return mask


def same_size(path: str | Path, masks: np.ndarray, image: np.ndarray) -> None:
    """Refuse masks (…, H, W) of another size than their picture (H, W, 3)."""
    if masks.shape[-2:] != image.shape[:2]:
        (height, width), (rows, columns) = masks.shape[-2:], image.shape[:2]
        raise DataError(f"{path} is {width}x{height}, its picture {columns}x{rows}: masks must be of their size.")
