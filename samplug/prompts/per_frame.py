"""Prompts over time: which objects are prompted on which frame of which video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from samplug.errors import reject
from samplug.prompts.coords import describe, read_integer, to_numpy
from samplug.prompts.objects import Prompt, Prompts, parse_prompts
from samplug.prompts.per_image import ImagePrompts
from samplug.prompts.raw import OBJECT_DEPTH, RawPrompts, bounded_depth
from samplug.transforms import Size

FIRST_FRAME = -(1 << 62)  # the first of a run, whichever number it has


@dataclass
class FramePrompts:
    """The prompts of one video, as they were written: coordinates are checked when their frame comes."""

    first: RawPrompts | None = None  # those for the first frame of the run, until that has come
    by_frame: dict[int, list[Any]] = field(default_factory=dict)  # those for a frame, until that has come
    given: bool = False  # whether there ever were any; `bboxes=[]` is given, and means no objects

    def start_run(self, run: FramePrompts) -> None:
        """Add the prompts of a run before those that were added ahead of it."""
        self.first, self.given = run.first, self.given or run.given
        for frame, values in run.by_frame.items():
            self.by_frame.setdefault(frame, [])[:0] = values

    def add(self, frame: int, value: Any) -> None:
        """Keep prompts for a frame that is still to come."""
        self.by_frame.setdefault(frame, []).append(value)
        self.given = True

    def forget(self, obj_id: int | None) -> bool:
        """Drop the prompts still to come of one object named by its id, or of all; whether there were any."""
        if obj_id is None:
            self.by_frame = {}
        dropped = False
        for values in self.by_frame.values():
            for i, value in enumerate(values):
                if has_int_keys(value) and obj_id in value:
                    values[i], dropped = {key: item for key, item in value.items() if key != obj_id}, True
        return dropped

    @property
    def ids(self) -> set[int]:
        """The objects that are named by their ids and still to come."""
        values = (value for values in self.by_frame.values() for value in values if has_int_keys(value))
        return {int(obj_id) for value in values for obj_id in value}

    @property
    def frames(self) -> list[int]:
        """The frames with prompts that are still to come."""
        return sorted(frame for frame, values in self.by_frame.items() if not all(is_empty(value) for value in values))

    def moved_to(self, frame: int, backwards: bool) -> list[int]:
        """The frames with prompts that a run passed over on its way to a frame, which then takes them."""
        return [each for each in self.frames if each >= 0 and (each > frame if backwards else each < frame)]

    def pop(self, frame: int, backwards: bool, shape: Size) -> list[Prompts]:
        """Take out the objects prompted on a frame, and on frames before it that were not run."""
        objects = [] if self.first is None else split_objects(parse_prompts(self.first, shape))
        self.first = None
        for number in sorted(self.by_frame, reverse=backwards):
            if number == FIRST_FRAME or (number >= frame if backwards else number <= frame):
                objects += [one for value in self.by_frame.pop(number) for one in read_frame(value, shape)]
        return objects


class VideoPrompts:
    """The prompts of every video of a run: the same for all, one entry a video, or by file name.

    As they were written; `prompts` may be {frame: …}, also inside an entry.
    """

    @bounded_depth()
    def __init__(self, raw: RawPrompts, count: int) -> None:
        raw = raw.loaded()
        prompts = with_int_keys(raw.prompts)
        self.by_frame = prompts if has_int_keys(prompts) else None  # the same in every video
        self.per_video = ImagePrompts(replace(raw, prompts=None if self.by_frame else prompts), count)

    def for_video(self, index: int, file: str) -> FramePrompts:
        """The prompts of one video, by its place in the run and its path."""
        raw = self.per_video.raw_for_image(index, file)
        frames = self.by_frame or raw.prompts
        if not has_int_keys(frames):
            return FramePrompts(raw, given=raw.has_location)
        by_frame = {read_frame_number(frame): [with_names(value, raw.names)] for frame, value in frames.items()}
        return FramePrompts(replace(raw, prompts=None), by_frame, given=True)


def read_frame_number(value: Any) -> int:
    """The number of a frame, from 0; PromptError for anything else."""
    return read_integer("frame_idx", value, least=0)


def is_empty(value: Any) -> bool:
    """Whether prompts are a dict that has become, or was, empty."""
    return isinstance(value, dict) and not value


def has_int_keys(value: Any) -> bool:
    """Whether a dict has numbers for keys: of frames, or of objects on one frame."""
    whole = isinstance(value, dict) and bool(value) and all(isinstance(key, int | np.integer) for key in value)
    return whole and not any(isinstance(key, bool) for key in value)


def with_int_keys(value: Any) -> Any:
    """The same with whole numbers for keys where all keys are digits: JSON and command lines have only text."""
    if isinstance(value, list | tuple):
        return [with_int_keys(item) for item in value] if any(isinstance(item, dict) for item in value) else value
    if not isinstance(value, dict):
        return value
    digits = bool(value) and all(isinstance(key, str) and key.removeprefix("-").isdecimal() for key in value)
    if digits and len({int(key) for key in value}) < len(value):
        reject("prompts", f"the keys {list(value)} name a frame or an object twice", "each number once")
    return {int(key) if digits else key: item if key == "names" else with_int_keys(item) for key, item in value.items()}


def with_names(value: Any, names: Any) -> Any:
    """Prompts of one frame with the class names that were given beside them."""
    if names is None or not isinstance(value, dict):
        return value
    if has_int_keys(value):
        return {key: {"names": names, **item} for key, item in value.items()}
    return {"names": names, **value}


def read_frame(value: Any, shape: Size | None) -> list[Prompts]:
    """The objects of one frame: {obj_id: prompts of that object}, or whatever `prompts=` takes for one image."""
    if value is None or is_empty(value):
        return []
    if has_int_keys(value):
        return [read_object(obj_id, prompts, shape) for obj_id, prompts in value.items()]
    return split_objects(parse_prompts(RawPrompts(prompts=value), shape))


@bounded_depth()
def read_object(obj_id: int, value: Any, shape: Size | None) -> Prompts:
    """The prompts of one object, else a PromptError: its points are (P, 2), labels (P,), box (4,), mask (H, W)."""
    if isinstance(value, dict):
        value = {key: as_list_of_one(key, item) for key, item in value.items()}
    objects = split_objects(parse_prompts(RawPrompts(prompts=value), shape))
    if len(objects) != 1:
        reject("prompts", f"{len(objects)} objects came under the id {obj_id}", "one object an id")
    return replace(objects[0], ids=(read_integer("obj_id", obj_id),))


def split_objects(prompts: Prompts) -> list[Prompts]:
    """Each object of an image by itself with its id (else 0, 1, 2, …), and with its class if one was given."""
    ids = range(len(prompts)) if prompts.ids is None else prompts.ids
    classes = [None] * len(prompts) if prompts.cls is None else [(each,) for each in prompts.cls]
    rows = zip(prompts.objects, classes, ids, strict=True)
    return [Prompts((check_kinds(prompt),), each, prompts.names, (obj_id,)) for prompt, each, obj_id in rows]


def join_objects(objects: Sequence[Prompts]) -> Prompts:
    """The reverse of `split_objects`; classes and ids are kept where all objects have them."""
    cls = tuple(each for one in objects for each in one.cls or ())
    ids = tuple(each for one in objects for each in one.ids or ())
    names = {number: name for one in objects for number, name in (one.names or {}).items()}
    joined = tuple(prompt for one in objects for prompt in one.objects)
    complete = [column if column and len(column) == len(joined) else None for column in (cls, ids)]
    return Prompts(joined, complete[0], names or None, complete[1])


def check_kinds(prompt: Prompt) -> Prompt:
    """Refuse a mask together with clicks or a box: on a frame of a video the mask is the result itself."""
    if prompt.mask is not None and (prompt.box is not None or len(prompt.points)):
        reject("masks", "came together with points or a box", "one kind: a mask, or points, a box or both")
    return prompt


def as_list_of_one(key: str, value: Any) -> Any:
    """An argument of one object as that of an image with one object."""
    if value is None or key not in OBJECT_DEPTH or key == "masks":  # one mask needs no list
        return value
    try:
        depth = np.ndim(to_numpy(value))
    except ValueError:
        reject(key, f"got {describe(value)}", "the prompts of one object")
    for _ in range(OBJECT_DEPTH[key] + 1 - depth):
        value = [value]
    return value
