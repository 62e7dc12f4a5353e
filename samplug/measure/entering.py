"""Pictures into a network as the predictors bring them, without Ultralytics."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.view import Size, View

Network = SAMModel | SAM2Model
PADDING = 114  # the grey of Ultralytics' letterbox


def views_of(images: Sequence[np.ndarray], size: Size) -> list[View]:
    """How pictures (H, W, 3) lie in an input of a size (h, w)."""
    return [View((image.shape[0], image.shape[1]), size) for image in images]


def letterboxed(image: np.ndarray, view: View) -> np.ndarray:
    """A picture (H, W, 3) in the input (h, w, 3): at the top left, resized by one gain."""
    rows, columns = view.content
    if image.shape[:2] != view.content:
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    placed = np.full((*view.network, 3), PADDING, np.uint8)
    placed[:rows, :columns] = image
    return placed


def entered(model: Network, images: Sequence[np.ndarray], views: Sequence[View]) -> Tensor:
    """RGB pictures as the network's normalised input (F, 3, h, w), on its device and in its precision."""
    weight = next(model.parameters())
    stacked = np.stack([letterboxed(image, view) for image, view in zip(images, views, strict=True)])
    tensor = torch.from_numpy(stacked).to(weight.device).permute(0, 3, 1, 2).float()
    mean, deviation = model.get_buffer("pixel_mean").float(), model.get_buffer("pixel_std").float()
    return ((tensor - mean) / deviation).to(weight.dtype)
