"""What a tracker keeps of objects: their output on a frame, and the memories they attend to.

N objects, M memories, P pointers, C channels, D memory channels, (h, w) the grid of features, L = h·w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from samplug.nn.memory.selection import MemorySelection
from samplug.nn.structs import Index, TensorStruct


@dataclass(frozen=True, eq=False)
class FrameOutput(TensorStruct):
    """The output on one frame for N objects."""

    logits: Tensor  # (N, 4h, 4w) float32, above 0 on the object
    pointer: Tensor  # (N, C), the object in one token
    presence: Tensor  # (N,) logit, above 0 where the object is visible
    iou: Tensor  # (N,) predicted IoU with the true mask
    memory: Tensor | None = None  # (N, L, D), once it was encoded

    def __getitem__(self, index: Index) -> FrameOutput:
        """The chosen objects, copied: a view would keep the whole batch alive."""
        return super().__getitem__(index).apply(torch.clone)


class StoredFrame(Protocol):
    """What is remembered of a frame: a memory (N, L, D) and a pointer (N, C)."""

    @property
    def memory(self) -> Tensor | None: ...  # noqa: D102
    @property
    def pointer(self) -> Tensor: ...  # noqa: D102


def memory_of(record: StoredFrame) -> Tensor:
    """The memory of a frame that was selected: by then it was encoded."""
    assert record.memory is not None
    return record.memory


@dataclass(frozen=True, eq=False)
class MemoryContext(TensorStruct):
    """What N objects attend to, the same number of memories and of pointers each."""

    memories: Tensor  # (N, M, L, D)
    slots: Tensor  # (N, M) int64, rows of the time embedding; on the CPU at first, as `times`
    pointers: Tensor  # (N, P, C)
    times: Tensor  # (N, P) float32, how far back each pointer lies, 1 at the end of the span; negative ahead

    @staticmethod
    def gather(selection: MemorySelection, frames: Mapping[int, StoredFrame]) -> MemoryContext:
        """Collect the selected memories and pointers of N objects from their frames."""
        memories = [memory_of(frames[frame]) for frame, _ in selection.memories]
        pointers = [frames[frame].pointer for frame, _ in selection.pointers]
        like = frames[selection.memories[0][0]].pointer  # (N, C)
        slots = torch.tensor([slot for _, slot in selection.memories])
        times = torch.tensor([distance / selection.span for _, distance in selection.pointers])
        return MemoryContext(
            memories=torch.stack(memories, dim=1),
            slots=slots.expand(len(like), -1),
            pointers=torch.stack(pointers, dim=1) if pointers else like[:, None][:, :0],
            times=times.expand(len(like), -1),
        )

    def to(self, like: Tensor) -> MemoryContext:
        """The same on another tensor's device; memories and pointers also in its dtype."""
        slots, times = (each.to(like.device, non_blocking=True) for each in (self.slots, self.times))
        return MemoryContext(self.memories.to(like), slots, self.pointers.to(like), times)


@dataclass(frozen=True, eq=False)
class MemoryTokens:
    """A `MemoryContext` as the memory attention reads it."""

    tokens: Tensor  # (N, K, D), memories, then pointers
    positions: Tensor  # (N, K, D)
    num_obj_ptr_tokens: int  # how many of the last tokens are pointers, which have no place on the grid
