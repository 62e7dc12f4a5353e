"""The batches of a user's data set.

T frames (1 for images), F images or clips, N objects, (h, w) the input's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from samplug.data.image_file import ImageFile, Labels
from samplug.data.open import Data
from samplug.data.samples import AnnotatedVideo
from samplug.errors import DataError
from samplug.nn.structs import Features
from samplug.train.data.augment import Augmentation, vanishes
from samplug.train.data.batches import Batch
from samplug.train.data.check import annotated_files
from samplug.train.data.feature_cache import FeatureCache
from samplug.train.data.image_cache import ImageCache
from samplug.train.parallel.ranks import ONE_PROCESS, Ranks
from samplug.transforms import ImageTransform, Size

ORDER = 1 << 40  # in the seed of an epoch's order, where that of a sample has its step
OPEN_VIDEOS = 256  # whose lists of frames are kept


@dataclass(frozen=True, eq=False)
class Sample:
    """An image or a clip of a batch.

    Attributes:
        files: of its T frames.
        augmentation: how all of them are changed.
        images: (T, h, w, 3) uint8; None where features stand for them.
        masks: (T, n, h, w) bool.
        ignore: (T, h, w) bool, or None.
        content: (h', w') of the image inside the input.
    """

    files: Sequence[ImageFile]
    augmentation: Augmentation
    images: np.ndarray | None
    masks: np.ndarray
    ignore: np.ndarray | None
    content: Size


class UserBatches(Dataset[Batch]):
    """The batches of a run; each depends on the seed and its step alone, in any process and order.

    Every epoch shuffles the images, or videos, anew; its last batch is filled up with the epoch's first ones. Of an
    image at most `objects` objects are drawn; of a video `frames` annotated frames in a row, and objects visible on
    the first of them. Objects too small for the decoder's masks are never drawn.

    Args:
        data: images or videos; each has an object that can be drawn.
        settings: a `TrainSettings` whose batch is a number.
        input_size: (h, w) of the network's input.
        features: of all images, in place of their pixels; these are then at most mirrored.
        ranks: the processes that train together: a batch is this one's part of the images.
    """

    def __init__(
        self,
        data: Data,
        settings: Any,
        input_size: Size,
        features: FeatureCache | None = None,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self.data, self.settings, self.input_size, self.features = data, settings, input_size, features
        self.ranks = ranks
        self.count = len(data.images) or len(data.videos)
        self.pixels = ImageCache() if features else ImageCache.of(data, settings.cache)
        self._videos: dict[int, AnnotatedVideo] = {}

    def __len__(self) -> int:
        return -(-self.count // self.settings.batch)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from the run's first."""
        epoch, number = divmod(step, len(self))
        order = np.random.default_rng([self.settings.seed, ORDER, epoch]).permutation(self.count)
        first = number * self.settings.batch
        chosen = order.take(range(first, first + self.settings.batch), mode="wrap").tolist()
        samples = [
            self._draw(chosen[place], np.random.default_rng([self.settings.seed, step, place]))
            for place in range(self.ranks.rank, len(chosen), self.ranks.count)
        ]
        return self._gather(samples)

    def _draw(self, row: int, rng: np.random.Generator) -> Sample:
        """Draw objects of an image, or a clip of a video.

        Raises:
            DataError: there is no object that can be drawn, or a file cannot be read.
        """
        augmentation = Augmentation.draw(self.settings, rng)
        if self.features is not None:
            augmentation = Augmentation(fliplr=augmentation.fliplr)
        for files in self._clips(row, rng):
            if sample := self._sample(files, augmentation, rng):
                return sample
        name = self.data.images.keys[row].path if len(self.data.images) else self.data.videos[row].name
        raise DataError(f"{name} has no object that is visible in the network's input of {self.input_size}.")

    def _clips(self, row: int, rng: np.random.Generator) -> Sequence[Sequence[ImageFile]]:
        """What may be drawn of an image or a video, in the order in which it is tried: files of T frames each."""
        if len(self.data.images):
            return [[self.data.images.keys[row]]]
        if row not in self._videos:
            if len(self._videos) >= OPEN_VIDEOS:
                self._videos.clear()
            self._videos[row] = self.data.videos[row]
        files = annotated_files(self._videos[row])
        length = self.settings.frames
        count = max(len(files) - length + 1, 1)
        first = int(rng.integers(count))
        return [files[start : start + length] for start in np.roll(np.arange(count), -first)]

    def _sample(
        self, files: Sequence[ImageFile], augmentation: Augmentation, rng: np.random.Generator
    ) -> Sample | None:
        """Draw objects on the first frame; None where none is visible."""
        if self.features is None:
            image = self.pixels.read(files[0])
            first, size = [image], (image.shape[0], image.shape[1])
        else:
            first, size = [], self.features.image_size(files[0])
        labels = files[0].labels()
        order = rng.permutation(len(labels.shapes)).tolist()
        for each in dict.fromkeys((augmentation, augmentation.without_geometry())):
            visible = self._visible(files[0], labels, order, size, each)
            if visible:
                return self._complete(files, each, first, size, visible)
        return None

    def _visible(
        self, file: ImageFile, labels: Labels, order: Sequence[int], size: Size, augmentation: Augmentation
    ) -> dict[int, np.ndarray]:
        """The masks (h, w) of the first objects in an order that are visible in the input, by row."""
        visible: dict[int, np.ndarray] = {}
        for row in order:
            mask = augmentation.fit_mask(file.mask(labels, labels.shapes[row], size), self.input_size)
            if not vanishes(mask):
                visible[row] = mask
            if len(visible) == self.settings.objects:
                break
        return visible

    def _complete(
        self, files: Sequence[ImageFile], augmentation: Augmentation, first: Sequence[np.ndarray], size: Size,
        visible: dict[int, np.ndarray],
    ) -> Sample:  # fmt: skip
        """Read the other frames, and the pixels to ignore."""
        masks, ignore = [list(visible.values())], []
        for number, file in enumerate(files):
            labels = file.labels()
            if number:
                shapes = (file.mask(labels, labels.shapes[row], size) for row in visible)
                masks.append([augmentation.fit_mask(shape, self.input_size) for shape in shapes])
            void = file.void(labels, size)
            ignore.append(None if void is None else augmentation.fit_mask(void, self.input_size))
        empty = np.zeros(self.input_size, bool)
        shown = None if all(each is None for each in ignore) else [empty if each is None else each for each in ignore]
        return Sample(
            *(files, augmentation, self._images(files, augmentation, first), np.array(masks)),
            ignore=None if shown is None else np.stack(shown),
            content=ImageTransform(size, self.input_size).content,
        )

    def _images(
        self, files: Sequence[ImageFile], augmentation: Augmentation, first: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """The input (T, h, w, 3) of frames."""
        if self.features is not None:
            return None
        images = [*first, *(self.pixels.read(file) for file in files[1:])]
        return np.stack([augmentation.fit_image(image, self.input_size) for image in images])

    def _gather(self, samples: Sequence[Sample]) -> Batch:
        """Join samples: frames in the first axis, images or clips in the second."""
        counts = torch.tensor([sample.masks.shape[1] for sample in samples])
        files = [file for frame in zip(*(sample.files for sample in samples), strict=True) for file in frame]
        return Batch(
            images=self._pixels(samples),
            masks=torch.from_numpy(np.concatenate([sample.masks for sample in samples], 1)),
            image_index=torch.repeat_interleave(torch.arange(len(samples)), counts),
            ignore=_joined_ignore(samples),
            sizes=torch.tensor([sample.content for sample in samples]),
            keys=tuple(str(file.path) for file in files),
            features=self._features(samples),
        )

    def _pixels(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The images (T, F, 3, h, w); zeros that take no memory where features stand for them."""
        if self.features is not None:
            shape = len(samples[0].files), len(samples), 3, *self.input_size
            return torch.zeros(1, dtype=torch.uint8).expand(shape)
        images = np.stack([sample.images for sample in samples if sample.images is not None], 1)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 2)))

    def _features(self, samples: Sequence[Sample]) -> Features | None:
        if self.features is None:
            return None
        rows = zip(*([(file, each.augmentation.fliplr) for file in each.files] for each in samples), strict=True)
        return Features.cat([self.features.read(*entry) for frame in rows for entry in frame])


def _joined_ignore(samples: Sequence[Sample]) -> torch.Tensor | None:
    """(T, F, h, w); None where nothing is to be ignored."""
    if all(sample.ignore is None for sample in samples):
        return None
    parts = [np.zeros_like(each.masks[:, 0]) if each.ignore is None else each.ignore for each in samples]
    return torch.from_numpy(np.stack(parts, 1))
