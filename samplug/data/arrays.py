"""Image files, index masks and polygons as arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from samplug.errors import DataError, SourceError
from samplug.host import pil_image
from samplug.sources import image as sources
from samplug.transforms import Size

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VOID = 255  # pixels of an index mask to ignore
SUPERSAMPLING = 4  # polygons are filled at so many times the resolution


def read_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, read as predictors read it."""
    try:
        return cv2.cvtColor(sources.read_image(path), cv2.COLOR_BGR2RGB)
    except SourceError as error:
        raise DataError(f"{path} cannot be read: {str(error).removeprefix(f'{path}: ')}") from error


def read_index_mask(path: str | Path) -> np.ndarray:
    """An index mask (H, W): 0 is background, other values are object numbers; a palette's colours are ignored."""
    image = pil_image(path) if os.path.isfile(path) else None
    if image is None:
        raise DataError(f"{path} cannot be read: it is absent, damaged, or not an image.")
    try:
        with image:
            sources.check_size(*image.size)
            array = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if array.ndim != 2 or array.dtype.kind == "f":
        what = "fractions" if array.ndim == 2 else f"{array.shape[2]} channels"
        raise DataError(
            f"{path} has {what}. Expected a grey or palette PNG of object numbers (0 is background, {VOID} is ignored)."
        )
    return array.astype(np.int64)


def object_numbers(index_masks: Sequence[np.ndarray]) -> list[int]:
    """The objects in index masks of one image or video; 255 is one of them only if there is no other."""
    numbers = sorted(set().union(*(np.unique(index).tolist() for index in index_masks)) - {0})
    return [number for number in numbers if number != VOID] or numbers


def polygon_mask(parts: Sequence[np.ndarray], shape: Size) -> np.ndarray:
    """The pixels (H, W) of which at least half lies in any of some polygons (K, 2), xy; pixel 0 spans 0 to 1."""
    mask = np.zeros(shape, bool)
    for part in parts:
        corners = np.asarray(part, np.float64)
        if not np.isfinite(corners).all():
            raise ValueError("a polygon with NaN or infinite corners")
        corners = corners.clip(0, shape[::-1])
        left, top = np.floor(corners.min(0)).astype(int)
        width, height = np.ceil(corners.max(0)).astype(int) - (left, top)
        if width < 1 or height < 1:
            continue
        fine = np.zeros((SUPERSAMPLING * height, SUPERSAMPLING * width), np.uint8)
        cv2.fillPoly(fine, [np.round((corners - (left, top)) * SUPERSAMPLING - 0.5).astype(np.int32)], 255)
        half = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) > 127
        mask[top : top + height, left : left + width] |= half
    return mask


def check_same_size(path: str | Path, mask: np.ndarray, size: Size) -> None:
    """Refuse a mask (H, W) of another size than its image."""
    if mask.shape != size:
        (height, width), (rows, columns) = mask.shape, size
        raise DataError(f"{path} is {width}x{height}, its image {columns}x{rows}. Expected masks of the image's size.")
