"""Which values arguments take: kinds of them, and those that several arguments share. Standard library only."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from samplug.errors import shown


@dataclass(frozen=True)
class Range:
    """Which numbers an argument takes: from `least` up to `most`, only whole ones or not, `also` one, or a switch."""

    expected: str
    least: float
    most: float = math.inf
    whole: bool = False
    also: float | None = None
    switch: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them; None leaves the argument out."""
        number = isinstance(value, Integral if self.whole else Real) and (self.switch or not isinstance(value, bool))
        within = number and (math.isfinite(value) and self.least <= value <= self.most or value == self.also)
        return value is None or bool(within)


@dataclass(frozen=True)
class Choice:
    """Which values an argument takes: a few, and callables where `objects` says which."""

    values: tuple[Any, ...]
    objects: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if not isinstance(value, str) and hasattr(value, "__len__"):
            return False  # arrays do not compare
        return bool(self.objects) and callable(value) or value in self.values

    @property
    def expected(self) -> str:
        """The values in words."""
        return f"one of {', '.join(map(repr, self.values))}" + (f", or {self.objects}" if self.objects else "")


@dataclass(frozen=True)
class Condition:
    """Which values an argument takes, where a function tells; None leaves the argument out."""

    expected: str
    passes: Callable[[Any], bool]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value is None or self.passes(value)


Accepts = Range | Choice | Condition


def is_accepted(value: Any, accepts: Accepts) -> bool:
    """Whether a value is one of them; not one on which the question fails: a tensor without values, a huge number."""
    try:
        return accepts.holds(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def count_of(things: str, least: int = 1, most: float = math.inf) -> Range:
    """A whole number of things."""
    last = "or more" if most == math.inf else f"or more, at most {most}"
    return Range(f"a number of {things}, {least} {last}", least, most, whole=True)


def is_size(value: Any) -> bool:
    """Whether a value is an `imgsz`: a number of pixels, or one or two in a list."""
    sides = value if isinstance(value, list | tuple) else [value]
    return 1 <= len(sides) <= 2 and all(PIXELS.holds(side) and side is not None for side in sides)


def as_list(value: Any) -> list[Any]:
    """The items of a list, a tuple, a set, a range or an array; anything else as the only one."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [*value] if isinstance(value, list | tuple | set | range) else [value]


def are_classes(value: Any) -> bool:
    """Whether a value is the number of a class, or a list or an array of them."""
    return all(CLASS.holds(number) and number is not None for number in as_list(value))


def are_grids(value: Any) -> bool:
    """Whether a value is a list of grids: each an array, or lists, of one point xy in 0-1 or more."""
    grids = [as_list(grid) for grid in as_list(value)]
    points = [as_list(point) for grid in grids for point in grid]
    shares = [None not in point and len(point) == 2 and all(map(SHARE.holds, point)) for point in points]
    return bool(grids) and all(grids) and all(shares)


def is_path(value: Any) -> bool:
    """Whether a value is the name of a file or folder."""
    return isinstance(value, str | os.PathLike) and str(value) != "" and "\0" not in str(value)


def is_prompter(value: Any) -> bool:
    """Whether a value may find objects: a model, its file, a dict of one and of arguments, or a function."""
    return callable(value) or is_path(value) or (isinstance(value, dict) and is_prompter(value.get("model")))


PIXELS = Range("pixels", 1, 1 << 15, whole=True)
CLASS = Range("the number of a class", 1 - 2**53, 2**53 - 1, whole=True)  # results hold it as a float64
SHARE = Range("a number from 0 to 1", 0, 1)
THRESHOLD = Range("a number; below 0 keeps all, above 1 none", -math.inf, math.inf)
NAME = Condition("text without a null character", lambda value: is_path(value) or value == "" or type(value) is int)
PATH = Condition("the name of a file or folder", is_path)
PROMPTER = Condition("a YOLO model or its file, a dict of it as 'model' and arguments, or a function", is_prompter)
IMGSZ = Condition("pixels, or [height, width], each up to 32768", is_size)
CLASSES = Condition("the number of a class, or a list of them", are_classes)
MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))  # a hundred thousand end the process
SWITCH = Choice((False, True))
AREA = Range("a number of pixels, a share of the mask below 1, or 0 for none", 0, switch=True)


def check_path(name: str, value: Any) -> None:
    """Refuse what is no name of a file or folder, by a TypeError; a name that no file can have is for the reader."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}={shown(value)}: give {PATH.expected}.")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse to write into a folder that is a file, or lies below one, by a NotADirectoryError: before the work."""
    places = (Path(path).absolute(), *Path(path).absolute().parents)
    there = next((place for place in places if os.path.lexists(place)), places[-1])
    if not os.path.isdir(there):
        raise NotADirectoryError(f"Cannot write into {path}: {there} is no folder. Expected one, or a new name.")
