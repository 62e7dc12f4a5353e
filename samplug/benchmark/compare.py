"""Whether two implementations say the same: a fast wrong answer shows here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FAR = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}  # of the largest logit, for one answer
DRIFTED = 0.1  # after some frames of a video, where peers put memories away in half precision


@dataclass(frozen=True)
class Deviation:
    """How far an answer is from samplug's in float32.

    Attributes:
        logits: the largest difference, as a share of the largest logit.
        overlap: the smallest IoU of two masks.
    """

    logits: float
    overlap: float

    @staticmethod
    def of(answer: Tensor, reference: Tensor) -> Deviation:
        """Compare logits (…, h, w) of the same prompts."""
        answer, reference = answer.float().cpu(), reference.float().cpu()
        assert answer.shape == reference.shape, f"{tuple(answer.shape)} against {tuple(reference.shape)}"
        seen = reference > -1000  # the mask of an absent object is -1024 everywhere
        size = reference[seen].abs().max().item() if seen.any() else 1.0
        furthest = (answer - reference).abs().max().item() / size
        return Deviation(furthest, overlaps(answer > 0, reference > 0).min().item())

    @staticmethod
    def worst(several: list[Deviation]) -> Deviation:
        """The largest of several."""
        return Deviation(max(one.logits for one in several), min(one.overlap for one in several))


def overlaps(masks: Tensor, others: Tensor) -> Tensor:
    """IoU of bool masks (…, h, w) in pairs; 1 for two empty ones."""
    both = (masks & others).sum((-2, -1)).float()
    either = (masks | others).sum((-2, -1)).float()
    return torch.where(either > 0, both / either, 1.0)
