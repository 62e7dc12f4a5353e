"""Prompts as the user wrote them: the arguments side by side, and what `prompts=` may hold opened into them."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from samplug.prompt_forms import Size, describe, refuse

KEYS = ("points", "labels", "bboxes", "masks", "cls", "names", "obj_ids")  # what prompts={...} may hold
LIKELY = {"boxes": "bboxes", "box": "bboxes", "ids": "obj_ids", "id": "obj_ids", "classes": "cls", "class": "cls"}
WAYS = "a dict of points, labels, bboxes, masks, cls, names, obj_ids (or a .json file of one), or a YOLO Results"


@dataclass(frozen=True, eq=False)
class Spelled:
    """Prompts as the user wrote them, not read yet."""

    points: Any = None
    labels: Any = None
    bboxes: Any = None
    masks: Any = None
    prompts: Any = None
    cls: Any = None
    names: Any = None
    obj_ids: Any = None

    @property
    def given(self) -> tuple[str, ...]:
        """The arguments that are there, in the order of the fields."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)

    @property
    def points_at_something(self) -> bool:
        """Whether any argument says where an object is."""
        return any(value is not None for value in (self.points, self.bboxes, self.masks, self.prompts))

    def unpacked(self, shape: Size | None = None) -> Spelled:
        """The same with `prompts=` opened into the other arguments; classes, names and ids beside it win."""
        if self.prompts is None:
            return self
        inner = open_prompts(self.prompts, shape)
        outer = replace(self, prompts=None)
        twice = sorted(set(outer.given) & set(inner.given) - {"cls", "names", "obj_ids"})
        if twice:
            refuse("prompts", f"{', '.join(twice)} came both inside prompts= and beside it", "each argument once")
        return replace(inner, **{name: getattr(outer, name) for name in outer.given})


def open_prompts(value: Any, shape: Size | None) -> Spelled:
    """What stands in `prompts=`: a dict, a .json file, a YOLO Results (or a list of one), or its Boxes."""
    if isinstance(value, (str, Path)):
        value = from_json(Path(value))
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        return Spelled(**{known_key(key): item for key, item in value.items()})
    if hasattr(value, "boxes") and hasattr(value, "orig_shape"):
        return from_results(value, shape)
    if hasattr(value, "xyxy"):
        return from_boxes(value)
    return refuse("prompts", f"got {describe(value)}", WAYS)


def from_json(path: Path) -> Any:
    """What a .json file of prompts holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return refuse("prompts", f"{str(path)!r} cannot be read as JSON ({error})", WAYS)


def known_key(key: Any) -> str:
    """A key of `prompts={...}`, or an error that names the nearest one."""
    if key in KEYS:
        return key
    near = LIKELY.get(str(key)) or next(iter(difflib.get_close_matches(str(key), KEYS, 1)), None)
    hint = f" (did you mean {near!r}?)" if near else ""
    return refuse("prompts", f"unknown key {key!r}{hint}", WAYS)


def from_results(results: Any, shape: Size | None) -> Spelled:
    """A detector's result: its boxes with their classes, names and ids; its masks only where it has no boxes."""
    size = tuple(results.orig_shape[:2])
    if shape is not None and size != tuple(shape):
        refuse(
            "prompts",
            f"these Results are of a {size[1]}x{size[0]} picture",
            f"Results of this one, {shape[1]}x{shape[0]}",
        )
    found = next((boxes for boxes in (results.boxes, getattr(results, "obb", None)) if boxes is not None), None)
    if found is not None:
        return replace(from_boxes(found), names=results.names)
    if getattr(results, "masks", None) is None:
        refuse("prompts", "these Results hold neither boxes nor masks", "Results of a detector or a segmenter")
    return Spelled(masks=results.masks)


def from_boxes(boxes: Any) -> Spelled:
    """Ultralytics' Boxes with the classes and ids they carry."""
    return Spelled(bboxes=boxes, cls=getattr(boxes, "cls", None), obj_ids=getattr(boxes, "id", None))
