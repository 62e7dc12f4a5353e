"""How far the answers of two implementations are apart: a fast wrong answer shows here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplug.masks.iou import mask_iou, paired_mask_iou
from samplug.nn.constants import ABSENT_LOGIT

Tolerance = dict[torch.dtype, float]
LOGIT_TOLERANCE: Tolerance = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}  # of the largest logit
# after some frames of a video: peers store memories in half precision
VIDEO_TOLERANCE: Tolerance = {torch.float32: 0.1, torch.float16: 0.2, torch.bfloat16: 0.5}
MASK_SET_TOLERANCE: Tolerance = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}  # share without a match
MATCH_IOU = 0.95  # from which two masks are the same one


@dataclass(frozen=True)
class Deviation:
    """How far an answer is from samplug's in float32."""

    distance: float  # the largest difference of logits as a share of the largest; of sets of masks, those without match
    overlap: float  # the smallest IoU of two masks

    @staticmethod
    def of_logits(answer: Tensor, reference: Tensor) -> Deviation:
        """Compare logits (…, h, w) of the same prompts."""
        answer, reference = answer.float().cpu(), reference.float().cpu()
        assert answer.shape == reference.shape, f"{tuple(answer.shape)} against {tuple(reference.shape)}"
        present = reference > ABSENT_LOGIT
        size = reference[present].abs().max().item() if present.any() else 1.0
        furthest = (answer - reference).abs().max().item() / size
        return Deviation(furthest, paired_mask_iou(answer > 0, reference > 0, empty=1.0).min().item())

    @staticmethod
    def of_mask_sets(masks: Tensor, reference: Tensor) -> Deviation:
        """Compare bool masks (N, H, W) with others, in any order."""
        if not len(masks) or not len(reference):
            return Deviation(float(len(masks) != len(reference)), 1.0)
        pairs = mask_iou(masks, reference.to(masks.device))
        best = torch.cat([pairs.amax(1), pairs.amax(0)])
        matches = best >= MATCH_IOU
        return Deviation(1 - matches.float().mean().item(), best[matches].min().item() if matches.any() else 0.0)

    @staticmethod
    def worst(deviations: list[Deviation]) -> Deviation:
        """The largest distance and the smallest IoU."""
        return Deviation(max(each.distance for each in deviations), min(each.overlap for each in deviations))
