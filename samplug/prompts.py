"""What the user points at: N objects of one picture, read from every spelling and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.mask_forms import read_masks
from samplug.prompt_batches import Batch, batches_of
from samplug.prompt_forms import (
    LABELS,
    PromptError,
    check_points,
    fit_boxes,
    read_boxes,
    read_classes,
    read_ids,
    read_labels,
    read_names,
    read_points,
    refuse,
)
from samplug.prompt_schedule import Schedule
from samplug.spelled import Spelled
from samplug.view import Size, View

__all__ = ["PictureSchedule", "Prompt", "PromptError", "Prompts", "View", "batches_of", "per_picture"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """One object, in pixels of the picture.

    Attributes:
        points: (P, 2) float32 xy; P may be 0.
        labels: (P,) int64, 1 on the object, 0 off it.
        box: (4,) float32 xyxy, or None.
        mask: (H', W') float32 logits of the picture at any resolution (±10 for a 0/1 mask), or None.
    """

    points: Tensor
    labels: Tensor
    box: Tensor | None = None
    mask: Tensor | None = None

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Number of points, box or not, mask or not: objects of one form run in one batch."""
        return len(self.points), self.box is not None, self.mask is not None


@dataclass(frozen=True, eq=False)
class Prompts:
    """The objects of one picture, in the order given.

    Attributes:
        objects: one `Prompt` per object.
        cls: the class of each, or None where none was given.
        names: class names, or None.
        ids: the id of each, or None.
        given: whether anything was given at all. `bboxes=[]` is given and empty: no objects; nothing given is
            no wish, which the image predictors take as "everything".
    """

    objects: tuple[Prompt, ...] = ()
    cls: tuple[int, ...] | None = None
    names: dict[int, str] | None = None
    ids: tuple[int, ...] | None = None
    given: bool = True

    @staticmethod
    def read(
        *,
        points: Any = None,
        labels: Any = None,
        bboxes: Any = None,
        masks: Any = None,
        prompts: Any = None,
        cls: Any = None,
        names: Any = None,
        obj_ids: Any = None,
        shape: Size | None = None,
    ) -> Prompts:
        """Read the prompts of one picture in any spelling.

        Args:
            points: `[x, y]`, (N, 2) for N objects of one click, (N, P, 2) or ragged lists for several; pixels.
            labels: 1 on the object, 0 off it, -1 for padding, nested like the points; left out means 1.
            bboxes: (4,), (N, 4) xyxy in pixels, with None for an object without; or Ultralytics' `Boxes`.
            masks: (H, W), (N, H, W), lists of any sizes, `Masks`, picture files, polygons, run lengths; 0/1 or logits.
            prompts: a dict of these arguments, a .json file of one, or a YOLO `Results`.
            cls: the class of each object; left out, it is the object's index.
            names: class names, a dict by index or a list.
            obj_ids: an id of its own for each object.
            shape: (H, W) of the picture; coordinates are checked against it where it is known.

        Raises:
            PromptError: naming the argument, what came and what is accepted.
        """
        return read_spelled(Spelled(points, labels, bboxes, masks, prompts, cls, names, obj_ids), shape)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each object: the one given, else the object's index."""
        return tuple(range(len(self))) if self.cls is None else self.cls

    @property
    def class_names(self) -> dict[int, str]:
        """A name for every class in use: the one given, else the number itself."""
        return {index: str(index) for index in self.classes} | (self.names or {})

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Prompts:
        """The chosen objects with their classes and ids; an int gives a `Prompts` of one."""
        if isinstance(index, int):
            index = [index]
        rows = range(len(self))[index] if isinstance(index, slice) else index
        return replace(
            self,
            objects=tuple(self.objects[row] for row in rows),
            cls=tuple(self.classes[row] for row in rows),
            ids=None if self.ids is None else tuple(self.ids[row] for row in rows),
        )

    def batches(self, view: View, owner: int = 0, device: torch.device | str = "cpu") -> list[Batch]:
        """The objects as even batches for the decoder: see `batches_of`."""
        return batches_of([self], [view], [owner], device)


def read_spelled(spelled: Spelled, shape: Size | None) -> Prompts:
    """One picture's prompts from the arguments as they were written."""
    spelled = spelled.unpacked(shape)
    names = read_names(spelled.names)
    if spelled.labels is not None and spelled.points is None:
        refuse("labels", "came without points", LABELS)
    if not spelled.points_at_something:
        for name in ("cls", "obj_ids"):
            if getattr(spelled, name) is not None:
                refuse(name, "came without points, bboxes or masks", "one for each object that those point at")
        return Prompts(names=names, given=False)
    objects = read_objects(spelled, shape)
    cls, ids = read_classes(spelled.cls, len(objects)), read_ids(spelled.obj_ids, len(objects))
    return Prompts(tuple(objects), cls, names, ids)


def read_objects(spelled: Spelled, shape: Size | None) -> list[Prompt]:
    """Points, boxes and masks brought together, object by object."""
    columns: dict[str, Sequence[Any]] = {}
    if spelled.points is not None:
        columns["points"] = read_clicks(spelled, shape)
    if spelled.bboxes is not None:
        boxes = read_boxes(spelled.bboxes)
        columns["bboxes"] = boxes if shape is None else fit_boxes(boxes, shape)
    if spelled.masks is not None:
        columns["masks"] = read_masks(spelled.masks, shape)
    count = agreed_count(columns)
    absent: list[None] = [None] * count
    rows = zip(*(columns.get(name, absent) for name in ("points", "bboxes", "masks")), strict=True)
    return [one_object(i, *row) for i, row in enumerate(rows)]


def read_clicks(spelled: Spelled, shape: Size | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(P, 2) points and (P,) labels of each object, padding dropped."""
    points = read_points(spelled.points)
    labels = read_labels(spelled.labels, [len(clicks) for clicks in points])
    kept = [label >= 0 for label in labels]
    points = [clicks[keep] for clicks, keep in zip(points, kept, strict=True)]
    if shape is not None:
        check_points(points, shape)
    return [(clicks, label[keep]) for clicks, label, keep in zip(points, labels, kept, strict=True)]


def agreed_count(columns: dict[str, Sequence[Any]]) -> int:
    """The number of objects, when all arguments have as many."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        came = " and ".join(f"{name} of {count} objects" for name, count in counts.items())
        accepted = (
            "one entry per object in each, None where an object has none; (N, 2) points mean N objects of one click: "
            "wrap them once more, [[[x, y], [x, y]]], to give one object all of them"
        )
        refuse(" and ".join(counts), f"got {came}", accepted)
    return next(iter(counts.values()))


def one_object(
    index: int, clicks: tuple[np.ndarray, np.ndarray] | None, box: np.ndarray | None, mask: Tensor | None
) -> Prompt:
    """One object's parts as tensors; at least one must be there."""
    points, labels = clicks or (np.zeros((0, 2)), np.zeros(0))
    if not len(points) and box is None and mask is None:
        refuse("prompts", f"object {index} has no point, no box and no mask", "something to go by for each object")
    return Prompt(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
        None if box is None else torch.from_numpy(box.astype(np.float32)),
        mask,
    )


# ------------------------------------------------------------------ several pictures


class PictureSchedule:
    """The prompts of each picture of a run, read when its turn comes.

    By default every picture gets the same. One entry per picture is understood when `prompts` is a list, and when
    `points`, `bboxes` or `masks` nest once more than one picture's or, one for each picture, hold None for some of
    them. Prompts by file are a dict of paths or file names.

    Args:
        count: the number of pictures, or None where it is not known (streams); then entries are taken by index.
        spellings: the arguments of `Prompts.read`, less `shape`.
    """

    def __init__(self, count: int | None = None, **spellings: Any) -> None:
        self.schedule = Schedule.plan(Spelled(**spellings), count)

    def prompts_of(self, index: int, file: str | Path | None = None, shape: Size | None = None) -> Prompts:
        """The prompts of one picture, by its place in the run, its path and its (H, W).

        A picture whose entry is None has `given` False; one that prompts by file do not name has no objects.
        """
        return read_spelled(self.schedule.at(index, file), shape)

    def check_shared(self) -> None:
        """Refuse prompts that are wrong whatever the picture, where all pictures get the same."""
        if not self.schedule.single and self.schedule.by_file is None:
            read_spelled(self.schedule.shared, None)


def per_picture(
    count: int, files: Sequence[str | Path], shapes: Sequence[Size] | None = None, **spellings: Any
) -> list[Prompts]:
    """The prompts of all pictures of a batch: `PictureSchedule` read out at once.

    Args:
        count: the number of pictures.
        files: their paths or names.
        shapes: their (H, W), where coordinates are to be checked.
        spellings: the arguments of `Prompts.read`, less `shape`.

    Raises:
        PromptError: also when a list has another length than there are pictures, or a file is none of them.
    """
    pictures = PictureSchedule(count, **spellings)
    pictures.schedule.check_files(files)
    sizes: Sequence[Size | None] = shapes if shapes is not None else [None] * count
    return [pictures.prompts_of(i, file, size) for i, (file, size) in enumerate(zip(files, sizes, strict=True))]
