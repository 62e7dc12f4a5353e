"""Which prompts each picture of a run gets: the same on every one, one entry per picture, or by file name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from samplug.prompt_forms import describe, refuse
from samplug.spelled import KEYS, Spelled, from_json

ONE_PICTURE = {"points": 3, "bboxes": 2, "masks": 3}  # how deep the prompts of one picture may nest
FOLLOW = ("labels", "cls", "obj_ids")  # one entry per picture where the prompts have one


@dataclass(frozen=True, eq=False)
class Schedule:
    """Which spelling each picture gets.

    Attributes:
        shared: the arguments that are the same for every picture.
        single: the arguments with one entry per picture.
        by_file: prompts by path or file name, or None.
    """

    shared: Spelled
    single: dict[str, Sequence[Any]] = field(default_factory=dict)
    by_file: dict[str, Any] | None = None

    @classmethod
    def plan(cls, spelled: Spelled, count: int | None = None) -> Schedule:
        """Decide from how deep the arguments nest; `count` is the number of pictures, None where it is not known."""
        prompts = from_json(Path(spelled.prompts)) if isinstance(spelled.prompts, (str, Path)) else spelled.prompts
        spelled = replace(spelled, prompts=prompts)
        if is_by_file(prompts):
            return cls(replace(spelled, prompts=None), by_file=prompts)
        if isinstance(prompts, dict):
            spelled = spelled.unpacked()
        names = per_picture_arguments(spelled, count)
        single = {name: one_each(name, getattr(spelled, name), count) for name in names}
        return cls(replace(spelled, **dict.fromkeys(names)), single)

    def at(self, index: int, file: str | Path | None = None) -> Spelled:
        """The spelling for one picture, by its place in the run and its path."""
        own: dict[str, Any] = {name: entry(name, entries, index) for name, entries in self.single.items()}
        if self.by_file is not None:
            key = file_key(self.by_file, file)
            own |= {"bboxes": []} if key is None else {"prompts": self.by_file[key]}
        spelled = replace(self.shared, **own)
        return spelled if spelled.points_at_something else Spelled(names=spelled.names) if own else spelled

    def check_files(self, files: Sequence[str | Path]) -> None:
        """Refuse prompts for a file that is not among those of the source."""
        used = {file_key(self.by_file or {}, file) for file in files}
        for key in self.by_file or {}:
            if key not in used:
                refuse(
                    "prompts",
                    f"{key!r} is none of the source's files",
                    f"the paths or names of {list(map(str, files))[:8]}",
                )


def is_by_file(prompts: Any) -> bool:
    """Whether a dict holds prompts by file name rather than arguments by name."""
    if not isinstance(prompts, dict) or not prompts or any(key in KEYS for key in prompts):
        return False
    holders = (
        item is None or isinstance(item, dict) or hasattr(item, "xyxy") or hasattr(item, "boxes")
        for item in prompts.values()
    )
    return all(holders)


def file_key(by_file: dict[str, Any], file: str | Path | None) -> str | None:
    """The key that means this file: its path, else its name."""
    candidates = [] if file is None else [str(file), Path(file).name]
    return next((key for key in candidates if key in by_file), None)


def per_picture_arguments(spelled: Spelled, count: int | None) -> tuple[str, ...]:
    """The arguments that hold one entry per picture."""
    if is_list(spelled.prompts) and not (count is None and len(spelled.prompts) == 1):
        return tuple(name for name in ("prompts", *FOLLOW) if holds_entries(getattr(spelled, name)))
    if not any(nests_once_more(name, getattr(spelled, name), count) for name in ONE_PICTURE):
        return ()
    return tuple(name for name in (*ONE_PICTURE, *FOLLOW) if holds_entries(getattr(spelled, name)))


def nests_once_more(name: str, value: Any, count: int | None) -> bool:
    """Whether an argument is one level deeper than one picture's, or has None for some of just as many pictures."""
    if depth(value) > ONE_PICTURE[name]:
        return True
    return is_list(value) and count is not None and len(value) == count > 1 and any(item is None for item in value)


def depth(value: Any) -> int:
    """How many levels of lists and array dimensions stand above the numbers."""
    if hasattr(value, "xyxy") or isinstance(value, (str, Path, dict)):
        return 2  # boxes; one mask in a file, a polygon, run lengths
    if hasattr(value, "orig_shape"):
        return 3  # Ultralytics' Masks
    if isinstance(value, (np.ndarray, Tensor)):
        return 3 if value.ndim == 4 and value.shape[1] == 1 else value.ndim  # (N, 1, h, w) are N masks
    if not is_list(value):
        return 0
    return 1 if not value or isinstance(value[0], (int, float)) else 1 + max(depth(item) for item in value)


def is_list(value: Any) -> bool:
    """A list or a tuple."""
    return isinstance(value, (list, tuple))


def holds_entries(value: Any) -> bool:
    """Whether a value has something to give to each picture; a single number is shared."""
    return value is not None and not isinstance(value, Number) and getattr(value, "ndim", 1) > 0


def one_each(name: str, value: Any, count: int | None) -> Sequence[Any]:
    """The entries, when there are as many as pictures."""
    accepted = "one entry per picture where the prompts differ (None or [] for a picture without), or the same for all"
    if not is_list(value) and not isinstance(value, (np.ndarray, Tensor)):
        refuse(name, f"got {describe(value)} beside prompts that differ from picture to picture", accepted)
    if count is not None and len(value) != count:
        refuse(name, f"{len(value)} entries for {count} pictures", accepted)
    return value


def entry(name: str, entries: Sequence[Any], index: int) -> Any:
    """One picture's entry."""
    if index >= len(entries):
        refuse(name, f"{len(entries)} entries, and this is picture {index + 1}", "one entry per picture")
    return entries[index]
