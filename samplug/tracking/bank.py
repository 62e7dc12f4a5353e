"""Objects shown on pictures, to be found in others: SAM 2's memory without a video.

No picture comes before another, so each counts as a prompted frame, and there are no pointers. N objects, K pictures of
an object, F pictures to search, C channels, D memory channels, (h, w) the grid of features, L = h·w.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.embeddings import STRIDE
from samplug.nn.frames import FrameOutput, Past
from samplug.nn.inputs import enlarged, one_owner, padded
from samplug.nn.layers import sine_positions
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.tracking.parts import InSlices, all_at_once, in_parts


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is remembered of one picture.

    Attributes:
        name: the picture's path.
        ids: the objects that were shown on it; of others nothing is known here.
        memories: (N, L, D), an object a row.
        presence: a logit for each object; one that is not above 0 is remembered as absent from this picture.
        grid: (h, w) of the picture's features.
    """

    name: str
    ids: tuple[int, ...]
    memories: Tensor
    presence: tuple[float, ...]
    grid: tuple[int, int]

    def without(self, obj_id: int) -> Lesson:
        """The same with one object less."""
        rows = [row for row, each in enumerate(self.ids) if each != obj_id]
        ids, presence = tuple(self.ids[row] for row in rows), tuple(self.presence[row] for row in rows)
        return replace(self, ids=ids, memories=self.memories[rows], presence=presence)


class MemoryBank:
    """The pictures on which objects were shown, oldest first, and the objects.

    Attributes:
        lessons: the pictures.
        slots: the object in each place, None where there is none; a new object takes the first free place, or another
            one is added.
        classes: the class of each object that was given one.
        names: names of classes.
    """

    def __init__(self, slots: int = 3) -> None:
        self.lessons: list[Lesson] = []
        self.slots: list[int | None] = [None] * slots
        self.classes: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.lessons)

    def __iter__(self) -> Iterator[Lesson]:
        return iter(self.lessons)

    def __getitem__(self, picture: int) -> Lesson:
        return self.lessons[picture]

    @property
    def known(self) -> tuple[int, ...]:
        """Every object, in the order of the slots."""
        return tuple(obj_id for obj_id in self.slots if obj_id is not None)

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects that are remembered on any picture, in the order of the slots."""
        remembered = {obj_id for picture in self.lessons for obj_id in picture.ids}
        return tuple(obj_id for obj_id in self.known if obj_id in remembered)

    def chosen(self, wanted: Collection[int] | None = None) -> tuple[int, ...]:
        """The objects that are meant, all if None, in the order of the slots.

        Raises:
            RuntimeError: nothing is remembered.
            ValueError: nothing is remembered of one of them, or none is meant.
        """
        ids = self.ids
        if not ids:
            raise RuntimeError("Nothing has been shown yet: give prompts, obj_ids and update_memory=True first.")
        chosen = set(ids if wanted is None else wanted)
        if not chosen:
            raise ValueError(f"obj_ids names no object: give some of {list(ids)}, or leave it out for all.")
        if unknown := sorted(chosen - set(ids)):
            raise ValueError(f"Nothing is remembered of the objects {unknown}; those in memory are {list(ids)}.")
        return tuple(obj_id for obj_id in ids if obj_id in chosen)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Refuse features of another size than those that memories were made of: ValueError."""
        for picture in self.lessons:
            if picture.grid != grid:
                made, now = ([STRIDE * side for side in each] for each in (picture.grid, grid))
                raise ValueError(f"Memory was made with imgsz={made}, this is imgsz={now}: use one size, or reset().")

    def add(self, picture: Lesson) -> None:
        """Remember a picture, and give places to the objects that are new."""
        for obj_id in picture.ids:
            self.place(obj_id)
        self.lessons.append(picture)

    def classify(self, ids: Sequence[int], classes: Sequence[int] | None, names: Mapping[int, str] | None) -> None:
        """Take the classes that objects were given, and names of classes."""
        self.classes |= dict(zip(ids, classes, strict=True)) if classes is not None else {}
        self.names |= names or {}

    def place(self, obj_id: int) -> int:
        """The place of an object, a free one or another one if it is new."""
        if obj_id not in self.slots:
            if None not in self.slots:
                self.slots.append(None)
            self.slots[self.slots.index(None)] = obj_id
        return self.slots.index(obj_id)

    def past(self, obj_id: int, slot: int) -> Past:
        """All memories of an object, in one row of the time embedding, and no pointers."""
        memories = torch.stack([p.memories[[p.ids.index(obj_id)]] for p in self.lessons if obj_id in p.ids], dim=1)
        count, device = memories.shape[1], memories.device
        slots = torch.full((1, count), slot, device=device)
        return Past(memories, slots, memories.new_zeros(1, 0, memories.shape[-1]), torch.zeros(1, 0, device=device))

    def forget(self, obj_id: int | None = None, picture: int | None = None) -> None:
        """Forget an object, or all, on one picture, or on all; the objects keep their places, ids and classes.

        Raises:
            ValueError: there is no such object.
            IndexError: there is no such picture.
        """
        self._check(obj_id)
        if picture is not None and not -len(self) <= picture < len(self):
            raise IndexError(f"There is no picture {picture}: {len(self)} were shown, 0 is the first.")
        chosen = range(len(self)) if picture is None else [picture % len(self)]
        for i in chosen:
            self.lessons[i] = (
                self.lessons[i].without(obj_id) if obj_id is not None else replace(self.lessons[i], ids=())
            )
        self.lessons = [each for each in self.lessons if each.ids]

    def remove(self, obj_id: int) -> None:
        """Forget an object altogether; its place is free.

        Raises:
            ValueError: there is no such object.
        """
        self.forget(obj_id)
        self.slots[self.slots.index(obj_id)] = None
        self.classes.pop(obj_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self.lessons, self.slots, self.classes, self.names = [], [None] * len(self.slots), {}, {}

    @contextmanager
    def unchanged_by(self, error: type[BaseException]) -> Iterator[None]:
        """Be as before, if the block ends with such an error."""
        before = {name: copy(value) for name, value in vars(self).items()}
        try:
            yield
        except error:
            vars(self).update(before)
            raise

    def _check(self, obj_id: int | None) -> None:
        if obj_id is not None and obj_id not in self.slots:
            raise ValueError(f"There is no object {obj_id}; the objects are {list(self.known)}.")


@torch.no_grad()
def show(
    model: SAM2Model, features: Features, prompts: PromptBatch | None = None, mask: Tensor | None = None
) -> FrameOutput:
    """Answer one object's prompt without any memory, with a single mask.

    Args:
        model: the network.
        features: `model.see` of the picture.
        prompts: clicks and a box of one object.
        mask: instead of these, its mask (16h, 16w), 1 on the object and 0 off it.
    """
    owner = torch.zeros(1, dtype=torch.int64, device=features.image.device)
    if mask is not None and model.use_mask_input_as_output_without_sam:
        return model.take_mask(features, mask[None, None], owner)
    given = prompts or PromptBatch(owner)
    if mask is not None:
        size = [4 * side for side in features.grid]
        given = replace(given, masks=F.interpolate(mask[None, None], size=size, mode="bilinear", antialias=True))
    return model.settle(model.answer(model.without_past(features), padded(given)))


@torch.no_grad()
def remember(
    model: SAM2Model,
    features: Features,
    ids: Sequence[int],
    answers: Sequence[FrameOutput],
    name: str = "",
    in_slices: InSlices = all_at_once,
) -> Lesson:
    """Make the memories of the objects shown on a picture from the answers to their prompts, so many at once."""
    answer = FrameOutput.cat(answers)
    owner = torch.zeros(len(answer), dtype=torch.int64, device=features.image.device)
    logits = answer.logits
    if model.non_overlap_masks_for_mem_enc:
        logits = one_owner(enlarged(logits[:, None], features.grid), owner)[:, 0]

    def memories(rows: Sequence[int]) -> Tensor:
        some = list(rows)
        return model.remember(features, logits[some], answer.presence[some], owner[some], prompted=True)

    batches = even_batches([0] * len(answer), features)
    made = [memory for rows in batches for _, memory in in_parts(rows, memories, in_slices)]
    return Lesson(name, tuple(ids), torch.cat(made), tuple(answer.presence.tolist()), features.grid)


@torch.no_grad()
def find(model: SAM2Model, features: Features, pasts: Sequence[Past], in_slices: InSlices = all_at_once) -> FrameOutput:
    """Find N objects in a picture (F = 1), with a single mask each; so many at once."""

    def search(rows: Sequence[int]) -> FrameOutput:
        return _find(model, features, Past.cat([pasts[row] for row in rows]))

    batches = even_batches([past.memories.shape[1] for past in pasts], features)
    answers = [answer for rows in batches for _, answer in in_parts(rows, search, in_slices)]
    order = torch.tensor([row for rows in batches for row in rows], device=features.image.device)
    return FrameOutput.cat(answers)[order.argsort()]


def even_batches(sizes: Sequence[int], features: Features) -> list[list[int]]:
    """The rows that run together: those of one size, or each alone on a CPU, where none is to hear of another."""
    batches: dict[int, list[int]] = {}
    for row, size in enumerate(sizes):
        batches.setdefault(size if features.image.is_cuda else row, []).append(row)
    return list(batches.values())


def _find(model: SAM2Model, features: Features, past: Past) -> FrameOutput:
    count, device = len(past.memories), features.image.device
    seen = model.look_back(features, past, torch.zeros(count, dtype=torch.int64, device=device))
    nothing = PromptBatch(torch.arange(count, device=device))
    return model.settle(model.answer(seen, padded(nothing)))


def tokens(model: SAM2Model, past: Past, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Memories as the memory attention reads them: tokens (N, K·L, D) and their positions."""
    where = sine_positions(grid, model.mem_dim, past.memories.device).to(past.memories.dtype).flatten(2).mT
    positions = where + model.maskmem_tpos_enc.flatten(1)[past.slots][:, :, None]
    return past.memories.flatten(1, 2), positions.flatten(1, 2)
