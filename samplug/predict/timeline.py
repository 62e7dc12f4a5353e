"""Prompts over time: which objects are prompted on which frame of which video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from samplug.prompt_forms import describe, plain, read_ids, refuse
from samplug.prompt_schedule import Schedule
from samplug.prompts import Prompt, Prompts
from samplug.spelled import Spelled, from_json
from samplug.view import Size

ONE_OBJECT = {"points": 2, "labels": 1, "bboxes": 1, "cls": 0}  # how deep the arguments of one object nest
Spelling = dict[str, Any]


@dataclass
class Timeline:
    """The prompts of one video, still as they were written: coordinates are checked when their frame comes.

    Attributes:
        opening: those for the first frame that is run, until it came.
        later: those for a frame by its number.
        given: whether there ever were any; `bboxes=[]` is given, and means no objects.
    """

    opening: Spelled | None = None
    later: dict[int, list[Any]] = field(default_factory=dict)
    given: bool = False

    def open(self, other: Timeline) -> None:
        """Take in the prompts that the run began with; those added before it stay."""
        self.opening, self.given = other.opening, self.given or other.given
        for frame, values in other.later.items():
            self.later.setdefault(frame, [])[:0] = values

    def add(self, frame: int, value: Any) -> None:
        """Keep prompts for a frame that is still to come."""
        self.later.setdefault(frame, []).append(value)
        self.given = True

    def forget(self, obj_id: int | None) -> bool:
        """Drop what is still to come of one object named by its id, or of all; whether there was any."""
        if obj_id is None:
            self.later = {}
        dropped = False
        for values in self.later.values():
            for i, value in enumerate(values):
                if by_number(value) and obj_id in value:
                    values[i], dropped = {key: item for key, item in value.items() if key != obj_id}, True
        return dropped

    @property
    def ids(self) -> set[int]:
        """The objects that are named by their ids and still to come."""
        return {
            int(obj_id) for values in self.later.values() for value in values if by_number(value) for obj_id in value
        }

    @property
    def frames(self) -> list[int]:
        """The frames with prompts that are still to come."""
        return sorted(
            number
            for number, values in self.later.items()
            if not all(isinstance(value, dict) and not value for value in values)
        )

    def due(self, frame: int, backwards: bool, shape: Size) -> list[Prompts]:
        """Take the objects whose turn has come on a frame: its own, and those of frames passed over on the way."""
        chosen = [] if self.opening is None else read_spelled(self.opening, shape)
        self.opening = None
        for number in sorted(self.later, reverse=backwards):
            if number >= frame if backwards else number <= frame:
                chosen += [one for value in self.later.pop(number) for one in read_frame(value, shape)]
        return chosen


class Timelines:
    """The prompts of every video of a run: the same for all, one entry a video, or by file name.

    Args:
        count: the number of videos.
        spellings: the arguments of `Prompts.read`, less `shape`; `prompts` may be {frame: …}, also inside an entry.
    """

    def __init__(self, count: int, **spellings: Any) -> None:
        given = Spelled(**spellings)
        if isinstance(given.prompts, str | Path):
            given = replace(given, prompts=from_json(Path(given.prompts)))
        given = replace(given, prompts=with_numbers(given.prompts))
        self.shared = given.prompts if by_number(given.prompts) else None
        self.schedule = Schedule.plan(replace(given, prompts=None) if self.shared is not None else given, count)

    def of(self, index: int, file: str) -> Timeline:
        """The prompts of one video, by its place and its path."""
        spelled = self.schedule.at(index, file)
        frames = self.shared if self.shared is not None else spelled.prompts
        if not by_number(frames):
            return Timeline(spelled, given=spelled.points_at_something)
        names = {"names": spelled.names} if spelled.names is not None else {}
        later = {int(frame): [with_names(value, names)] for frame, value in frames.items()}
        return Timeline(replace(spelled, prompts=None), later, given=True)


def by_number(value: Any) -> bool:
    """Whether a dict has numbers for keys: of frames, or of objects on one frame."""
    return isinstance(value, dict) and bool(value) and all(isinstance(key, int | np.integer) for key in value)


def with_numbers(value: Any) -> Any:
    """The same with numbers for keys where a dict has nothing but digits: JSON and command lines know only text."""
    if isinstance(value, list | tuple):
        return [with_numbers(item) for item in value] if any(isinstance(item, dict) for item in value) else value
    if not isinstance(value, dict):
        return value
    digits = bool(value) and all(isinstance(key, str) and key.lstrip("-").isdecimal() for key in value)
    return {int(key) if digits else key: item if key == "names" else with_numbers(item) for key, item in value.items()}


def with_names(value: Any, names: Spelling) -> Any:
    """Prompts of one frame with the class names that were given beside them."""
    if not names or not isinstance(value, dict):
        return value
    return {key: {**names, **item} for key, item in value.items()} if by_number(value) else {**names, **value}


def read_spelled(spelled: Spelled, shape: Size | None) -> list[Prompts]:
    """The objects of one picture, one by one, with the ids 0, 1, 2, … where none are given."""
    return one_by_one(Prompts.read(**{name: getattr(spelled, name) for name in spelled.given}, shape=shape))


def read_frame(value: Any, shape: Size | None) -> list[Prompts]:
    """The objects of one frame: {obj_id: prompts of that object}, or whatever `prompts=` takes for one picture."""
    if value is None or value == {}:
        return []
    if by_number(value):
        return [read_object(obj_id, spelling, shape) for obj_id, spelling in value.items()]
    return one_by_one(Prompts.read(prompts=value, shape=shape))


def read_object(obj_id: int, spelling: Any, shape: Size | None) -> Prompts:
    """The prompts of one object: its points are (P, 2), its labels (P,), its box (4,), its mask (H, W).

    Raises:
        PromptError: not one object, or a fault that `Prompts.read` finds.
    """
    if isinstance(spelling, dict):
        spelling = {key: nested(key, value) for key, value in spelling.items()}
    objects = one_by_one(Prompts.read(prompts=spelling, shape=shape))
    if len(objects) != 1:
        refuse("prompts", f"{len(objects)} objects came under the id {obj_id}", "one object an id")
    return replace(objects[0], ids=read_ids([int(obj_id)], 1))


def one_by_one(prompts: Prompts) -> list[Prompts]:
    """Each object by itself with its id, and with its class if one was given."""
    ids = range(len(prompts)) if prompts.ids is None else prompts.ids
    classes = [None] * len(prompts) if prompts.cls is None else [(each,) for each in prompts.cls]
    rows = zip(prompts.objects, classes, ids, strict=True)
    return [Prompts((one_kind(prompt),), each, prompts.names, (obj_id,)) for prompt, each, obj_id in rows]


def together(few: Sequence[Prompts]) -> Prompts:
    """Objects that came one by one as those of a picture; classes and ids are kept where all have them."""
    objects = tuple(prompt for one in few for prompt in one.objects)
    cls = [each for one in few for each in one.cls or ()]
    ids = [each for one in few for each in one.ids or ()]
    names = {number: name for one in few for number, name in (one.names or {}).items()}
    columns = [tuple(column) if column and len(column) == len(objects) else None for column in (cls, ids)]
    return Prompts(objects, columns[0], names or None, columns[1])


def one_kind(prompt: Prompt) -> Prompt:
    """Refuse a mask together with clicks or a box: in a video a mask is the answer itself."""
    if prompt.mask is not None and (prompt.box is not None or len(prompt.points)):
        refuse("masks", "came together with points or a box", "one kind: a mask, or points, a box or both")
    return prompt


def nested(key: str, value: Any) -> Any:
    """One object's argument as a list of one."""
    if value is None or key not in ONE_OBJECT:
        return value
    try:
        depth = np.ndim(plain(value))
    except ValueError:
        refuse(key, f"got {describe(value)}", "what one object has")
    for _ in range(ONE_OBJECT[key] + 1 - depth):
        value = [value]
    return value
