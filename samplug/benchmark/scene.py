"""What the benchmark shows to networks: a drawn image, a video of it, clicks. Everything comes from a seed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.structs import PromptBatch

DRIFT = (3, 5)  # pixels that the image moves a frame, down and across
GRAINS = (8, 32, 128)  # cells of the image's textures, coarse to fine


def draw_image(height: int, width: int, seed: int = 0) -> Tensor:
    """A cloudy image, (1, 3, height, width) whole numbers 0 … 255 as float32."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(1, 3, cells, cells, generator=generator) / (i + 1) for i, cells in enumerate(GRAINS)]
    clouds = torch.stack([F.interpolate(layer, (height, width), mode="bicubic") for layer in layers]).sum(0)
    return (clouds * 45 + 120).clamp(0, 255).round()


def draw_video(size: int, frames: int) -> Tensor:
    """The image under a moving window, (frames, 3, size, size)."""
    down, across = DRIFT
    plane = draw_image(size + down * frames, size + across * frames)[0]
    return torch.stack([plane[:, down * i :, across * i :][:, :size, :size] for i in range(frames)])


def draw_clicks(count: int, size: int, device: torch.device | str = "cpu") -> PromptBatch:
    """So many objects of one click each, all over one image."""
    points = torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(0)) * size
    image_index = torch.zeros(count, dtype=torch.int64, device=device)
    labels = torch.ones(count, 1, dtype=torch.int32, device=device)
    return PromptBatch(image_index, points=points.round().to(device), labels=labels)
