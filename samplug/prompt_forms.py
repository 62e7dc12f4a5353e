"""Points, labels, boxes, classes and ids in every spelling people use, read into one array per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

Size = tuple[int, int]
SLACK = 1.0  # pixels by which a box may reach past the picture: detectors round
LARGEST = 2**53 - 1  # whole number: results hold ids and classes as floats, and float64 knows not all beyond

POINTS = "[x, y], or (N, 2) for N objects of one click, or (N, P, 2) or one list per object for several clicks"
LABELS = "1 on the object, 0 off it, one per point, nested like the points; leave them out to mean 1 everywhere"
BOXES = "[x1, y1, x2, y2] or (N, 4) in pixels of the picture, or Ultralytics' Boxes"
ONE_PER_PICTURE = "one entry per picture is read when a list of pictures is given"


class PromptError(ValueError, AssertionError):
    """A prompt that cannot be read; the message names the argument, what came and what is accepted.

    Also an `AssertionError`, because that is what scripts written against Ultralytics catch.
    """


def refuse(argument: str, came: str, accepted: str) -> NoReturn:
    """Raise the one kind of error that prompts have."""
    raise PromptError(f"{argument}: {came}. Accepted is {accepted}.")


def describe(value: Any) -> str:
    """What came, short enough for one line."""
    if isinstance(value, (np.ndarray, Tensor)):
        return f"a {value.dtype} array of shape {tuple(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"


def plain(value: Any) -> Any:
    """Tensors of any device and dtype as arrays, inside lists and tuples too."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        short = value.is_floating_point() and value.element_size() < 4  # numpy has no bfloat16
        return (value.float() if short else value).numpy()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def regular(value: Any) -> np.ndarray | None:
    """The value as one array, or None where it is ragged or has gaps (None)."""
    if value is None:
        return None
    try:
        array = np.asarray(plain(value))
    except ValueError:  # lists of unequal lengths
        return None
    return None if array.dtype == object else array


def numbers(argument: str, value: Any, accepted: str, kinds: str = "iuf") -> np.ndarray:
    """The value as one float64 array of finite numbers."""
    array = regular(value)
    if array is None or (array.size and array.dtype.kind not in kinds):
        refuse(argument, f"got {describe(value)}, which is not an array of numbers", accepted)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        refuse(argument, f"the value at {list(at)} is {array[at]}", "finite numbers only")
    return array


def entries(argument: str, value: Any, accepted: str) -> list[Any]:
    """The items of a ragged list or tuple."""
    if not isinstance(value, (list, tuple)):
        refuse(argument, f"got {describe(value)}", accepted)
    return list(value)


# ------------------------------------------------------------------ points


def read_points(value: Any) -> list[np.ndarray]:
    """Points in any spelling as one (P, 2) array per object; P is 0 for an object given as None or as an empty list."""
    array = regular(value)
    if array is None:
        items = entries("points", value, POINTS)
        return [clicks(f"points[{i}]", item) for i, item in enumerate(items)]
    array = numbers("points", value, POINTS)
    if array.ndim == 1:
        return [clicks("points", array)] if array.size else []
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 2):
        return [clicks("points", row) for row in array]
    hint = f"{POINTS}; {ONE_PER_PICTURE}"
    return refuse("points", f"got {describe(value)}, which has {array.ndim} dimensions", hint)


def clicks(argument: str, value: Any) -> np.ndarray:
    """The clicks of one object, (P, 2): from [x, y], a list of those, an empty list or None."""
    if value is None:
        return np.zeros((0, 2))
    array = numbers(argument, value, POINTS)
    if array.ndim in (1, 2) and array.size == 0:
        return np.zeros((0, 2))
    if array.ndim not in (1, 2) or array.shape[-1] != 2:
        came = f"got {describe(value)}, and a point has two numbers, x and y"
        refuse(argument, came, POINTS + " (labels go in labels=)")
    return array.reshape(-1, 2)


def read_labels(value: Any, counts: Sequence[int]) -> list[np.ndarray]:
    """Labels in any spelling as one (P,) array per object, given how many points each object has."""
    if value is None:
        return [np.ones(count) for count in counts]
    array = regular(value)
    if array is None:
        items: Sequence[Any] = entries("labels", value, LABELS)
    elif array.ndim == 0:
        items = [np.full(count, array) for count in counts]
    elif array.ndim == 1 and len(counts) == 1 and len(array) == counts[0]:
        items = [array]
    else:
        items = list(array)
    if len(items) != len(counts):
        came = f"got {len(items)} labels for {len(counts)} objects of {list(counts)} points"
        refuse("labels", came, f"{LABELS} ((N, 2) points are N objects; wrap them once more to make them one object's)")
    return [
        object_labels(f"labels[{i}]", item, count) for i, (item, count) in enumerate(zip(items, counts, strict=True))
    ]


def object_labels(argument: str, value: Any, count: int) -> np.ndarray:
    """The labels of one object's points; a single number stands for a single point, None for ones."""
    if value is None:
        return np.ones(count)
    labels = np.atleast_1d(numbers(argument, value, LABELS, kinds="iufb"))
    if count == 0 and labels.size <= 1:
        return np.zeros(0)  # a row's worth of label for an object that has no points
    if labels.shape != (count,):
        refuse(argument, f"{labels.size} labels of shape {labels.shape} for {count} points", LABELS)
    strange = labels[~np.isin(labels, (-1, 0, 1))]
    if strange.size:
        refuse(argument, f"got the value {strange[0]:g}", f"{LABELS}; -1 marks padding, box corners go in bboxes=")
    return labels


# ------------------------------------------------------------------ boxes


def read_boxes(value: Any) -> list[np.ndarray | None]:
    """Boxes in any spelling as one (4,) xyxy array per object, corners in order; None for an object without a box."""
    value = getattr(value, "xyxy", value)
    array = regular(value)
    if array is None:
        items = entries("bboxes", value, BOXES)
        return [one_box(f"bboxes[{i}]", item) for i, item in enumerate(items)]
    array = numbers("bboxes", value, BOXES)
    if array.size == 0 and array.ndim in (1, 2):
        return []
    if array.ndim == 1:
        return [one_box("bboxes", array)]
    if array.ndim == 2:
        return [one_box(f"bboxes[{i}]", row) for i, row in enumerate(array)]
    return refuse("bboxes", f"got {describe(value)}, which has {array.ndim} dimensions", f"{BOXES}; {ONE_PER_PICTURE}")


def one_box(argument: str, value: Any) -> np.ndarray | None:
    """One box as x1 <= x2, y1 <= y2."""
    value = getattr(value, "xyxy", value)
    if value is None:
        return None
    array = numbers(argument, value, BOXES)
    if array.size != 4 or array.ndim > 2:
        refuse(
            argument,
            f"got {array.size} numbers in {describe(value)}",
            BOXES + ", four numbers a box, without score or class",
        )
    x1, y1, x2, y2 = array.ravel()
    if x1 == x2 or y1 == y2:
        refuse(argument, f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}] has no area", BOXES)
    return np.array([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])


# ------------------------------------------------------------------ inside the picture


def check_points(objects: Sequence[np.ndarray], shape: Size) -> None:
    """Refuse points outside an (H, W) picture, saying which."""
    height, width = shape
    for i, points in enumerate(objects):
        outside = (points < 0) | (points >= (width, height))
        if outside.any():
            j = int(np.argwhere(outside.any(1))[0, 0])
            x, y = points[j]
            came = f"({x:g}, {y:g}) lies outside the picture of width {width} and height {height}"
            refuse("points" + place(i, j, objects), came, f"0 <= x < {width} and 0 <= y < {height}")


def place(i: int, j: int, objects: Sequence[np.ndarray]) -> str:
    """The index of point j of object i, as the user would write it."""
    return f"[{i}]" if all(len(points) <= 1 for points in objects) else f"[{i}][{j}]"


def fit_boxes(boxes: Sequence[np.ndarray | None], shape: Size) -> list[np.ndarray | None]:
    """The boxes clipped to an (H, W) picture; those that reach out by more than rounding are refused, saying which."""
    height, width = shape
    limit = np.array([width, height, width, height])
    fitted: list[np.ndarray | None] = []
    for i, box in enumerate(boxes):
        if box is not None:
            if (box < -SLACK).any() or (box > limit + SLACK).any():
                came = f"{box.tolist()} reaches outside the picture of width {width} and height {height}"
                refuse(f"bboxes[{i}]", came, f"0 <= x <= {width} and 0 <= y <= {height}")
            box = one_box(f"bboxes[{i}] clipped to the picture", box.clip(0, limit))
        fitted.append(box)
    return fitted


# ------------------------------------------------------------------ classes, names, ids


def read_whole_numbers(argument: str, value: Any, count: int) -> tuple[int, ...] | None:
    """One int per object from a number, a list or an array; None stays None."""
    if value is None:
        return None
    accepted = f"one whole number, or one for each of the {count} objects"
    array = numbers(argument, value, accepted)
    if array.ndim == 0:
        array = np.full(count, array)
    if array.shape != (count,):
        refuse(argument, f"got {describe(value)} for {count} objects", accepted)
    if (array != array.round()).any():
        refuse(argument, f"got {describe(value)}, with fractions", accepted)
    if (abs(array) > LARGEST).any():
        refuse(argument, f"got {describe(value)}", "whole numbers from -(2^53 - 1) to 2^53 - 1")
    return tuple(int(number) for number in array)


def read_classes(value: Any, count: int) -> tuple[int, ...] | None:
    """One class index per object."""
    classes = read_whole_numbers("cls", value, count)
    if classes and min(classes) < 0:
        refuse("cls", f"got {describe(value)}", "class indices from 0 up")
    return classes


def read_ids(value: Any, count: int) -> tuple[int, ...] | None:
    """One id per object, no two alike."""
    ids = read_whole_numbers("obj_ids", value, count)
    if ids and len(set(ids)) != len(ids):
        refuse("obj_ids", f"got {describe(value)}, where an id comes twice", "one id of its own for each object")
    return ids


def read_names(value: Any) -> dict[int, str] | None:
    """Class names by index, from a dict (keys may be digits in quotes, as JSON writes them) or a list."""
    accepted = '{0: "cat", 1: "dog"} or ["cat", "dog"]'
    if value is None:
        return None
    pairs = value.items() if isinstance(value, dict) else enumerate(entries("names", value, accepted))
    try:
        names = {int(index): name for index, name in pairs}
    except (TypeError, ValueError):
        refuse("names", f"got {describe(value)}", accepted)
    if not all(isinstance(name, str) for name in names.values()):
        refuse("names", f"got {describe(value)}", accepted)
    return names
