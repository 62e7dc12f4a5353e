"""A picture into the network's input: letterboxed as Ultralytics does, or stretched as Meta's SAM 2 predictor does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug import host


def fit(picture: np.ndarray, shape: Sequence[int], resize: str) -> np.ndarray:
    """Bring a picture of any kind to (h, w, 3) BGR, bytes when letterboxed and floats 0-255 when stretched."""
    picture = host.as_bgr(picture)
    if resize == "stretch":
        return stretch(picture, shape)
    return host.LetterBox(list(shape), auto=False, center=False)(image=picture)


def stretch(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize (H, W, 3) to (h, w, 3) with anti-aliasing, as floats 0-255."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(tensor, tuple(shape), mode="bilinear", align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def to_rgb(batch: list[np.ndarray] | Tensor, device: torch.device) -> Tensor:
    """Stack fitted BGR pictures, or take a (F, 3, h, w) RGB tensor in 0-1, as (F, 3, h, w) RGB floats 0-255."""
    if isinstance(batch, Tensor):
        return batch.to(device).float() * 255
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(batch)[..., ::-1]))
    return stacked.to(device).permute(0, 3, 1, 2).float()
