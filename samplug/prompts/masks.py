"""Masks in every spelling people use (arrays, files, Ultralytics' Masks, polygons, run lengths), read into logits."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug import resources
from samplug.errors import PromptError, UnknownSizeError, one_line, reject, report_slip
from samplug.files.atomic import DAMAGE
from samplug.masks.rle import rle_decode, rle_size
from samplug.nn.constants import MASK_PROMPT_LOGIT
from samplug.prompts.coords import LEAST_SIDE, SLACK, as_array, describe, read_list, read_numbers
from samplug.transforms import Size, is_binary, is_dense

EXPECTED_MASKS = (
    "(H, W) or (N, H, W), bool, 0/1, 0/255 or logits; a list of those; Ultralytics' Masks; paths of image files; "
    '(K, 2) polygons or {"polygons": [...]}; COCO run lengths'
)
BYTES_PER_LOGIT = 4
CHANNELS = (1, 3, 4)  # of an image, along its last side: no mask is so narrow
LEAST_MASK = 16  # pixels of a side: fewer are no mask of a larger image
LARGEST_LOGIT = 100  # that a network answers with; coordinates and grey levels are larger
MAX_OFF, MIN_ON = 31, 224  # a file's grey levels up to here are off, from there on are on (JPEG smears 0 and 255)


def read_masks(value: Any, shape: Size | None) -> list[Tensor | None]:
    """Masks in any spelling as one (H, W) float32 tensor of logits per object; None for an object without a mask.

    PromptError where one cannot be read, OutOfMemoryError where there is no memory for so many.
    """
    items = split(value, shape)
    given = [item for item in items if item is not None]
    need = BYTES_PER_LOGIT * sum(pixels_of(item, shape) for item in given)
    resources.require_memory(need, f"{len(given)} masks as prompts", "give fewer at once, or smaller ones")
    return [None if item is None else to_logits(f"masks[{i}]", item, shape) for i, item in enumerate(items)]


def pixels_of(item: Any, shape: Size | None) -> int:
    """The number of pixels of a mask before it is read: an array's or run lengths' own, else the image's."""
    if isinstance(item, Tensor) and not is_dense(item):
        return 0  # it is refused later, with its place
    if isinstance(item, (np.ndarray, Tensor)) and item.ndim == 2 and item.shape[1] != 2:
        return item.shape[0] * item.shape[1]
    if isinstance(item, dict) and "size" in item:
        with suppress(TypeError, ValueError):  # it is refused later, with its place
            height, width = rle_size(item)
            return height * width
    return 0 if shape is None else shape[0] * shape[1]


def split(value: Any, shape: Size | None) -> list[Any]:
    """The masks of all objects, each as the user wrote it."""
    if hasattr(value, "orig_shape") and hasattr(value, "data") and hasattr(value, "xy"):  # no host here
        return list(without_padding(value, shape))
    if isinstance(value, (str, Path, dict)) or is_pil(value):
        return [value]
    if isinstance(value, Tensor) and not is_dense(value):
        reject("masks", f"got {describe(value)}", EXPECTED_MASKS)
    if isinstance(value, (np.ndarray, Tensor)):
        return split_array(value, shape)
    items = read_list("masks", value, EXPECTED_MASKS)
    array = as_array(items) if items and is_row_of_numbers(items[0]) else None
    return items if array is None else split_array(array, shape, of_rows=True)


def split_array(array: np.ndarray | Tensor, shape: Size | None, of_rows: bool = False) -> list[Any]:
    """(H, W), (N, H, W), (N, 1, H, W) or (N, H, W, C) as N arrays, (H, W, C) as one, flat polygons (N, 2K) as N.

    `of_rows`: it came as a list of rows, as polygons do and masks hardly ever.
    """
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 4 and array.shape[3] in CHANNELS:
        return list(array)
    sides = tuple(array.shape)
    if array.ndim == 2 and 0 not in sides:
        return list(array) if are_flat_polygons(array, shape, of_rows) else [array]
    if array.ndim == 3 and 0 not in sides and sides[1:] != shape:
        if sides[2] in CHANNELS:
            return [array]
        if sides[:2] == shape:
            reject("masks", f"got {describe(array)}, masks along the last side", "(N, H, W): array.transpose(2, 0, 1)")
    if array.ndim == 3 or 0 in sides:
        return list(array) if 0 not in sides else []
    return reject("masks", f"got {describe(array)}, which has {array.ndim} dimensions", EXPECTED_MASKS)


def are_flat_polygons(array: Any, shape: Size | None, of_rows: bool) -> bool:
    """Whether the rows of a 2-D array are polygons [x, y, x, y, …] rather than those of a mask."""
    rows, width = array.shape
    if shape is None or min(shape) < LEAST_MASK or (rows, width) == shape or width < 6 or width % 2:
        return False
    if min(rows, width) >= LEAST_MASK and (not of_rows or same_aspect((rows, width), shape)):
        return False
    values = as_array(array)
    if values is None or values.dtype.kind not in "iuf" or values.min() < -SLACK:
        return False
    return rows == 1 or not any(np.isin(values, (0, on)).all() for on in (1, 255))


def is_pil(value: Any) -> bool:
    """Whether a value is a PIL image."""
    return hasattr(value, "convert") and hasattr(value, "getbands")


def is_row_of_numbers(item: Any) -> bool:
    """Whether an item is a row of a mask or a corner of a polygon, rather than a mask of its own."""
    array = as_array(item) if isinstance(item, (list, tuple, np.ndarray, Tensor)) else None
    return array is not None and array.ndim == 1


def without_padding(masks: Any, shape: Size | None) -> Any:
    """The (N, H, W) data of Ultralytics' `Masks`, less the border that letterboxing left around the image."""
    height, width = masks.orig_shape[:2]
    if shape is not None and (height, width) != tuple(shape):
        reject("masks", f"these Masks are of a {width}x{height} image", f"Masks of this one, {shape[1]}x{shape[0]}")
    rows, columns = masks.data.shape[-2:]
    gain = min(rows / height, columns / width)
    top = round((rows - round(height * gain)) / 2 - 0.1)
    left = round((columns - round(width * gain)) / 2 - 0.1)
    return masks.data[:, top : top + round(height * gain), left : left + round(width * gain)]


def to_logits(argument: str, value: Any, shape: Size | None) -> Tensor:
    """One mask, however spelled, as (H, W) float32 logits: 0/1 masks become -10 and 10, other floats are logits."""
    if isinstance(value, (str, Path)):
        array = from_file(argument, Path(value), shape)
    elif isinstance(value, dict):
        array = from_dict(argument, value, shape)
    elif is_pil(value):
        array = from_pil(argument, value)
    else:
        array = from_array(argument, value, shape)
    if array.ndim != 2 or min(array.shape) < 2:
        reject(argument, f"got {describe(array)}", EXPECTED_MASKS)
    logits = float_logits(argument, array) if array.dtype.kind == "f" else binary_logits(is_on(argument, array))
    if shape is not None and is_binary(logits):
        check_aspect(argument, (array.shape[0], array.shape[1]), shape)
    return logits


def from_array(argument: str, value: Any, shape: Size | None) -> np.ndarray:
    """The mask in an array (H, W), (1, H, W) or (H, W, C), or of a polygon (K, 2) or flat."""
    array = as_array(value)
    if array is None or array.dtype.kind not in "biuf":
        reject(argument, f"got {describe(value)}", EXPECTED_MASKS)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] in CHANNELS:
        return one_channel(argument, array)
    if array.ndim == 1 or array.ndim == 2 and array.shape[1] == 2 and (shape is None or shape[1] != 2):
        return from_polygons(argument, [array], shape)
    if array.ndim != 2:
        reject(argument, f"got {describe(value)}", EXPECTED_MASKS)
    return array


def check_aspect(argument: str, size: Size, shape: Size) -> None:
    """Report a mask that is not its image's shape at any resolution."""
    (height, width), (rows, columns) = size, shape
    if min(size) < 4 <= LEAST_MASK <= min(shape):
        reject(argument, f"a mask of {width}x{height} pixels came for an image of {columns}x{rows}", EXPECTED_MASKS)
    if not same_aspect(size, shape):
        hint = " Is it transposed?" if (width, height) == shape else ""
        came = f"{argument} is {width}x{height}, the image {columns}x{rows}: it is stretched to fit"
        report_slip(f"{came}. Expected a mask of the image's size, or smaller by the same factor.{hint}")


def same_aspect(size: Size, shape: Size) -> bool:
    """Whether two sizes have the same sides but for a common factor and rounding."""
    down, across = (a / b for a, b in zip(size, shape, strict=True))
    return abs(down - across) <= 1 / shape[0] + 1 / shape[1]


def from_file(argument: str, path: Path, shape: Size | None) -> np.ndarray:
    """The mask in an image file (or the array in a .npy file)."""
    from samplug.sources.image import check_header  # here: it imports Ultralytics

    if not os.path.isfile(path):
        reject(argument, f"there is no file {str(path)[:200]!r}", EXPECTED_MASKS)
    try:
        if path.suffix == ".npy":  # mapped: a header that claims more than the file holds is refused
            return from_array(argument, np.array(np.lib.format.open_memmap(path, "r")), shape)
        check_header(path)
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except PromptError:
        raise
    except (*DAMAGE, TypeError, cv2.error) as error:
        reject(argument, f"{str(path)!r} cannot be read ({one_line(error)[:200]})", EXPECTED_MASKS)
    if image is None:
        reject(argument, f"{str(path)!r} is not an image that OpenCV can read", EXPECTED_MASKS)
    return one_channel(argument, np.atleast_3d(image), from_file=True)


def from_pil(argument: str, image: Any) -> np.ndarray:
    """The mask in a PIL image: of transparent ones their alpha."""
    from samplug.sources.image import check_pil

    try:
        check_pil(image)
        if image.mode not in ("1", "L", "F") and not image.mode.startswith("I"):
            transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
            image = image.convert("RGBA" if transparent else "RGB")
        return one_channel(argument, np.atleast_3d(np.asarray(image)), from_file=True)
    except (OSError, SyntaxError) as error:
        return reject(argument, f"the PIL image cannot be read ({one_line(error)})", EXPECTED_MASKS)


def one_channel(argument: str, image: np.ndarray, from_file: bool = False) -> np.ndarray:
    """The mask (H, W) in an image (H, W, C): alpha that is not the same everywhere, else its one colour.

    In files, greys that JPEG smeared are black or white again.
    """
    channels = image.shape[2]
    alpha = image[..., -1]
    if channels in (2, 4) and (alpha != alpha[0, 0]).any():
        return alpha > (alpha.max() if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max) / 2
    colours = image[..., :3] if channels > 2 else image[..., :1]
    grey = colours.max(-1)
    many = grey.dtype == np.uint8 and grey.max() >= MIN_ON and len(np.unique(grey)) > 3
    if many and ((grey <= MAX_OFF) | (grey >= MIN_ON)).all():
        return grey >= MIN_ON
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    on = colours.reshape(-1, colours.shape[2])[grey.ravel() > 0]
    if not from_file or (on != on[0]).any():
        reject(argument, "it is an image in colours", "a mask in black and white, one per object, or an alpha channel")
    return grey > 0


def from_dict(argument: str, value: dict[str, Any], shape: Size | None) -> np.ndarray:
    """The mask of `{"polygons": [...]}` or of COCO's `{"size": [H, W], "counts": ...}`."""
    if value.keys() == {"size", "counts"}:
        try:
            size = rle_size(value)
            if shape is None or same_aspect(size, shape):
                return rle_decode(value)
        except (TypeError, ValueError) as error:
            reject(argument, f"the run lengths cannot be read ({error})", EXPECTED_MASKS)
        came = f"the run lengths are of a mask of {size[1]}x{size[0]}, the image is {shape[1]}x{shape[0]}"
        reject(argument, came, "the image's size, or smaller by the same factor (`size` is [height, width])")
    if value.keys() != {"polygons"}:
        reject(argument, f"got a dict with the keys {sorted(map(str, value))}", EXPECTED_MASKS)
    return from_polygons(argument, read_list(argument, value["polygons"], EXPECTED_MASKS), shape)


def from_polygons(argument: str, polygons: list[Any], shape: Size | None) -> np.ndarray:
    """The image-sized mask that one object's polygons cover; a part inside another one is a hole."""
    if not polygons:
        reject(argument, "got no polygon", EXPECTED_MASKS)
    corners = [read_polygon(argument, polygon) for polygon in polygons]
    if shape is None:
        raise UnknownSizeError(f"{argument}: a polygon came where the image's size is not known. Expected arrays here.")
    for polygon in corners:
        check_corners(argument, polygon, shape)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [polygon.round().astype(np.int32) for polygon in corners], 1)
    return canvas.astype(bool)


def read_polygon(argument: str, polygon: Any) -> np.ndarray:
    """The corners (K, 2) of a polygon, (K, 2) or flat, that has an area."""
    corners = read_numbers(argument, polygon, EXPECTED_MASKS)
    if corners.ndim == 1 and corners.size % 2 == 0:
        corners = corners.reshape(-1, 2)
    if corners.ndim != 2 or corners.shape[1] != 2:
        reject(argument, f"got {describe(polygon)} as a polygon", "[x, y, x, y, …] or (K, 2)")
    if len(corners) < 3 or thickness(corners) < LEAST_SIDE:
        reject(argument, f"a polygon of {len(corners)} corners has no area", "three corners or more, not in a line")
    return corners


def check_corners(argument: str, corners: np.ndarray, shape: Size) -> None:
    """Refuse corners (K, 2) that leave an (H, W) image, or all lie in its first pixel."""
    height, width = shape
    if (corners < -SLACK).any() or (corners > (width + SLACK, height + SLACK)).any():
        came = f"a polygon of {len(corners)} corners leaves the {width}x{height} image"
        reject(argument, came, f"0 <= x <= {width} and 0 <= y <= {height}")
    if min(shape) > 2 and corners.min() >= 0 and corners.max() <= 1:
        came = "all corners of a polygon lie in 0-1, which is the image's first pixel"
        reject(argument, came, f"pixels: multiply normalised ones by the width {width} and the height {height}")


def thickness(corners: np.ndarray) -> float:
    """How far corners (K, 2) spread beside the line through their middle that fits them best."""
    centred = corners - corners.mean(0)
    return float(np.linalg.eigvalsh(centred.T @ centred)[0].clip(0) ** 0.5)


def binary_logits(on: np.ndarray) -> Tensor:
    """The logits of a mask of bools."""
    return torch.from_numpy(np.where(on, np.float32(MASK_PROMPT_LOGIT), np.float32(-MASK_PROMPT_LOGIT)))


def float_logits(argument: str, array: np.ndarray) -> Tensor:
    """Floats that leave 0 to 1 are logits; those that do not are on above one half."""
    if not np.isfinite(array).all():
        reject(argument, "it holds NaN or infinite values", "finite numbers only")
    low, high = array.min(), array.max()
    if low >= 0 and (high <= 1 or np.isin(array, (0, high)).all()):
        return binary_logits(array > 0.5)
    if low >= 0 and high > LARGEST_LOGIT:
        reject(argument, f"it holds floats from {low:g} to {high:g}", "0/1, 0/255, or logits (above 0 on the object)")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def is_on(argument: str, array: np.ndarray) -> np.ndarray:
    """Whether each pixel is on, from bools or integers that are 0 or one other value."""
    if array.dtype == bool:
        return array
    on = array != 0
    if array.min() < 0 or (array[on] != array.max()).any():
        came = f"it holds whole numbers from {array.min()} to {array.max()}, which looks like a map of labels"
        reject(argument, came, "one mask per object (`labels == k` of each), 0/1 or 0/255; logits are floats")
    return on
