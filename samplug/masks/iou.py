"""IoU of masks and boxes, non-maximum suppression, stability."""

from __future__ import annotations

import math

import torch
from torch import Tensor

COARSE_SIDE = 256  # pixels a side at which hundreds of masks are compared with each other


def mask_intersections(masks: Tensor, others: Tensor) -> Tensor:
    """(N, M) float32: how many pixels each of (N, H, W) bool masks shares with each of (M, H, W)."""
    return masks.flatten(1).float() @ others.flatten(1).float().T


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(N, M) float32 IoU of each of (N, H, W) bool masks with each of (M, H, W); 0 where both are empty."""
    a, b = masks.flatten(1).float(), others.flatten(1).float()
    shared = a @ b.T
    return shared / (a.sum(1)[:, None] + b.sum(1) - shared).clamp(min=1)


def paired_mask_iou(masks: Tensor, others: Tensor, empty: float = 0.0) -> Tensor:
    """(...) float32 IoU of bool masks (..., H, W), each with its own partner; `empty` where both are empty."""
    shared, union = (pixels.sum((-2, -1)) for pixels in (masks & others, masks | others))
    return torch.where(union > 0, shared / union.clamp(min=1), empty)


def distinct_masks(masks: Tensor, max_iou: float) -> list[int]:
    """The indices of (N, H, W) bool masks none of which has this IoU, or a higher one, with another before it.

    Of large masks every second, third, … pixel is compared: there may be hundreds of masks.
    """
    step = math.ceil(max(*masks.shape[1:], 1) / COARSE_SIDE)
    iou, kept = mask_iou(masks[:, ::step, ::step], masks[:, ::step, ::step]), list[int]()
    for i in range(len(masks)):
        if not (iou[i, kept] >= max_iou).any():
            kept.append(i)
    return kept


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N, M) IoU of boxes (N, 4) and (M, 4) xyxy; 0 where neither has an area."""
    from torchvision.ops import box_iou  # here, as importing it takes long

    return box_iou(boxes, others).nan_to_num(0)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of boxes (N, 4), best score first, none of which has an IoU above the threshold with a better one.

    On the CPU equal scores keep their order.
    """
    from torchvision.ops import nms

    return nms(boxes, scores, threshold)


def stability(logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> Tensor:
    """How little masks change with their threshold (Segment Anything, arXiv 2304.02643, appendix B).

    (N,) float32 in 0 … 1 of logits (N, h, w): the IoU of the masks with the threshold moved up by `offset` and down by
    it; 0 where both are empty.
    """
    inner = (logits > threshold + offset).sum((-1, -2), dtype=torch.int32)
    outer = (logits > threshold - offset).sum((-1, -2), dtype=torch.int32)
    return inner / outer.clamp(min=1)
