"""What is looked at: a drawn picture, a film of it, clicks. Everything comes from a seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.types import PromptBatch

DRIFT = (3, 5)  # pixels that the picture moves a frame, down and across
GRAINS = (8, 32, 128)  # cells of the picture's textures, coarse to fine


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A cloudy picture, (1, 3, height, width) whole numbers 0 … 255 as float32."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(1, 3, cells, cells, generator=generator) / (i + 1) for i, cells in enumerate(GRAINS)]
    sizes = [F.interpolate(layer, (height, width), mode="bicubic") for layer in layers]
    clouds = torch.stack(sizes).sum(0)
    return (clouds * 45 + 120).clamp(0, 255).round()


def film(size: int, frames: int) -> Tensor:
    """The picture under a moving window, (frames, 3, size, size)."""
    down, across = (step * frames for step in DRIFT)
    plane = picture(size + down, size + across)[0]
    views = [plane[:, DRIFT[0] * i :, DRIFT[1] * i :][:, :size, :size] for i in range(frames)]
    return torch.stack(views)


def clicks(count: int, size: int, seed: int = 0) -> PromptBatch:
    """So many objects of one click each, all over one picture."""
    points = torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(seed)) * size
    owner = torch.zeros(count, dtype=torch.int64)
    return PromptBatch(owner, points=points.round(), labels=torch.ones(count, 1, dtype=torch.int32))


def on(prompts: PromptBatch, device: torch.device) -> PromptBatch:
    """Prompts on a device."""
    given = (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
    return PromptBatch(prompts.owner.to(device), *(None if one is None else one.to(device) for one in given))
