"""Prompts as the user wrote them: the arguments side by side, and what `prompts=` holds unpacked into them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from samplug.arguments import PROMPT_ARGUMENTS, SPATIAL_PROMPTS
from samplug.errors import reject
from samplug.prompts.coords import describe
from samplug.transforms import Size

KEYS = tuple(name for name in PROMPT_ARGUMENTS if name != "prompts")  # what prompts={...} may hold
MISSPELT = {"boxes": "bboxes", "box": "bboxes", "ids": "obj_ids", "id": "obj_ids", "classes": "cls", "class": "cls"}
EXPECTED = f"a dict of {', '.join(KEYS)} (or a .json file of one), or a YOLO Results"
# how deep the arguments of one object nest; those of one image nest once more, one entry per image once more still
OBJECT_DEPTH = {"points": 2, "labels": 1, "bboxes": 1, "masks": 2, "cls": 0, "obj_ids": 0}


@dataclass(frozen=True, eq=False)
class RawPrompts:
    """Prompts as the user wrote them, not read yet."""

    points: Any = None
    labels: Any = None
    bboxes: Any = None
    masks: Any = None
    prompts: Any = None
    cls: Any = None
    names: Any = None
    obj_ids: Any = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RawPrompts:
        """The prompts among the options of a run."""
        return cls(*map(options.get, PROMPT_ARGUMENTS))

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that are not None, in the order of the fields."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    @property
    def has_location(self) -> bool:
        """Whether any argument says where an object is."""
        return any(getattr(self, name) is not None for name in SPATIAL_PROMPTS)

    def loaded(self) -> RawPrompts:
        """The same with a .json file in `prompts=` read."""
        return replace(self, prompts=from_json(self.prompts)) if isinstance(self.prompts, (str, Path)) else self

    def unpacked(self, shape: Size | None = None) -> RawPrompts:
        """The same with `prompts=` unpacked into the other arguments; classes, names and ids beside it win."""
        if self.prompts is None:
            return self
        inner = unpack(self.prompts, shape)
        outer = replace(self, prompts=None).given
        twice = sorted((outer.keys() & inner.given.keys()) - {"cls", "names", "obj_ids"})
        if twice:
            reject("prompts", f"{', '.join(twice)} came both inside prompts= and beside it", "each argument once")
        return replace(inner, **outer)


def unpack(value: Any, shape: Size | None) -> RawPrompts:
    """The content of `prompts=`: a dict, a .json file, a YOLO Results (or a list of one), or its Boxes."""
    if isinstance(value, (str, Path)):
        value = from_json(value)
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        return RawPrompts(**{known_key(key): item for key, item in value.items()})
    if hasattr(value, "boxes") and hasattr(value, "orig_shape"):
        return from_results(value, shape)
    if hasattr(value, "xyxy"):
        return from_boxes(value)
    return reject("prompts", f"got {describe(value)}", EXPECTED)


def from_json(path: str | Path) -> Any:
    """The content of a .json file of prompts."""
    if not os.path.isfile(path):
        reject("prompts", f"{str(path)[:200]!r} cannot be read as JSON (there is no such file)", EXPECTED)
    try:
        content = decode_json(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        return reject("prompts", f"{str(path)!r} cannot be read as JSON ({error})", EXPECTED)
    return reject("prompts", f"{str(path)!r} holds null", EXPECTED) if content is None else content


def decode_json(text: str) -> Any:
    """JSON as its standard has it: no key twice in an object, no NaN; else, or nested too deeply, a ValueError."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a key comes twice: one of the values would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return content


def refuse_constant(name: str) -> NoReturn:
    """NaN and infinity, which Python's JSON has and no other."""
    raise ValueError(f"{name} is no number")


@contextmanager
def bounded_depth() -> Iterator[None]:
    """Refuse prompts that contain themselves, or are nested deeper than Python can follow."""
    try:
        yield
    except RecursionError:
        reject("prompts", "they contain themselves, or are nested too deeply", EXPECTED)


def known_key(key: Any) -> str:
    """A key of `prompts={...}`, or an error that names the nearest one."""
    if key in KEYS:
        return key
    near = MISSPELT.get(str(key)) or next(iter(difflib.get_close_matches(str(key), KEYS, 1)), None)
    hint = f" (did you mean {near!r}?)" if near else ""
    return reject("prompts", f"unknown key {key!r}{hint}", EXPECTED)


def from_results(results: Any, shape: Size | None) -> RawPrompts:
    """A detector's result: its boxes with their classes, names and ids; its masks only where it has no boxes."""
    size = tuple(results.orig_shape[:2])
    if shape is not None and size != tuple(shape):
        came = f"these Results are of a {size[1]}x{size[0]} image"
        reject("prompts", came, f"Results of this one, {shape[1]}x{shape[0]}")
    boxes = results.boxes if results.boxes is not None else getattr(results, "obb", None)
    if boxes is not None:
        return replace(from_boxes(boxes), names=results.names)
    if getattr(results, "masks", None) is None:
        reject("prompts", "these Results hold neither boxes nor masks", "Results of a detector or a segmenter")
    return RawPrompts(masks=results.masks)


def from_boxes(boxes: Any) -> RawPrompts:
    """Boxes with the classes and ids they carry: Ultralytics', or `supervision.Detections`, also with their names."""
    if not hasattr(boxes, "class_id"):
        return RawPrompts(bboxes=boxes, cls=getattr(boxes, "cls", None), obj_ids=getattr(boxes, "id", None))
    cls, names = boxes.class_id, None
    if cls is not None and boxes.data.get("class_name") is not None:
        names = {int(index): str(name) for index, name in zip(cls, boxes.data["class_name"], strict=True)}
    return RawPrompts(bboxes=boxes.xyxy, cls=cls, names=names, obj_ids=boxes.tracker_id)
