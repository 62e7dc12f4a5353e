"""The batches of `data=scenes`: images and clips that are drawn for one step, harder ones later.

T frames (1 for images), F images or clips, N objects; inputs are squares.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from samplug.data.synthetic import clips, scenes
from samplug.data.synthetic.dataset import OBJECTS
from samplug.nn.constants import LETTERBOX_VALUE
from samplug.train.data.batches import Batch
from samplug.train.settings import TrainSettings
from samplug.transforms import Size

PADDED = 0.5  # share of the images that are not square, as photographs will be
CLIP_IMAGES = 4  # images of a batch for which a batch of clips has one clip
STEP = 32  # pixels between the sizes of inputs


class DrawnBatches(Dataset[Batch]):
    """The batches of a run; each depends on the seed and its step alone, in any process and order.

    Args:
        settings: a `TrainSettings` whose batch is a number.
        input_size: (h, w) of the network's input; with `multi_scale` it is the middle of what is drawn.
    """

    def __init__(self, settings: TrainSettings, input_size: Size) -> None:
        self.settings, self.side = settings, max(input_size)

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from the run's first."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, step])
        margin = settings.multi_scale * self.side
        least, most = (round((self.side + sign * margin) / STEP) for sign in (-1, 1))
        side = STEP * int(rng.integers(max(least, 1), most + 1))
        first, last = settings.levels
        hardest = first + (last - first) * step / (settings.epochs * settings.steps)
        draw = self._draw_clips if is_clip_batch(settings.clips, step) else self._draw_images
        return draw(rng, side, hardest)

    def _draw_images(self, rng: np.random.Generator, side: int, hardest: float) -> Batch:
        drawn = [
            scenes.draw(rng, *_shape(rng, side), level=hardest * rng.random())
            for _ in range(self._count(self.settings.batch, side))
        ]
        return gather(drawn, self.settings.objects, rng)

    def _draw_clips(self, rng: np.random.Generator, side: int, hardest: float) -> Batch:
        images, masks, image_index = [], [], []
        frames, objects = self.settings.frames, min(self.settings.objects, OBJECTS)
        for number in range(self._count(self.settings.batch / CLIP_IMAGES, side)):
            shape, level = _shape(rng, side), hardest * rng.random()
            clip = clips.draw(rng, *shape, frames=frames, level=level, objects=objects)
            images.append(_padded(clip.images, side, 1, LETTERBOX_VALUE))
            chosen = clip.masks[:, np.resize(np.arange(clip.masks.shape[1]), objects)]  # a GPU plans anew by shape
            masks.append(_padded(chosen, side, 2))
            image_index += [number] * objects
        return _batch(np.stack(images, 1), np.concatenate(masks, 1), image_index)

    def _count(self, count: float, side: int) -> int:
        """How many images of a side have as many pixels as `count` of the middle side."""
        return max(1, round(count * (self.side / side) ** 2))


def is_clip_batch(share: float, step: int) -> bool:
    """Whether the batch of this step is one of clips: they are spread evenly."""
    return int((step + 1) * share) > int(step * share)


def gather(drawn: list[scenes.Scene], prompts: int, rng: np.random.Generator | None = None) -> Batch:
    """Make a batch of scenes, padded to squares of one size.

    So many objects of each are prompted, of a choice by `rng` or the first ones; where a scene has fewer they repeat.
    """
    images, masks, image_index = [], [], []
    side = max(max(scene.image.shape) for scene in drawn)
    for number, scene in enumerate(drawn):
        order = np.arange(len(scene.masks)) if rng is None else rng.permutation(len(scene.masks))
        masks.append(_padded(scene.masks[np.resize(order, prompts)], side, 1))
        images.append(_padded(scene.image, side, 0, LETTERBOX_VALUE))
        image_index += [number] * prompts
    return _batch(np.stack(images)[None], np.concatenate(masks)[None], image_index)


def _batch(images: np.ndarray, masks: np.ndarray, image_index: list[int]) -> Batch:
    """From images (T, F, H, W, 3) and masks (T, N, H, W)."""
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, 2))
    return Batch(torch.from_numpy(channels_first), torch.from_numpy(masks), torch.tensor(image_index))


def _shape(rng: np.random.Generator, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is `side`."""
    short = int(side * rng.uniform(0.5, 1)) if rng.random() < PADDED else side
    return (short, side) if rng.random() < 0.5 else (side, short)


def _padded(array: np.ndarray, side: int, rows: int, value: int = 0) -> np.ndarray:
    """An array with its axes `rows` and `rows` + 1 padded to a square, at the end and as predictors do."""
    widths = [(0, 0)] * array.ndim
    for axis in (rows, rows + 1):
        widths[axis] = (0, side - array.shape[axis])
    return np.pad(array, widths, constant_values=value)
