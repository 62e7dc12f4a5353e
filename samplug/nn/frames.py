"""What a tracker keeps of objects: their answer on a frame, and what they look back at.

N objects, M memories, P pointers, C channels, D memory channels, (h, w) the grid of features, L = h·w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from samplug.nn.recall import Recall
from samplug.nn.types import Index, take


@dataclass(frozen=True, eq=False)
class FrameOutput:
    """The answer on one frame for N objects.

    Attributes:
        logits: (N, 4h, 4w) float32, above 0 on the object.
        pointer: (N, C), the object in one token.
        presence: (N,) logit, above 0 where the object is visible.
        iou: (N,) predicted overlap with the true mask.
        memory: (N, L, D), once it was made.
    """

    logits: Tensor
    pointer: Tensor
    presence: Tensor
    iou: Tensor
    memory: Tensor | None = None

    def __len__(self) -> int:
        return self.logits.shape[0]

    def __getitem__(self, index: Index) -> FrameOutput:
        """The chosen objects, copied: a view would keep the whole batch alive."""
        logits, pointer, presence, iou = (
            take(field, index).clone() for field in (self.logits, self.pointer, self.presence, self.iou)
        )
        memory = take(self.memory, index)
        return FrameOutput(logits, pointer, presence, iou, None if memory is None else memory.clone())

    @staticmethod
    def cat(parts: Sequence[FrameOutput]) -> FrameOutput:
        """Join objects of one frame; all have a memory or none has."""
        memories = [part.memory for part in parts if part.memory is not None]
        return FrameOutput(
            logits=torch.cat([part.logits for part in parts]),
            pointer=torch.cat([part.pointer for part in parts]),
            presence=torch.cat([part.presence for part in parts]),
            iou=torch.cat([part.iou for part in parts]),
            memory=torch.cat(memories) if memories else None,
        )


class Remembered(Protocol):
    """A record that can be looked back at: a memory (N, L, D) and a pointer (N, C)."""

    @property
    def memory(self) -> Tensor | None: ...  # noqa: D102
    @property
    def pointer(self) -> Tensor: ...  # noqa: D102


def memory_of(record: Remembered) -> Tensor:
    """The memory of a record that is looked back at: by then it was made."""
    assert record.memory is not None
    return record.memory


@dataclass(frozen=True, eq=False)
class Past:
    """What N objects look back at, the same number of memories and of pointers each.

    Attributes:
        memories: (N, M, L, D).
        slots: (N, M) int64, rows of the time embedding.
        pointers: (N, P, C).
        times: (N, P) float32, how far back each pointer lies, 1 at the end of the span; negative ahead.
    """

    memories: Tensor
    slots: Tensor
    pointers: Tensor
    times: Tensor

    @staticmethod
    def gather(recall: Recall, records: Mapping[int, Remembered]) -> Past:
        """Collect from the records of N objects, by frame, what all of them look back at."""
        memories = [memory_of(records[frame]) for frame, _ in recall.memories]
        pointers = [records[frame].pointer for frame, _ in recall.pointers]
        like = records[recall.memories[0][0]].pointer
        slots = torch.tensor([slot for _, slot in recall.memories], device=like.device)
        times = torch.tensor([distance / recall.span for _, distance in recall.pointers], device=like.device)
        return Past(
            memories=torch.stack(memories, dim=1),
            slots=slots.expand(len(like), -1),
            pointers=torch.stack(pointers, dim=1) if pointers else like[:, None][:, :0],
            times=times.expand(len(like), -1),
        )

    def to(self, like: Tensor) -> Past:
        """The same past on the device, and memories and pointers in the dtype, of another tensor."""
        slots, times = self.slots.to(like.device), self.times.to(like.device)
        return Past(self.memories.to(like), slots, self.pointers.to(like), times)

    @staticmethod
    def cat(parts: Sequence[Past]) -> Past:
        """Join objects that look back at the same number of memories and of pointers."""
        if len(parts) == 1:
            return parts[0]
        fields = ("memories", "slots", "pointers", "times")
        return Past(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))
