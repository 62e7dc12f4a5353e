"""Objects prompted on some images, to be found in others: SAM 2's memory without a video.

No image comes before another, so each counts as a prompted frame, and there are no pointers. N objects, D memory
channels, (h, w) the grid of features, L = h·w.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samplug.nn.constants import FEATURE_STRIDE
from samplug.nn.memory.frames import MemoryContext


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """The memories of one image."""

    name: str  # the image's path
    ids: tuple[int, ...]  # the objects that were prompted on it
    memories: Tensor  # (N, L, D), an object a row
    presence: tuple[float, ...]  # a logit for each; one not above 0 is remembered as absent from this image
    grid: tuple[int, int]  # (h, w) of the image's features

    def without(self, obj_id: int) -> MemoryEntry:
        """The same with one object less."""
        rows = [row for row, each in enumerate(self.ids) if each != obj_id]
        ids, presence = tuple(self.ids[row] for row in rows), tuple(self.presence[row] for row in rows)
        return replace(self, ids=ids, memories=self.memories[rows], presence=presence)


class MemoryBank:
    """The images on which objects were prompted, oldest first, and the objects.

    Attributes:
        entries: the images.
        slots: the object in each slot, None in a free one; a new object takes the first free slot, or a slot is added.
        classes: the class of each object that was given one.
        names: names of classes.
    """

    def __init__(self, slots: int = 3) -> None:
        self.entries: list[MemoryEntry] = []
        self.slots: list[int | None] = [None] * slots
        self.classes: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[MemoryEntry]:
        return iter(self.entries)

    def __getitem__(self, image: int) -> MemoryEntry:
        return self.entries[image]

    @property
    def known(self) -> tuple[int, ...]:
        """All objects, in the order of the slots."""
        return tuple(obj_id for obj_id in self.slots if obj_id is not None)

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects with a memory on any image, in the order of the slots."""
        remembered = {obj_id for entry in self.entries for obj_id in entry.ids}
        return tuple(obj_id for obj_id in self.known if obj_id in remembered)

    def select_ids(self, wanted: Collection[int] | None = None) -> tuple[int, ...]:
        """Select objects, all if None, in the order of the slots.

        RuntimeError if the bank is empty, ValueError if one of them has no memory, or none is selected.
        """
        ids = self.ids
        if not ids:
            raise RuntimeError("The memory bank is empty: give prompts, obj_ids and update_memory=True first.")
        chosen = set(ids if wanted is None else wanted)
        if not chosen:
            raise ValueError(f"obj_ids names no object: give some of {list(ids)}, or leave it out for all.")
        if unknown := sorted(chosen - set(ids)):
            raise ValueError(f"There is no memory of the objects {unknown}; those in memory are {list(ids)}.")
        return tuple(obj_id for obj_id in ids if obj_id in chosen)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Raise a ValueError for features of another size than those in memory."""
        for entry in self.entries:
            if entry.grid != grid:
                made, now = ([FEATURE_STRIDE * side for side in each] for each in (entry.grid, grid))
                raise ValueError(f"Memory was made with imgsz={made}, this is imgsz={now}: use one size, or reset().")

    def add(self, entry: MemoryEntry) -> None:
        """Add an image; its new objects get slots, the free ones first."""
        for obj_id in entry.ids:
            if obj_id not in self.slots:
                if None not in self.slots:
                    self.slots.append(None)
                self.slots[self.slots.index(None)] = obj_id
        self.entries.append(entry)

    def memory_context(self, obj_id: int, time_row: int) -> MemoryContext:
        """All memories of an object, in one row of the time embedding, and no pointers."""
        found = [(entry, entry.ids.index(obj_id)) for entry in self.entries if obj_id in entry.ids]
        memories = torch.stack([entry.memories[[row]] for entry, row in found], dim=1)
        slots = torch.full((1, len(found)), time_row, device=memories.device)
        times = torch.zeros(1, 0, device=memories.device)
        return MemoryContext(memories, slots, memories.new_zeros(1, 0, memories.shape[-1]), times)

    def forget(self, obj_id: int | None = None, image: int | None = None) -> None:
        """Forget an object, or all, on one image, or on all; the objects keep their slots, ids and classes.

        ValueError if there is no such object, IndexError if there is no such image.
        """
        if obj_id is not None and obj_id not in self.slots:
            raise ValueError(f"There is no object {obj_id}; the objects are {list(self.known)}.")
        if image is not None and not -len(self) <= image < len(self):
            raise IndexError(f"There is no image {image}: the memory bank has {len(self)}, and 0 is the first.")
        for i in range(len(self)) if image is None else [image % len(self)]:
            entry = self.entries[i]
            self.entries[i] = replace(entry, ids=()) if obj_id is None else entry.without(obj_id)
        self.entries = [entry for entry in self.entries if entry.ids]

    def remove(self, obj_id: int) -> None:
        """Forget an object and free its slot; ValueError if there is no such object."""
        self.forget(obj_id)
        self.slots[self.slots.index(obj_id)] = None
        self.classes.pop(obj_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self.entries, self.slots, self.classes, self.names = [], [None] * len(self.slots), {}, {}

    @contextmanager
    def restored_on(self, error: type[BaseException]) -> Iterator[None]:
        """Restore the bank if the block raises such an error."""
        before = {name: copy(value) for name, value in vars(self).items()}
        try:
            yield
        except error:
            vars(self).update(before)
            raise
