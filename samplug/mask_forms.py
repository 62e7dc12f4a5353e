"""Masks in every spelling people use (arrays, files, Ultralytics' Masks, polygons, run lengths), read into logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug import room
from samplug.prompt_forms import SLACK, Size, clicks, describe, entries, refuse, regular
from samplug.rle import rle_decode
from samplug.view import MASK_LOGIT

MASKS = (
    "(H, W) or (N, H, W), bool, 0/1, 0/255 or logits; a list of those; Ultralytics' Masks; paths of picture files; "
    '(K, 2) polygons or {"polygons": [...]}; COCO run lengths'
)
LOGIT = 4  # bytes
DARK, BRIGHT = 31, 224  # a file's grey levels up to here are off, from there on are on (JPEG smears 0 and 255)


def read_masks(value: Any, shape: Size | None) -> list[Tensor | None]:
    """Masks in any spelling as one (H, W) float32 tensor of logits per object; None for an object without a mask.

    Raises:
        PromptError: one cannot be read.
        RoomError: there is no memory for so many.
    """
    items = split(value, shape)
    given = [item for item in items if item is not None]
    need = LOGIT * sum(pixels_of(item, shape) for item in given)
    room.check(need, f"{len(given)} masks as prompts", "give fewer at once, or smaller ones")
    return [None if item is None else to_logits(f"masks[{i}]", item, shape) for i, item in enumerate(items)]


def pixels_of(item: Any, shape: Size | None) -> int:
    """The pixels of a mask that is still to be read: an array's own, else the picture's."""
    if isinstance(item, (np.ndarray, Tensor)) and item.ndim == 2 and item.shape[1] != 2:
        return item.shape[0] * item.shape[1]
    return 0 if shape is None else shape[0] * shape[1]


def split(value: Any, shape: Size | None) -> list[Any]:
    """What was given as a list of single masks, each still in its own spelling."""
    if is_ultralytics_masks(value):
        return list(without_padding(value, shape))
    if isinstance(value, (str, Path, dict)):
        return [value]
    if isinstance(value, (np.ndarray, Tensor)):
        return split_array(value)
    items = entries("masks", value, MASKS)
    array = regular(items) if items and is_row_of_numbers(items[0]) else None
    return items if array is None else split_array(array)


def split_array(array: np.ndarray | Tensor) -> list[Any]:
    """(H, W), (N, H, W) or (N, 1, H, W) as N arrays."""
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and 0 not in array.shape:
        return [array]
    if array.ndim == 3 or 0 in array.shape:
        return list(array) if 0 not in array.shape else []
    return refuse("masks", f"got {describe(array)}, which has {array.ndim} dimensions", MASKS)


def is_row_of_numbers(item: Any) -> bool:
    """Whether an item is a row of a mask or a corner of a polygon, rather than a mask of its own."""
    array = regular(item) if isinstance(item, (list, tuple, np.ndarray, Tensor)) else None
    return array is not None and array.ndim == 1


def is_ultralytics_masks(value: Any) -> bool:
    """Whether a value is Ultralytics' `Masks` (known by its attributes; this file does not import the host)."""
    return hasattr(value, "orig_shape") and hasattr(value, "data") and hasattr(value, "xy")


def without_padding(masks: Any, shape: Size | None) -> Any:
    """The (N, H, W) data of Ultralytics' `Masks`, less the border that letterboxing left around the picture."""
    height, width = masks.orig_shape[:2]
    if shape is not None and (height, width) != tuple(shape):
        refuse("masks", f"these Masks are of a {width}x{height} picture", f"Masks of this one, {shape[1]}x{shape[0]}")
    rows, columns = masks.data.shape[-2:]
    gain = min(rows / height, columns / width)
    top = round((rows - round(height * gain)) / 2 - 0.1)
    left = round((columns - round(width * gain)) / 2 - 0.1)
    return masks.data[:, top : top + round(height * gain), left : left + round(width * gain)]


def to_logits(argument: str, value: Any, shape: Size | None) -> Tensor:
    """One mask, however spelled, as (H, W) float32 logits."""
    if isinstance(value, (str, Path)):
        return array_logits(argument, from_file(argument, Path(value)))
    if isinstance(value, dict):
        return array_logits(argument, from_dict(argument, value, shape))
    array = regular(value)
    if array is None or array.ndim != 2 or array.dtype.kind not in "biuf":
        refuse(argument, f"got {describe(value)}", MASKS)
    if is_polygon(array, shape):
        return array_logits(argument, from_polygons(argument, [array], shape))
    return array_logits(argument, array)


# ------------------------------------------------------------------ files, polygons, run lengths


def from_file(argument: str, path: Path) -> np.ndarray:
    """The mask in a picture file (or the array in a .npy file)."""
    if not path.is_file():
        refuse(argument, f"there is no file {str(path)!r}", MASKS)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        refuse(argument, f"{str(path)!r} is not a picture that OpenCV can read", MASKS)
    grey = picture if picture.ndim == 2 else picture[..., :3].max(-1)  # a palette's dark red is on, too
    smeared = (grey <= DARK) | (grey >= BRIGHT)
    return grey >= BRIGHT if grey.dtype == np.uint8 and grey.max() >= BRIGHT and smeared.all() else grey


def from_dict(argument: str, value: dict[str, Any], shape: Size | None) -> np.ndarray:
    """The mask of `{"polygons": [...]}` or of COCO's `{"size": [H, W], "counts": ...}`."""
    if value.keys() == {"size", "counts"}:
        try:
            return rle_decode(value)
        except (TypeError, ValueError) as error:
            refuse(argument, f"the run lengths cannot be read ({error})", MASKS)
    if value.keys() != {"polygons"}:
        refuse(argument, f"got a dict with the keys {sorted(map(str, value))}", MASKS)
    return from_polygons(argument, entries(argument, value["polygons"], MASKS), shape)


def is_polygon(array: np.ndarray, shape: Size | None) -> bool:
    """Whether a 2-D array is a (K, 2) list of corners: no picture that matters is two pixels wide."""
    return array.shape[1] == 2 and len(array) >= 3 and (shape is None or shape[1] != 2)


def from_polygons(argument: str, polygons: list[Any], shape: Size | None) -> np.ndarray:
    """The picture-sized mask that one object's polygons cover; a part inside another one is a hole."""
    if shape is None:
        refuse(argument, "a polygon came where the picture's size is not known", "masks as arrays here")
    height, width = shape
    corners = [
        clicks(argument, polygon if np.ndim(polygon[0]) else np.reshape(polygon, (-1, 2))) for polygon in polygons
    ]
    for polygon in corners:
        if len(polygon) < 3 or (polygon < -SLACK).any() or (polygon > (width + SLACK, height + SLACK)).any():
            came = f"a polygon of {len(polygon)} corners leaves the {width}x{height} picture or has no area"
            refuse(argument, came, "three corners or more, inside the picture")
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [polygon.round().astype(np.int32) for polygon in corners], 1)
    return canvas.astype(bool)


# ------------------------------------------------------------------ values


def array_logits(argument: str, array: np.ndarray) -> Tensor:
    """(H, W) values as logits: what is on or off becomes plus or minus 10, other floats are logits already."""
    if array.ndim != 2 or min(array.shape) < 2:
        refuse(argument, f"got {describe(array)}", MASKS)
    if array.dtype.kind == "f":
        return float_logits(argument, array)
    return torch.where(torch.from_numpy(two_valued(argument, array)), MASK_LOGIT, -MASK_LOGIT)


def float_logits(argument: str, array: np.ndarray) -> Tensor:
    """Floats that leave 0 to 1 are logits; those that do not are on above one half."""
    if not np.isfinite(array).all():
        refuse(argument, "it holds NaN or infinite values", "finite numbers only")
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1:
        return torch.where(torch.from_numpy(array > 0.5), MASK_LOGIT, -MASK_LOGIT)
    if high == 255 and np.isin(array, (0, 255)).all():
        return torch.where(torch.from_numpy(array > 0), MASK_LOGIT, -MASK_LOGIT)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def two_valued(argument: str, array: np.ndarray) -> np.ndarray:
    """Integers that are 0 or one other value, as bool."""
    if array.dtype == bool:
        return array
    on = array != 0
    if array.min() < 0 or (array[on] != array.max()).any():
        came = f"it holds whole numbers from {array.min()} to {array.max()}, which looks like a map of labels"
        refuse(argument, came, "one mask per object (`labels == k` of each), 0/1 or 0/255; logits are floats")
    return on
