"""A picture into the network's input: letterboxed as Ultralytics does, stretched or padded as Meta's predictors do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug import host
from samplug.view import View

MEAN = 103.53, 116.28, 123.675  # of all SAMs, BGR


def fit(picture: np.ndarray, shape: Sequence[int], resize: str) -> np.ndarray:
    """Bring a picture of any kind to (h, w, 3) BGR: bytes when letterboxed, else floats 0-255."""
    picture = host.as_bgr(picture)
    if resize == "stretch":
        return stretch(picture, shape)
    if resize == "pad":
        return pad(picture, shape)
    return host.LetterBox(list(shape), auto=False, center=False)(image=picture)


def stretch(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize (H, W, 3) to (h, w, 3) with anti-aliasing, as floats 0-255."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(tensor, tuple(shape), mode="bilinear", align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def pad(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize (H, W, 3) with PIL's anti-aliasing, to bytes, and surround it by zeros after normalising; floats 0-255."""
    from PIL import Image

    rows, columns = View((picture.shape[0], picture.shape[1]), (shape[0], shape[1]), "pad").content
    padded = np.broadcast_to(np.array(MEAN, np.float32), (*shape, 3)).copy()
    padded[:rows, :columns] = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR))
    return padded


def to_rgb(batch: list[np.ndarray] | Tensor, device: torch.device) -> Tensor:
    """Stack fitted BGR pictures, or take a (F, 3, h, w) RGB tensor in 0-1, as (F, 3, h, w) RGB floats 0-255."""
    if isinstance(batch, Tensor):
        return batch.to(device).float() * 255
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(batch)[..., ::-1]))
    return stacked.to(device).permute(0, 3, 1, 2).float()
