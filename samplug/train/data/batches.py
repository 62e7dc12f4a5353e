"""The batches of training: images or clips, and the objects prompted in them.

T frames (1 for images), F images or clips, N objects, (H, W) the input's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samplug.nn.structs import Features


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, or clips, with the visible masks of some of their objects."""

    images: Tensor  # (T, F, 3, H, W) uint8, RGB
    masks: Tensor  # (T, N, H, W) bool
    image_index: Tensor  # (N,) int64, the image or clip of each object
    ignore: Tensor | None = None  # (T, F, H, W) bool, where the truth is unknown: no loss there. None for nowhere
    sizes: Tensor | None = None  # (F, 2) int64, height and width of the content inside the padding
    keys: tuple[str, ...] = ()  # of the images, for a cache of features; T * F, row by row
    features: Features | None = None  # of the images (T * F), from a cache; then the pixels are not read

    def to(self, device: torch.device | str) -> Batch:
        """The same batch elsewhere, its features in float32."""
        names = ("images", "masks", "image_index", "ignore", "sizes")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        features = None if self.features is None else self.features.to(device, torch.float32)
        return replace(self, **{name: each.to(device) for name, each in given.items()}, features=features)
