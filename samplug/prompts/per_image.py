"""Which prompts each image of a run gets: the same on every one, one entry per image, or by file name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from samplug.arguments import SPATIAL_PROMPTS
from samplug.errors import PromptError, UnknownSizeError, reject
from samplug.prompts.coords import describe
from samplug.prompts.masks import CHANNELS
from samplug.prompts.objects import Prompts, parse_prompts
from samplug.prompts.raw import KEYS, OBJECT_DEPTH, RawPrompts, bounded_depth
from samplug.transforms import Size

Entries = list[Any] | tuple[Any, ...] | np.ndarray | Tensor  # one per image
IMAGE_DEPTH = {name: OBJECT_DEPTH[name] + 1 for name in SPATIAL_PROMPTS if name in OBJECT_DEPTH}
WITH_LOCATIONS = tuple(name for name in OBJECT_DEPTH if name not in IMAGE_DEPTH)  # an entry per image where those have


class ImagePrompts:
    """The prompts of each image of a run (or of each video), read when its turn comes.

    By default every image gets the same. One entry per image is understood when `prompts` is a list, and when
    `points`, `bboxes` or `masks` nest once more than one image's or, one for each image, hold None for some of
    them. Prompts by file are a dict of paths or file names. Where the number of images is not known (`count` is None,
    for streams), entries are taken by index.
    """

    @bounded_depth()
    def __init__(self, raw: RawPrompts, count: int | None = None) -> None:
        raw = raw.loaded()
        self.by_file: dict[str, Any] | None = None  # by path or file name
        self.entries: dict[str, Entries] = {}  # the arguments with one entry per image; the others are `shared`
        if is_by_file(raw.prompts):
            self.by_file, self.shared = raw.prompts, replace(raw, prompts=None)
            return
        raw = raw.unpacked() if isinstance(raw.prompts, dict) else raw
        names = per_image_arguments(raw, count)
        self.entries = {name: entries_of(name, getattr(raw, name), count) for name in names}
        self.shared = replace(raw, **dict.fromkeys(names))

    def for_image(self, index: int, file: str | Path | None = None, shape: Size | None = None) -> Prompts:
        """The prompts of one image, by its place in the run, its path and its (H, W).

        An image whose entry is None has `given` False; one that prompts by file do not name has no objects.
        """
        return parse_prompts(self.raw_for_image(index, file), shape)

    def raw_for_image(self, index: int, file: str | Path | None = None) -> RawPrompts:
        """The prompts of one image, by its place in the run and its path, as they were written."""
        own: dict[str, Any] = {}
        for name, entries in self.entries.items():
            if index >= len(entries):
                reject(name, f"{len(entries)} entries, and this is image {index + 1}", "one entry per image")
            own[name] = entries[index]
        if self.by_file is not None:
            key = file_key(self.by_file, file)
            own |= {"bboxes": []} if key is None else {"prompts": self.by_file[key]}
        raw = replace(self.shared, **own)
        return raw if raw.has_location or not own else RawPrompts(names=raw.names)

    def unused_files(self, files: Sequence[str | Path]) -> str:
        """Which prompts by file belong to none of the source's files, in words; "" if all are used."""
        used = {file_key(self.by_file or {}, file) for file in files} - {None}
        unused = [key for key in self.by_file or {} if key not in used]
        near = difflib.get_close_matches(str(unused[0]), [Path(file).name for file in files], 1) if unused else []
        more = f" (nor are {len(unused) - 1} more)" if len(unused) > 1 else ""
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{unused[0]!r} is none of the source's files{more}{hint}" if unused else ""

    def files_without(self, files: Sequence[str | Path]) -> list[str | Path]:
        """The files that prompts by file do not name."""
        return [] if self.by_file is None else [file for file in files if file_key(self.by_file, file) is None]

    def check_files(self, files: Sequence[str | Path]) -> None:
        """Refuse prompts for a file that is not among those of the source."""
        if unused := self.unused_files(files):
            reject("prompts", unused, f"the paths or names of {list(map(str, files))[:8]}")

    def are_wrong_everywhere(self) -> bool:
        """Whether prompts are wrong whatever the image, where all images get the same."""
        if self.entries or self.by_file is not None:
            return False
        try:
            parse_prompts(self.shared, None)
        except UnknownSizeError:
            return False
        except PromptError:
            return True
        return False


def is_by_file(prompts: Any) -> bool:
    """Whether a dict holds prompts by file name rather than arguments by name."""
    if not isinstance(prompts, dict) or not prompts or any(key in KEYS for key in prompts):
        return False
    return all(
        item is None or isinstance(item, dict) or hasattr(item, "xyxy") or hasattr(item, "boxes")
        for item in prompts.values()
    )


def file_key(by_file: dict[str, Any], file: str | Path | None) -> str | None:
    """The key that means this file: its path, else its name."""
    keys = [] if file is None else [str(file), Path(file).name]
    return next((key for key in keys if key in by_file), None)


def per_image_arguments(raw: RawPrompts, count: int | None) -> tuple[str, ...]:
    """The arguments that hold one entry per image."""
    if isinstance(raw.prompts, (list, tuple)) and not (count is None and len(raw.prompts) == 1):
        names: tuple[str, ...] = ("prompts", *WITH_LOCATIONS)
    elif any(has_entries(name, getattr(raw, name), count) for name in IMAGE_DEPTH):
        names = (*IMAGE_DEPTH, *WITH_LOCATIONS)
    else:
        return ()
    return tuple(name for name in names if not is_shared(getattr(raw, name)))


def has_entries(name: str, value: Any, count: int | None) -> bool:
    """Whether an argument nests once more than one image's, or has None for some of just as many images."""
    if value is None:
        return False
    if depth(value, name == "masks") > IMAGE_DEPTH[name]:
        return True
    gaps = isinstance(value, (list, tuple)) and count is not None and len(value) == count > 1
    return gaps and any(item is None for item in value)


def is_shared(value: Any) -> bool:
    """Whether a value is None or a single number, which every image gets."""
    return value is None or isinstance(value, Number) or getattr(value, "ndim", 1) == 0


def depth(value: Any, of_masks: bool = False) -> int:
    """How many levels of lists and array dimensions stand above the numbers; a mask may have channels."""
    if hasattr(value, "xyxy") or isinstance(value, (str, Path, dict)) or hasattr(value, "convert"):
        return 2  # boxes; one mask in a file or a PIL image, a polygon, run lengths
    if hasattr(value, "orig_shape"):
        return 3  # Ultralytics' Masks
    if isinstance(value, (np.ndarray, Tensor)):
        sides = tuple(value.shape)
        with_channels = len(sides) > 2 and sides[-1] in CHANNELS or len(sides) == 4 and sides[1] == 1
        return len(sides) - (of_masks and with_channels)
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 if not value or isinstance(value[0], (int, float)) else 1 + max(depth(item, of_masks) for item in value)


def entries_of(name: str, value: Any, count: int | None) -> Entries:
    """The entries, when there are as many as images."""
    expected = "one entry per image where the prompts differ (None or [] for an image without), or the same for all"
    if not isinstance(value, (list, tuple, np.ndarray, Tensor)):
        reject(name, f"got {describe(value)} beside prompts that differ from image to image", expected)
    if count is not None and len(value) != count:
        reject(name, f"{len(value)} entries for {count} images", expected)
    return value
