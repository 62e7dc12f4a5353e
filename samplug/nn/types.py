"""What travels between encoder, prompts and decoder: structs of tensors whose `[i]` slices every field.

F pictures, N prompts, M masks a prompt, C channels, (h, w) the grid of features: input size / 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Index = int | slice | list | Tensor
T = TypeVar("T", Tensor, Tensor | None)
Worth = Callable[[Tensor], Tensor]  # predicted overlaps (N, M) -> (N,) bool: which prompts are to be answered


def rows(index: Index) -> slice | list | Tensor:
    """An index that keeps the first dimension: an int becomes the slice of that one row."""
    if isinstance(index, int):
        return slice(index, index + 1 or None)
    return index


def take(field: T, index: Index) -> T:
    """The rows of a field, or None where the field is None."""
    return None if field is None else field[rows(index)]


@dataclass(frozen=True, eq=False)
class Features:
    """What the image encoder says about F pictures.

    Attributes:
        image: (F, C, h, w), stride 16.
        fine: SAM 2's two finer maps, ((F, C/8, 4h, 4w), (F, C/4, 2h, 2w)); empty for SAM.
    """

    image: Tensor
    fine: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.image.shape[0]

    def __getitem__(self, index: Index) -> Features:
        """The chosen pictures; an int keeps the dimension, so the result has one picture."""
        return Features(take(self.image, index), tuple(take(level, index) for level in self.fine))

    def to(self, *where: str | torch.device | torch.dtype) -> Features:
        """The same features on another device, in another dtype, or both."""
        image, fine = self.image, self.fine
        for place in where:
            image, fine = image.to(place), tuple(level.to(place) for level in fine)
        return Features(image, fine)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the coarsest map."""
        return self.image.shape[-2], self.image.shape[-1]

    @staticmethod
    def cat(parts: list[Features]) -> Features:
        """Join pictures of one input size."""
        levels = zip(*(part.fine for part in parts), strict=True)
        return Features(torch.cat([part.image for part in parts]), tuple(torch.cat(level) for level in levels))


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """N prompts of the same kinds and the same number of points.

    Attributes:
        owner: (N,) int64, the index of each prompt's picture in Features.
        points: (N, P, 2) float32, xy in pixels of the network's input, half a pixel not yet added.
        labels: (N, P) int, 1 on the object, 0 off it, -1 padding.
        boxes: (N, 4) float32 xyxy, same pixels.
        masks: (N, 1, 4h, 4w) float logits.
    """

    owner: Tensor
    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return self.owner.shape[0]

    def __getitem__(self, index: Index) -> PromptBatch:
        """The chosen prompts; an int keeps the dimension."""
        given = (take(field, index) for field in (self.points, self.labels, self.boxes, self.masks))
        return PromptBatch(take(self.owner, index), *given)


@dataclass(frozen=True, eq=False)
class Answer:
    """What the decoder says to N prompts, M masks each (1, or the number of multimask outputs).

    Attributes:
        logits: (N, M, 4h, 4w), above 0 on the object.
        iou: (N, M), the predicted overlap with the true mask.
        tokens: (N, M or 1, C), the masks' output tokens (SAM 2's object pointers come from them).
        presence: (N, 1) logit, above 0 where the object is visible; None for SAM.
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    presence: Tensor | None = None

    def __len__(self) -> int:
        return self.logits.shape[0]

    def __getitem__(self, index: Index) -> Answer:
        """The chosen prompts' answers; an int keeps the dimension."""
        logits, iou, tokens = (take(field, index) for field in (self.logits, self.iou, self.tokens))
        return Answer(logits, iou, tokens, take(self.presence, index))

    @staticmethod
    def cat(parts: list[Answer]) -> Answer:
        """Join answers with the same number of masks; all have a presence or none has."""
        if len(parts) == 1:
            return parts[0]
        presence = [part.presence for part in parts if part.presence is not None]
        return Answer(
            logits=torch.cat([part.logits for part in parts]),
            iou=torch.cat([part.iou for part in parts]),
            tokens=torch.cat([part.tokens for part in parts]),
            presence=torch.cat(presence) if presence else None,
        )
