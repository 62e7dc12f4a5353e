"""Images, or clips, on which a network in training is to answer as it did before.

T frames (1 for images), n objects, (h, w) the input's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from samplug.data.help import SCENES
from samplug.data.open import Data, open_data
from samplug.data.samples import AnnotatedFrame, Lazy
from samplug.data.synthetic import dataset
from samplug.errors import DataError, MissingSplitError
from samplug.nn.structs import Features
from samplug.train.data.augment import Augmentation, vanishes
from samplug.train.data.batches import Batch
from samplug.train.data.check import files_of
from samplug.transforms import Size

FIRST_DRAWN = 1 << 20  # the drawn images before are measured
DRAWN_IMAGES, DRAWN_CLIPS = 48, 8  # few enough to keep their features
MOST_KEPT = 64  # images and clips whose features are kept
REHEARSED_OBJECTS = 4  # of an image, at most
REHEARSAL = 3  # in the seeds
Key = tuple[str, int]  # images or videos, and the row there


@dataclass(eq=False)
class RehearsalSet:
    """What is rehearsed.

    Attributes:
        data: images, and clips where the network tracks.
        frames: of a clip.
        input_size: (h, w) of the network's input.
        kept: features of images and clips that were encoded before.
    """

    data: Data
    frames: int
    input_size: Size
    kept: dict[Key, Features] = field(default_factory=dict)

    @staticmethod
    def open(anchor: object, measured: Data | None, tracks: bool, frames: int, input_size: Size) -> RehearsalSet:
        """Open what is rehearsed: other images than those of the anchor set that are measured.

        Args:
            anchor: `anchor=` of a training; scenes are drawn where it is none.
            measured: the part of it that is measured.
            tracks: whether the network has a memory.
            frames: of a clip.
            input_size: (h, w) of the network's input.

        Raises:
            DataError: the anchor set has no other images.
        """
        if measured is None or anchor == SCENES:
            many = 2 * FIRST_DRAWN
            images = dataset.drawn_images(many)[FIRST_DRAWN:][:DRAWN_IMAGES]
            clips = dataset.drawn_clips(many, frames=frames)[FIRST_DRAWN:][: DRAWN_CLIPS if tracks else 0]
            return RehearsalSet(Data(images, clips), frames, input_size)
        try:
            found = open_data(str(anchor), split="train")
        except MissingSplitError:
            found = measured
        known = {file.path.resolve() for file in files_of(measured)}
        if any(file.path.resolve() in known for file in files_of(found)):
            raise DataError(
                f"keep= rehearses on other images than those that are measured, of which anchor={anchor} has none. "
                "Expected a data set with a split train, or anchor=scenes."
            )
        return RehearsalSet(Data(found.images, found.videos if tracks else Lazy()), frames, input_size)

    def draw(self, seed: Sequence[int], number: int) -> tuple[Batch, Key]:
        """An image or a clip, in turns, with some of its objects, and the key of its features.

        Args:
            seed: of the draw.
            number: even ones ask for an image, odd ones for a clip; where there is one kind alone, it is taken.
        """
        rng = np.random.default_rng([*seed, number, REHEARSAL])
        kinds = [kind for kind in ("images", "videos") if len(getattr(self.data, kind))]
        kind = kinds[number % len(kinds)]
        items = getattr(self.data, kind)
        for row in np.roll(np.arange(len(items)), -int(rng.integers(len(items)))).tolist():
            frames = [items[row]] if kind == "images" else self._clip(items[row].frames)
            if frames and (chosen := self._visible(frames[0], rng)):
                return self._batch(frames, chosen), (kind, row)
        raise DataError(f"keep=: no {kind} of the anchor set have an object that is visible in {self.input_size}.")

    def features_of(self, key: Key, encode: Callable[[], Features]) -> Features:
        """The features of an image or a clip; those of the first ones are kept."""
        if key in self.kept:
            return self.kept[key]
        features = encode().to("cpu")
        if len(self.kept) < MOST_KEPT:
            self.kept[key] = features
        return features

    def _clip(self, frames: Sequence[AnnotatedFrame]) -> list[AnnotatedFrame]:
        """The first annotated frames of a video; none where there are too few."""
        found = list(islice((frame for frame in frames if frame.masks is not None), self.frames))
        return found if len(found) == self.frames else []

    def _visible(self, frame: AnnotatedFrame, rng: np.random.Generator) -> list[int]:
        """Some of the objects that are visible in the input."""
        masks = () if frame.masks is None else frame.masks
        order = rng.permutation(len(masks)).tolist()
        return [row for row in order if not vanishes(Augmentation().fit_mask(masks[row], self.input_size))][
            :REHEARSED_OBJECTS
        ]

    def _batch(self, frames: Sequence[AnnotatedFrame], chosen: Sequence[int]) -> Batch:
        fit = Augmentation()
        images = np.stack([fit.fit_image(frame.image, self.input_size) for frame in frames])[:, None]
        rows = [frame.masks[chosen] for frame in frames if frame.masks is not None]
        masks = np.array([[fit.fit_mask(mask, self.input_size) for mask in row] for row in rows])
        return Batch(
            torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 2))),
            torch.from_numpy(masks),
            torch.zeros(len(chosen), dtype=torch.int64),
        )
