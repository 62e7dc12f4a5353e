"""Whether two implementations say the same: a fast wrong answer shows here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FAR = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}  # of the largest logit, for one answer
PARTNER = 0.95  # IoU from which two masks are the same one
# after some frames of a video: peers put memories away in half precision
DRIFTED = {torch.float32: 0.1, torch.float16: 0.2, torch.bfloat16: 0.5}


@dataclass(frozen=True)
class Deviation:
    """How far an answer is from samplug's in float32.

    Attributes:
        distance: the largest difference of logits, as a share of the largest; of a number of masks, the share that
            has no partner.
        overlap: the smallest IoU of two masks.
    """

    distance: float
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
    def of_masks(masks: Tensor, reference: Tensor) -> Deviation:
        """Compare two lists of bool masks (N, H, W), in any order."""
        if not len(masks) or not len(reference):
            return Deviation(float(len(masks) != len(reference)), 1.0)
        pairs = crosswise(masks, reference)
        best = torch.cat([pairs.amax(1), pairs.amax(0)])
        partners = best >= PARTNER
        return Deviation(1 - partners.float().mean().item(), best[partners].min().item() if partners.any() else 0.0)

    @staticmethod
    def worst(several: list[Deviation]) -> Deviation:
        """The largest of several."""
        return Deviation(max(one.distance for one in several), min(one.overlap for one in several))


def overlaps(masks: Tensor, others: Tensor) -> Tensor:
    """IoU of bool masks (…, h, w) in pairs; 1 for two empty ones."""
    both = (masks & others).sum((-2, -1)).float()
    either = (masks | others).sum((-2, -1)).float()
    return torch.where(either > 0, both / either, 1.0)


def crosswise(masks: Tensor, others: Tensor) -> Tensor:
    """IoU of each of (N, H, W) bool masks with each of (M, H, W): (N, M)."""
    masks, others = masks.flatten(1).float(), others.flatten(1).float().to(masks.device)
    both = masks @ others.T
    return both / (masks.sum(1)[:, None] + others.sum(1) - both).clamp(min=1)
