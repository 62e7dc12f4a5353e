"""What travels between encoder, prompts and decoder: structs of tensors whose `[i]` slices every field.

F images, N prompts, M masks a prompt, C channels, (h, w) the grid of features: input size / 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from operator import methodcaller
from typing import Any, TypeVar

import torch
from torch import Tensor

Index = int | slice | list | Tensor
KeepPrompt = Callable[[Tensor], Tensor]  # predicted IoUs (N, M) -> (N,) bool: which prompts to answer
Struct = TypeVar("Struct", bound="TensorStruct")


@dataclass(frozen=True, eq=False)
class TensorStruct:
    """Fields are tensors with the same first dimension, tuples of such tensors, or None."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self: Struct, index: Index) -> Struct:
        """The chosen rows of every field; an int keeps the dimension, so the result has one row."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        return self.apply(lambda tensor: tensor[rows])

    def apply(self: Struct, function: Callable[[Tensor], Tensor]) -> Struct:
        """The same struct with a function of every tensor."""
        return type(self)(**{each.name: _apply(function, getattr(self, each.name)) for each in fields(self)})

    @classmethod
    def cat(cls: type[Struct], parts: Sequence[Struct]) -> Struct:
        """Join the rows of structs; a field is None in all of them or in none."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{each.name: _cat([getattr(part, each.name) for part in parts]) for each in fields(cls)})

    @classmethod
    def collect(cls: type[Struct], parts: Iterable[Struct], rows: int) -> Struct:
        """Join parts that come one by one, so many rows in all.

        Each is copied to its place at once: parts that stayed among the temporaries of those after them would keep an
        allocator from using that memory again.
        """
        whole, start = None, 0
        for part in parts:
            if len(part) == rows:
                return part
            whole = whole or part.apply(lambda tensor: tensor.new_empty(rows, *tensor.shape[1:]))
            for there, tensor in zip(whole[start : start + len(part)].tensors(), part.tensors(), strict=True):
                there.copy_(tensor)
            start += len(part)
        assert whole is not None and start == rows
        return whole

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, field by field."""
        for each in fields(self):
            value = getattr(self, each.name)
            yield from value if isinstance(value, tuple) else () if value is None else (value,)


def _apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(function(tensor) for tensor in value)
    return None if value is None else function(value)


def _cat(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(torch.cat(tensors) for tensors in zip(*values, strict=True))
    return None if values[0] is None else torch.cat(values)


@dataclass(frozen=True, eq=False)
class Features(TensorStruct):
    """The image encoder's output for F images."""

    image: Tensor  # (F, C, h, w), stride 16
    fine: tuple[Tensor, ...] = ()  # SAM 2's two finer maps, ((F, C/8, 4h, 4w), (F, C/4, 2h, 2w)); empty for SAM

    def to(self, *targets: str | torch.device | torch.dtype) -> Features:
        """The same features on another device, in another dtype, or both."""
        features = self
        for target in targets:
            features = features.apply(methodcaller("to", target))
        return features

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the coarsest map."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True, eq=False)
class PreparedFeatures(Features):
    """Features of frames, and their tokens (F, L, C) from `SAM2Model.prepare`."""

    tokens: Tensor = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class PromptBatch(TensorStruct):
    """N prompts of the same kinds and the same number of points."""

    image_index: Tensor  # (N,) int64, the index of each prompt's image in Features
    points: Tensor | None = None  # (N, P, 2) float32, xy in pixels of the input, half a pixel not yet added
    labels: Tensor | None = None  # (N, P) int, 1 on the object, 0 off it, -1 padding
    boxes: Tensor | None = None  # (N, 4) float32 xyxy, same pixels
    masks: Tensor | None = None  # (N, 1, 4h, 4w) float logits


@dataclass(frozen=True, eq=False)
class Answer(TensorStruct):
    """The decoder's output for N prompts, M masks each (1, or the number of multimask outputs)."""

    logits: Tensor  # (N, M, 4h, 4w), above 0 on the object
    iou: Tensor  # (N, M), the predicted IoU with the true mask
    tokens: Tensor  # (N, M or 1, C), the masks' output tokens (SAM 2's object pointers come from them)
    presence: Tensor | None = None  # (N, 1) logit, above 0 where the object is visible; None for SAM
