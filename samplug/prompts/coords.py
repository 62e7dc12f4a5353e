"""Points, labels, boxes, classes and ids in every spelling people use, read into one array per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from samplug.errors import reject, report_slip, shown
from samplug.transforms import Size, is_dense, numpy_of

LEAST_SIDE = 1e-3  # of a box, in pixels: less is lost in float32
SLACK = 1.0  # pixels by which a box may reach past the image: detectors round
LARGEST_INTEGER = 2**53 - 1  # results hold ids and classes as floats: float64 is exact up to here

EXPECTED_POINTS = "[x, y], or (N, 2) for N objects of one click, or (N, P, 2) or one list per object for several clicks"
EXPECTED_LABELS = (
    "1 on the object, 0 off it, one per point, nested like the points; leave them out to mean 1 everywhere"
)
EXPECTED_BOXES = "[x1, y1, x2, y2] or (N, 4) in pixels of the image, or Ultralytics' Boxes"
ONE_PER_IMAGE = "one entry per image is read when a list of images is given"


def describe(value: Any) -> str:
    """A value in words, short enough for one line."""
    if isinstance(value, Tensor) and not is_dense(value):
        return f"a tensor that is nested, sparse or without values ({value.dtype})"
    if isinstance(value, (np.ndarray, Tensor)):
        masked = ", some of it masked" if np.ma.is_masked(value) else ""
        return f"a {value.dtype} array of shape {tuple(value.shape)}{masked}"
    text = shown(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"


def to_numpy(value: Any) -> Any:
    """Tensors of any device and dtype as arrays, also inside lists and tuples."""
    if isinstance(value, Tensor):
        return numpy_of(value)
    if np.ma.is_masked(value):
        raise TypeError("masked values stand for nothing")
    if isinstance(value, (list, tuple)):
        return [item if isinstance(item, (int, float)) else to_numpy(item) for item in value]
    return value


def as_array(value: Any) -> np.ndarray | None:
    """The value as one array, or None where it is ragged or has gaps (None), or a part of it is no array."""
    if value is None:
        return None
    try:
        array = np.asarray(to_numpy(value))
    except (
        ValueError,
        TypeError,
        RecursionError,
    ):  # lists of unequal lengths, without end; sparse tensors, masked arrays
        return None
    return None if array.dtype == object else array


def read_numbers(
    argument: str, value: Any, expected: str, kinds: str = "iuf", array: np.ndarray | None = None
) -> np.ndarray:
    """The value, or the array that it was read into before, as one float64 array of finite numbers."""
    array = as_array(value) if array is None else array
    if array is None or (array.size and array.dtype.kind not in kinds):
        reject(argument, f"got {describe(value)}, which is not an array of numbers", expected)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        reject(argument, f"the value at {list(at)} is {array[at]}", "finite numbers only")
    return array


def read_list(argument: str, value: Any, expected: str) -> list[Any]:
    """The items of a ragged list or tuple."""
    if not isinstance(value, (list, tuple)):
        reject(argument, f"got {describe(value)}", expected)
    return list(value)


def read_points(value: Any) -> list[np.ndarray]:
    """Points in any spelling as one (P, 2) array per object; P is 0 for an object given as None or as an empty list."""
    array = as_array(value)
    if array is None:
        items = read_list("points", value, EXPECTED_POINTS)
        return [object_points(f"points[{i}]", item) for i, item in enumerate(items)]
    array = read_numbers("points", value, EXPECTED_POINTS, array=array)
    if array.ndim == 1:
        return [as_clicks("points", value, array)] if array.size else []
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 2):
        return [as_clicks("points", value, row) for row in array]
    hint = f"{EXPECTED_POINTS}; {ONE_PER_IMAGE}"
    return reject("points", f"got {describe(value)}, which has {array.ndim} dimensions", hint)


def object_points(argument: str, value: Any) -> np.ndarray:
    """The clicks of one object, (P, 2): from [x, y], a list of those, an empty list or None."""
    if value is None:
        return np.zeros((0, 2))
    return as_clicks(argument, value, read_numbers(argument, value, EXPECTED_POINTS))


def as_clicks(argument: str, value: Any, array: np.ndarray) -> np.ndarray:
    """The numbers of one object as (P, 2)."""
    if array.ndim in (1, 2) and array.size == 0:
        return np.zeros((0, 2))
    if array.ndim not in (1, 2) or array.shape[-1] != 2:
        came = f"got {describe(value)}, and a point has two numbers, x and y"
        reject(argument, came, EXPECTED_POINTS + " (labels go in labels=)")
    return array.reshape(-1, 2)


def read_labels(value: Any, counts: Sequence[int]) -> list[np.ndarray]:
    """Labels in any spelling as one (P,) array per object, given how many points each object has."""
    if value is None:
        return [np.ones(count) for count in counts]
    array = as_array(value)
    if array is None:
        items: Sequence[Any] = read_list("labels", value, EXPECTED_LABELS)
    elif array.ndim == 0:
        items = [np.full(count, array) for count in counts]
    elif array.ndim == 1 and len(counts) == 1 and len(array) == counts[0]:
        items = [array]
    else:
        items = list(array)
    if len(items) != len(counts):
        came = f"got {len(items)} labels for {len(counts)} objects of {list(counts)} points"
        hint = "((N, 2) points are N objects; wrap them once more to make them one object's)"
        reject("labels", came, f"{EXPECTED_LABELS} {hint}")
    return [object_labels(f"labels[{i}]", *row) for i, row in enumerate(zip(items, counts, strict=True))]


def object_labels(argument: str, value: Any, count: int) -> np.ndarray:
    """The labels of one object's points; a single number stands for a single point, None for ones."""
    if value is None:
        return np.ones(count)
    labels = np.atleast_1d(read_numbers(argument, value, EXPECTED_LABELS, kinds="iufb"))
    if count == 0 and labels.size <= 1:
        return np.zeros(0)  # the label of an object that has no points
    if labels.shape != (count,):
        reject(argument, f"{labels.size} labels of shape {labels.shape} for {count} points", EXPECTED_LABELS)
    strange = labels[~np.isin(labels, (-1, 0, 1))]
    if strange.size:
        hint = "-1 marks padding, box corners go in bboxes="
        reject(argument, f"got the value {strange[0]:g}", f"{EXPECTED_LABELS}; {hint}")
    return labels


def read_boxes(value: Any) -> list[np.ndarray | None]:
    """Boxes in any spelling as one (4,) xyxy array per object, corners in order; None for an object without a box."""
    value = getattr(value, "xyxy", value)
    array = as_array(value)
    if array is None:
        items = read_list("bboxes", value, EXPECTED_BOXES)
        return [read_box(f"bboxes[{i}]", item) for i, item in enumerate(items)]
    array = read_numbers("bboxes", value, EXPECTED_BOXES, array=array)
    if array.size == 0 and array.ndim in (1, 2):
        return []
    if array.ndim == 1:
        return [read_box("bboxes", array)]
    if array.ndim == 2:
        return [read_box(f"bboxes[{i}]", row) for i, row in enumerate(array)]
    came = f"got {describe(value)}, which has {array.ndim} dimensions"
    return reject("bboxes", came, f"{EXPECTED_BOXES}; {ONE_PER_IMAGE}")


def read_box(argument: str, value: Any) -> np.ndarray | None:
    """One box as x1 <= x2, y1 <= y2."""
    value = getattr(value, "xyxy", value)
    if value is None:
        return None
    array = read_numbers(argument, value, EXPECTED_BOXES)
    if array.size != 4 or array.ndim > 2:
        hint = "four numbers a box, without score or class"
        reject(argument, f"got {array.size} numbers in {describe(value)}", f"{EXPECTED_BOXES}, {hint}")
    x1, y1, x2, y2 = array.ravel()
    if min(abs(x2 - x1), abs(y2 - y1)) < LEAST_SIDE:
        reject(argument, f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}] has no area", EXPECTED_BOXES)
    if x2 < x1 or y2 < y1:
        came = f"{argument} [{x1:g}, {y1:g}, {x2:g}, {y2:g}]: x2 < x1 or y2 < y1"
        report_slip(f"{came}; the corners are put in order. Expected [x1, y1, x2, y2]; is it [x, y, width, height]?")
    return np.array([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])


def check_points(objects: Sequence[np.ndarray], shape: Size) -> None:
    """Refuse points outside an (H, W) image, saying which."""
    height, width = shape
    for i, points in enumerate(objects):
        with np.errstate(over="ignore"):  # past the largest float32 it is infinite, and so outside
            points = points.astype(np.float32)  # as which they go to the network: it may round up to the edge
        outside = (points < 0) | (points >= (width, height))
        if outside.any():
            j = int(np.argwhere(outside.any(1))[0, 0])
            x, y = points[j]
            came = f"({x:g}, {y:g}) lies outside the image of width {width} and height {height}"
            index = f"[{i}]" if all(len(each) <= 1 for each in objects) else f"[{i}][{j}]"
            reject(f"points{index}", came, f"0 <= x < {width} and 0 <= y < {height}")
    check_not_normalised("points", objects, shape)


def fit_boxes(boxes: Sequence[np.ndarray | None], shape: Size) -> list[np.ndarray | None]:
    """The boxes clipped to an (H, W) image; those that reach out by more than rounding are refused, saying which."""
    height, width = shape
    limit = np.array([width, height, width, height])
    fitted = list(boxes)
    for i, box in enumerate(boxes):
        if box is not None:
            if (box < -SLACK).any() or (box > limit + SLACK).any():
                came = f"{box.tolist()} reaches outside the image of width {width} and height {height}"
                reject(f"bboxes[{i}]", came, f"0 <= x <= {width} and 0 <= y <= {height}")
            fitted[i] = read_box(f"bboxes[{i}] clipped to the image", box.clip(0, limit))
    check_not_normalised("bboxes", [box for box in boxes if box is not None], shape)
    return fitted


def check_not_normalised(argument: str, arrays: Sequence[np.ndarray], shape: Size) -> None:
    """Report coordinates of an (H, W) image that all lie in 0-1: of a box, or of all clicks, between whole ones."""
    groups = [np.concatenate([array.ravel() for array in arrays])] if arrays and argument == "points" else arrays
    groups = [flat for flat in groups if flat.size and flat.min() >= 0 and flat.max() <= 1]
    if min(shape) > 2 and any(argument == "bboxes" or (flat % 1).any() for flat in groups):
        line = f"{argument}: all coordinates lie in 0-1, which is the image's first pixel. Expected pixels"
        report_slip(f"{line}: multiply normalised ones by the width {shape[1]} and the height {shape[0]}.")


def read_whole_numbers(argument: str, value: Any, count: int) -> tuple[int, ...] | None:
    """One int per object from a number, a list or an array; None stays None."""
    if value is None:
        return None
    expected = f"one whole number, or one for each of the {count} objects"
    array = read_numbers(argument, value, expected)
    if array.ndim == 0:
        array = np.full(count, array)
    if array.shape != (count,):
        reject(argument, f"got {describe(value)} for {count} objects", expected)
    if (array != array.round()).any():
        reject(argument, f"got {describe(value)}, with fractions", expected)
    if (abs(array) > LARGEST_INTEGER).any():
        reject(argument, f"got {describe(value)}", "whole numbers from -(2^53 - 1) to 2^53 - 1")
    return tuple(int(number) for number in array)


def read_integer(argument: str, value: Any, least: int | None = None) -> int:
    """One whole number, also as digits in text (JSON has no other keys); `least` is the smallest that is taken."""
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 20:
        value = int(value)
    expected = "a whole number" if least is None else f"a whole number from {least} up"
    if isinstance(value, (str, bool, np.bool_, list, tuple)) or value is None:
        reject(argument, f"got {describe(value)}", expected)
    numbers = read_whole_numbers(argument, value, 1)
    if numbers is None or least is not None and numbers[0] < least:
        reject(argument, f"got {describe(value)}", expected)
    return numbers[0]


def read_classes(value: Any, count: int) -> tuple[int, ...] | None:
    """One class index per object."""
    classes = read_whole_numbers("cls", value, count)
    if classes and min(classes) < 0:
        reject("cls", f"got {describe(value)}", "class indices from 0 up")
    return classes


def read_ids(value: Any, count: int) -> tuple[int, ...] | None:
    """One id per object, no two alike."""
    ids = read_whole_numbers("obj_ids", value, count)
    if ids and len(set(ids)) != len(ids):
        reject("obj_ids", f"got {describe(value)}, where an id comes twice", "one id of its own for each object")
    return ids


def read_names(value: Any) -> dict[int, str] | None:
    """Class names by index, from a dict (keys may be digits in quotes, as JSON writes them) or a list."""
    expected = '{0: "cat", 1: "dog"} or ["cat", "dog"]'
    if value is None:
        return None
    pairs = value.items() if isinstance(value, dict) else enumerate(read_list("names", value, expected))
    names: dict[int, Any] = {}
    for key, name in pairs:
        index = read_integer("names", key)
        if index in names:
            reject("names", f"got {describe(value)}, where the class {index} comes twice", expected)
        names[index] = name
    if not all(isinstance(name, str) for name in names.values()):
        reject("names", f"got {describe(value)}", expected)
    return names
