"""What one step of training sees: pictures or clips, and the objects asked for in them.

T frames (1 for pictures), F pictures or clips, N objects, (H, W) the input's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from . import clips, scenes
from .settings import Settings

PADDING = 114  # the grey that Ultralytics' letterbox puts around a picture


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures, or clips, with the visible masks of some of their objects.

    Attributes:
        images: (T, F, 3, H, W) uint8, RGB.
        masks: (T, N, H, W) bool.
        owner: (N,) int64, the picture or clip of each object.
    """

    images: Tensor
    masks: Tensor
    owner: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch elsewhere."""
        return Batch(self.images.to(device), self.masks.to(device), self.owner.to(device))

    def viewed(self, generator: torch.Generator) -> Batch:
        """The batch mirrored, turned and with its colours changed, each clip in one way all along."""
        flips = torch.randint(2, (3,), generator=generator, device=self.images.device).tolist()
        images, masks = self.images, self.masks
        for axis, flipped in zip((-1, -2), flips[:2], strict=True):
            images, masks = (t.flip(axis) if flipped else t for t in (images, masks))
        if flips[2]:
            images, masks = images.mT, masks.mT
        return Batch(_recoloured(images, generator), masks, self.owner)


class Steps(Dataset[Batch]):
    """The drawn batches of a leg; each depends on the seed and its number alone, whoever draws it and when."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __len__(self) -> int:
        return -(-self.settings.steps // self.settings.views)

    def __getitem__(self, number: int) -> Batch:
        """Draw scenes or clips, harder ones later."""
        settings = self.settings
        number %= settings.scenes or len(self)
        rng = np.random.default_rng([settings.seed, number])
        side = 32 * int(rng.integers(settings.size // 32, max(settings.size, settings.largest) // 32 + 1))
        hardest = settings.level + (settings.level_end - settings.level) * number / len(self)
        draw = _clips if follows(settings, number) else _pictures
        return draw(settings, rng, side, hardest)


def follows(settings: Settings, number: int) -> bool:
    """Whether a leg's batch of this number is one of clips: they are spread evenly."""
    return int((number + 1) * settings.clips) > int(number * settings.clips)


def _pictures(settings: Settings, rng: np.random.Generator, side: int, hardest: float) -> Batch:
    drawn = [
        letterboxed(scenes.draw(rng, *_shape(rng, side, settings.padded), level=hardest * rng.random()), side)
        for _ in range(_count(settings.pictures, settings.size, side))
    ]
    return gather(drawn, settings.prompts, rng)


def _clips(settings: Settings, rng: np.random.Generator, side: int, hardest: float) -> Batch:
    images, masks, owner = [], [], []
    for number in range(_count(settings.clips_at_once, settings.size, side)):
        shape, level = _shape(rng, side, settings.padded), hardest * rng.random()
        clip = clips.draw(rng, *shape, frames=settings.frames, level=level, objects=settings.objects)
        below, beside = side - shape[0], side - shape[1]
        images.append(np.pad(clip.images, ((0, 0), (0, below), (0, beside), (0, 0)), constant_values=PADDING))
        asked = clip.masks[:, np.resize(np.arange(clip.masks.shape[1]), settings.objects)]  # a GPU plans anew by shape
        masks.append(np.pad(asked, ((0, 0), (0, 0), (0, below), (0, beside))))
        owner += [number] * settings.objects
    return _batch(np.stack(images, 1), np.concatenate(masks, 1), owner)


def gather(drawn: list[scenes.Scene], prompts: int, rng: np.random.Generator | None = None) -> Batch:
    """Make a batch of scenes of one size.

    Args:
        drawn: The scenes.
        prompts: Objects asked for in each; where a scene has fewer they repeat.
        rng: Source of the choice of objects; without it the first ones.
    """
    masks, owner = [], []
    for number, scene in enumerate(drawn):
        order = np.arange(len(scene.masks)) if rng is None else rng.permutation(len(scene.masks))
        masks.append(scene.masks[np.resize(order, prompts)])
        owner += [number] * prompts
    return _batch(np.stack([scene.image for scene in drawn])[None], np.concatenate(masks)[None], owner)


def _batch(images: np.ndarray, masks: np.ndarray, owner: list[int]) -> Batch:
    """From images (T, F, H, W, 3) and masks (T, N, H, W)."""
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, 2))
    return Batch(torch.from_numpy(channels_first), torch.from_numpy(masks), torch.tensor(owner))


def _count(at_least_side: int, least: int, side: int) -> int:
    """How many pictures of a side have as many pixels as so many of the least side."""
    return max(1, round(at_least_side * (least / side) ** 2))


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


def _recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (T, F, 3, H, W) with their channels shuffled, and each one's brightness and contrast changed."""
    device, count = images.device, images.shape[1]
    order = torch.randperm(3, generator=generator, device=device)
    gain = 0.7 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator, device=device)
    shift = 40 * torch.rand(count, 3, 1, 1, generator=generator, device=device) - 20
    middle = 127.5 + shift
    return ((images[:, :, order] - 127.5) * gain + middle).clamp(0, 255).to(torch.uint8)
