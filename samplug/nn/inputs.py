"""Prompts and masks in the form SAM 2 was trained on.

N prompts or objects, P points, (h, w) the grid of features; the input is (16h, 16w), the decoder's masks (4h, 4w).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.constants import (
    BOX_CORNER_LABELS,
    FEATURE_STRIDE,
    MASK_PROMPT_LOGIT,
    MASK_STRIDE,
    NON_OWNER_LOGIT,
    PADDING_LABEL,
)
from samplug.nn.structs import PromptBatch

MASK_SCALE = FEATURE_STRIDE // MASK_STRIDE


def mask_size(grid: tuple[int, int]) -> tuple[int, int]:
    """(4h, 4w)."""
    return MASK_SCALE * grid[0], MASK_SCALE * grid[1]


def resize_mask_prompt(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks (N, 1, H, W) of any size, smoothly reduced to (N, 1, 4h, 4w) float32."""
    return F.interpolate(masks.float(), size=mask_size(grid), mode="bilinear", antialias=True)


def resize_to_input(logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """Logits (N, 1, H, W) of any size at the input's, (N, 1, 16h, 16w)."""
    size = (FEATURE_STRIDE * grid[0], FEATURE_STRIDE * grid[1])
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size=size, mode="bilinear")


def points_and_corners(prompts: PromptBatch) -> tuple[Tensor, Tensor] | None:
    """Points (N, P, 2) and labels (N, P): box corners first, as points with labels of their own; None without any."""
    points, labels = prompts.points, prompts.labels
    if prompts.boxes is not None:
        corners = prompts.boxes.view(-1, 2, 2)
        corner_labels = corner_labels_like(corners)
        points = corners if points is None else torch.cat([corners, points], dim=1)
        labels = corner_labels if labels is None else torch.cat([corner_labels, labels], dim=1)
    return None if points is None or labels is None else (points, labels)


def corner_labels_like(corners: Tensor) -> Tensor:
    """The labels of boxes' corners (N, 2, 2), (N, 2) int64; made on their device, which need not wait for a copy."""
    first, second = BOX_CORNER_LABELS
    return torch.where(torch.arange(2, device=corners.device) == 0, first, second).expand(len(corners), 2)


def add_padding_point(prompts: PromptBatch) -> PromptBatch:
    """Give prompts without a point or box a padding point, as trained; the prompt encoder appends another to all."""
    if prompts.points is not None or prompts.boxes is not None:
        return prompts
    point = prompts.image_index.new_zeros(len(prompts), 1, 2).float()
    return replace(prompts, points=point, labels=prompts.image_index.new_full((len(prompts), 1), PADDING_LABEL))


def mask_to_logits(masks: Tensor) -> Tensor:
    """0 … 1 as logits of plus or minus `MASK_PROMPT_LOGIT`."""
    return (2 * masks - 1) * MASK_PROMPT_LOGIT


def non_overlapping(logits: Tensor) -> Tensor:
    """Leave each pixel of a frame to the object with the largest logit there: (N, ..., H, W) -> the same shape."""
    index = torch.arange(len(logits), device=logits.device).view(-1, *[1] * (logits.dim() - 1))
    return torch.where(logits.argmax(0, keepdim=True) == index, logits, logits.clamp(max=NON_OWNER_LOGIT))


def non_overlapping_per_frame(logits: Tensor, image_index: Tensor) -> Tensor:
    """`non_overlapping` for the objects of each frame: logits (N, ..., H, W), image_index (N,) -> the same shape."""
    kept = torch.empty_like(logits)
    for frame in image_index.unique():
        kept[image_index == frame] = non_overlapping(logits[image_index == frame])
    return kept
