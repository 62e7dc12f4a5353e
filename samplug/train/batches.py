"""Scenes as batches of tensors: pictures, and for each a few objects with a click and a box.

F pictures, N prompts, (H, W) the input's size, (h, w) a quarter of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from . import clicks, scenes
from .settings import Settings

MASK_STRIDE = 4  # of the decoder's masks
PADDING = 114  # the grey that Ultralytics' letterbox puts around a picture


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of training or evaluation sees.

    Attributes:
        images: (F, 3, H, W) uint8, RGB.
        masks: (N, H, W) bool, the objects asked for.
        targets: (N, h, w) float32, the share of each pixel that the object covers.
        owner: (N,) int64, the picture of each prompt.
        points: (N, 1, 2) float32, a click on each object.
        boxes: (N, 4) float32, a box around it.
    """

    images: Tensor
    masks: Tensor
    targets: Tensor
    owner: Tensor
    points: Tensor
    boxes: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch elsewhere."""
        fields = (self.images, self.masks, self.targets, self.owner, self.points, self.boxes)
        return Batch(*(field.to(device) for field in fields))


def gather(drawn: list[scenes.Scene], prompts: int, rng: np.random.Generator | None = None) -> Batch:
    """Make a batch of scenes.

    Args:
        drawn: Scenes of one size.
        prompts: Objects asked for in each; where a scene has fewer they repeat, with other clicks.
        rng: Source of the choice of objects, of clicks anywhere inside and loose boxes, as in training. Without it:
            the first objects, clicks at their centres and exact boxes, as in evaluation.
    """
    masks, owner, points, boxes = [], [], [], []
    for number, scene in enumerate(drawn):
        order = np.arange(len(scene.masks)) if rng is None else rng.permutation(len(scene.masks))
        for chosen in np.resize(order, prompts):
            mask = scene.masks[chosen]
            masks.append(mask)
            owner.append(number)
            points.append(clicks.centre(mask) if rng is None else clicks.inside(rng, mask))
            boxes.append(clicks.box(mask) if rng is None else clicks.loose_box(rng, mask))
    images = np.stack([scene.image for scene in drawn]).transpose(0, 3, 1, 2)
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        masks=torch.from_numpy(np.stack(masks)),
        targets=torch.from_numpy(np.stack([shrunk(mask) for mask in masks])),
        owner=torch.tensor(owner),
        points=torch.from_numpy(np.stack(points))[:, None],
        boxes=torch.from_numpy(np.stack(boxes)),
    )


class Steps(Dataset[Batch]):
    """The batch of every step of a leg; it depends on the seed and the step alone, whoever draws it and when."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the scenes, harder ones later, and the clicks and boxes on them."""
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, step])
        side = 32 * int(rng.integers(settings.size // 32, max(settings.size, settings.largest) // 32 + 1))
        hardest = settings.level + (settings.level_end - settings.level) * step / settings.steps
        drawn = [
            letterboxed(scenes.draw(rng, *_shape(rng, side, settings.padded), level=hardest * rng.random()), side)
            for _ in range(max(1, round(settings.pictures * (settings.size / side) ** 2)))
        ]
        return gather(drawn, settings.prompts, rng)


def _shape(rng: np.random.Generator, side: int, padded: float) -> tuple[int, int]:
    """Height and width of a picture whose longer side is `side`; square but for the share `padded`."""
    short = int(side * rng.uniform(0.5, 1)) if rng.random() < padded else side
    return (short, side) if rng.random() < 0.5 else (side, short)


def letterboxed(scene: scenes.Scene, side: int) -> scenes.Scene:
    """A scene at the top left of a square, the rest filled as predictors fill it."""
    height, width = scene.image.shape[:2]
    below, beside = side - height, side - width
    image = np.pad(scene.image, ((0, below), (0, beside), (0, 0)), constant_values=PADDING)
    return scenes.Scene(image, np.pad(scene.masks, ((0, 0), (0, below), (0, beside))), scene.whole)


def shrunk(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) as shares of the decoder's pixels, (H / 4, W / 4) float32."""
    height, width = mask.shape
    size = (width // MASK_STRIDE, height // MASK_STRIDE)
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
