"""The prompts of one image: N objects, read from every spelling and checked; in batches for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.errors import reject
from samplug.nn.structs import PromptBatch
from samplug.prompts.coords import (
    EXPECTED_LABELS,
    check_points,
    fit_boxes,
    read_boxes,
    read_classes,
    read_ids,
    read_labels,
    read_names,
    read_points,
)
from samplug.prompts.masks import read_masks
from samplug.prompts.raw import RawPrompts, bounded_depth
from samplug.transforms import MASK_STRIDE, ImageTransform, Size


@dataclass(frozen=True, eq=False)
class Prompt:
    """One object, in pixels of the image."""

    points: Tensor  # (P, 2) float32 xy; P may be 0
    labels: Tensor  # (P,) int64, 1 on the object, 0 off it
    box: Tensor | None = None  # (4,) float32 xyxy
    mask: Tensor | None = None  # (H', W') float32 logits of the image at any resolution (±10 for a 0/1 mask)

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Number of points, box or not, mask or not: objects of one form run in one batch."""
        return len(self.points), self.box is not None, self.mask is not None


@dataclass(frozen=True, eq=False)
class Prompts:
    """The objects of one image, in the order given.

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
        *, points: Any = None, labels: Any = None, bboxes: Any = None, masks: Any = None, prompts: Any = None,
        cls: Any = None, names: Any = None, obj_ids: Any = None, shape: Size | None = None,
    ) -> Prompts:  # fmt: skip
        """Read the prompts of one image in any spelling.

        Args:
            points: `[x, y]`, (N, 2) for N objects of one click, (N, P, 2) or ragged lists for several; pixels.
            labels: 1 on the object, 0 off it, -1 for padding, nested like the points; left out means 1.
            bboxes: (4,), (N, 4) xyxy in pixels, with None for an object without; or Ultralytics' `Boxes`.
            masks: (H, W), (N, H, W), lists of any sizes, `Masks`, image files, polygons, run lengths; 0/1 or logits.
            prompts: a dict of these arguments, a .json file of one, or a YOLO `Results`.
            cls: the class of each object; left out, it is the object's index.
            names: class names, a dict by index or a list.
            obj_ids: an id of its own for each object.
            shape: (H, W) of the image; coordinates are checked against it where it is known.

        Raises:
            PromptError: naming the argument, what came and what was expected.
        """
        return parse_prompts(RawPrompts(points, labels, bboxes, masks, prompts, cls, names, obj_ids), shape)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each object: the one given, else the object's index."""
        return tuple(range(len(self.objects))) if self.cls is None else self.cls

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


@bounded_depth()
def parse_prompts(raw: RawPrompts, shape: Size | None) -> Prompts:
    """One image's prompts from the arguments as they were written; `Prompts` that were read before stay as they are."""
    if isinstance(raw.prompts, Prompts):
        return raw.prompts
    raw = raw.unpacked(shape)
    names = read_names(raw.names)
    if raw.labels is not None and raw.points is None:
        reject("labels", "came without points", EXPECTED_LABELS)
    if not raw.has_location:
        for name in ("cls", "obj_ids"):
            if name in raw.given:
                reject(name, "came without points, bboxes or masks", "one for each object that those point at")
        return Prompts(names=names, given=False)
    objects = read_objects(raw, shape)
    cls, ids = read_classes(raw.cls, len(objects)), read_ids(raw.obj_ids, len(objects))
    return Prompts(tuple(objects), cls, names, ids)


def read_objects(raw: RawPrompts, shape: Size | None) -> list[Prompt]:
    """Points, boxes and masks brought together, object by object."""
    columns: dict[str, Sequence[Any]] = {}
    if raw.points is not None:
        columns["points"] = read_clicks(raw, shape)
    if raw.bboxes is not None:
        boxes = read_boxes(raw.bboxes)
        columns["bboxes"] = boxes if shape is None else fit_boxes(boxes, shape)
    if raw.masks is not None:
        columns["masks"] = read_masks(raw.masks, shape)
    count = agreed_count(columns)
    absent: list[None] = [None] * count
    rows = zip(*(columns.get(name, absent) for name in ("points", "bboxes", "masks")), strict=True)
    return [one_object(i, *row) for i, row in enumerate(rows)]


def read_clicks(raw: RawPrompts, shape: Size | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(P, 2) points and (P,) labels of each object, padding dropped."""
    points = read_points(raw.points)
    labels = read_labels(raw.labels, list(map(len, points)))
    clicks = [(xy[label >= 0], label[label >= 0]) for xy, label in zip(points, labels, strict=True)]
    if shape is not None:
        check_points([xy for xy, _ in clicks], shape)
    return clicks


def agreed_count(columns: dict[str, Sequence[Any]]) -> int:
    """The number of objects, when all arguments have as many."""
    counts = dict(zip(columns, map(len, columns.values()), strict=True))
    if len(set(counts.values())) > 1:
        came = " and ".join(f"{name} of {count} objects" for name, count in counts.items())
        expected = (
            "one entry per object in each, None where an object has none; (N, 2) points mean N objects of one click: "
            "wrap them once more, [[[x, y], [x, y]]], to give one object all of them"
        )
        reject(" and ".join(counts), f"got {came}", expected)
    return next(iter(counts.values()))


def one_object(
    index: int, clicks: tuple[np.ndarray, np.ndarray] | None, box: np.ndarray | None, mask: Tensor | None
) -> Prompt:
    """One object's parts as tensors; at least one must be there."""
    points, labels = clicks or (np.zeros((0, 2)), np.zeros(0))
    if not len(points) and box is None and mask is None:
        reject("prompts", f"object {index} has no point, no box and no mask", "something to go by for each object")
    return Prompt(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
        None if box is None else torch.from_numpy(box.astype(np.float32)),
        mask,
    )


# In batches for the decoder


def prompt_batches(
    images: Sequence[Prompts], transforms: Sequence[ImageTransform], device: torch.device | str = "cpu"
) -> list[tuple[Tensor, PromptBatch]]:
    """Batch the objects of several images by form: the same kinds of prompts, the same number of points.

    Returns:
        `(rows, batch)` pairs, in the order of their first objects; `rows` (n,) int64 are the objects' indices, counted
        over all images, so `outputs[rows] = output` restores the order.
    """
    objects = [
        (prompt, transform, image_index)
        for image_index, (prompts, transform) in enumerate(zip(images, transforms, strict=True))
        for prompt in prompts.objects
    ]
    forms: dict[tuple[int, bool, bool], list[int]] = {}
    for row, (prompt, _, _) in enumerate(objects):
        forms.setdefault(prompt.form, []).append(row)
    return [
        (torch.tensor(rows).to(device, non_blocking=True), stack_prompts([objects[row] for row in rows], device))
        for rows in forms.values()
    ]


def stack_prompts(members: Sequence[tuple[Prompt, ImageTransform, int]], device: torch.device | str) -> PromptBatch:
    """Objects of one form as a `PromptBatch`, in pixels of the network's input; it does not wait for a GPU."""
    image_index = torch.tensor([image_index for _, _, image_index in members])
    points = labels = None
    if len(members[0][0].points):
        points = torch.stack([transform.points_to_input(prompt.points) for prompt, transform, _ in members])
        labels = torch.stack([prompt.labels for prompt, _, _ in members])
    boxes = [transform.boxes_to_input(prompt.box) for prompt, transform, _ in members if prompt.box is not None]
    boxed = torch.stack(boxes) if boxes else None
    batch = PromptBatch(image_index, points, labels, boxed, fitted_masks(members))
    return batch.apply(lambda column: column.to(device, non_blocking=True))


def fitted_masks(members: Sequence[tuple[Prompt, ImageTransform, int]]) -> Tensor | None:
    """The masks of objects that have one, (N, 1, 4h, 4w); written in place: many small tensors fragment memory."""
    given = [(prompt.mask, transform) for prompt, transform, _ in members if prompt.mask is not None]
    if not given:
        return None
    height, width = given[0][1].input_size
    masks = torch.empty(len(given), 1, height // MASK_STRIDE, width // MASK_STRIDE)
    for row, (mask, transform) in zip(masks, given, strict=True):
        row[0] = transform.mask_to_input(mask)
    return masks
