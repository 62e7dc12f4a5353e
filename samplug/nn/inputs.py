"""Prompts and masks in the form SAM 2 was trained on.

N prompts or objects, P points, (h, w) the grid of features; the input is (16h, 16w).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.memory_encoder import MASK_STRIDE
from samplug.nn.prompt_encoder import BOX_CORNERS, PADDING
from samplug.nn.types import PromptBatch

GIVEN_LOGIT = 10.0  # a given mask as logits: this on the object, minus this off it
OTHERS_LOGIT = -10.0  # at most this where another object owns the pixel


def clicks(prompts: PromptBatch) -> tuple[Tensor, Tensor] | None:
    """Points (N, P, 2) and labels (N, P) of prompts: a box's corners come first, as points with labels of their own."""
    xy, labels = prompts.points, prompts.labels
    if prompts.boxes is not None:
        corners = prompts.boxes.view(-1, 2, 2)
        kinds = torch.tensor(BOX_CORNERS, device=corners.device).expand(len(corners), 2)
        xy = corners if xy is None else torch.cat([corners, xy], dim=1)
        labels = kinds if labels is None else torch.cat([kinds, labels], dim=1)
    return None if xy is None or labels is None else (xy, labels)


def padded(prompts: PromptBatch) -> PromptBatch:
    """Prompts without a point or box get a padding point, as trained; the prompt encoder appends another to all."""
    if prompts.points is not None or prompts.boxes is not None:
        return prompts
    nowhere = prompts.owner.new_zeros(len(prompts), 1, 2).float()
    return replace(prompts, points=nowhere, labels=prompts.owner.new_full((len(prompts), 1), PADDING))


def as_logits(masks: Tensor) -> Tensor:
    """0 … 1 as logits of plus or minus `GIVEN_LOGIT`."""
    return (2 * masks - 1) * GIVEN_LOGIT


def enlarged(logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """Logits (N, 1, ., .) at the input's size (N, 1, 16h, 16w)."""
    size = (grid[0] * MASK_STRIDE, grid[1] * MASK_STRIDE)
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size=size, mode="bilinear")


def one_owner(logits: Tensor, owner: Tensor) -> Tensor:
    """Leave every pixel to the object of a frame with the largest logit there: (N, 1, H, W) -> the same shape."""
    kept = torch.empty_like(logits)
    for frame in owner.unique():
        rivals = logits[owner == frame]
        wins = rivals.argmax(dim=0, keepdim=True) == torch.arange(len(rivals), device=logits.device).view(-1, 1, 1, 1)
        kept[owner == frame] = torch.where(wins, rivals, rivals.clamp(max=OTHERS_LOGIT))
    return kept
