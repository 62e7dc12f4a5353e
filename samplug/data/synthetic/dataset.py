"""The built-in data set: drawn images and clips that training never sees. Needs torch, numpy and OpenCV alone."""

import numpy as np

from samplug.data.samples import AnnotatedFrame, AnnotatedImage, AnnotatedVideo, Lazy
from samplug.data.synthetic import clips, scenes

VAL_SEED = 0x5CE2E5  # training seeds its generators with a smaller first number
SIDE = 256  # pixels
OBJECTS = 3


def drawn_images(count: int, *, side: int = SIDE, level: float = 0.5, held_out: bool = False) -> Lazy[AnnotatedImage]:
    """Images (side, side), always the same ones: of `level` 0 for a few large plain objects to 1 for clutter.

    `held_out` ones have outlines and surfaces that training never uses.
    """

    def draw(number: int) -> AnnotatedImage:
        scene = scenes.draw(np.random.default_rng([VAL_SEED, number]), side, side, level=level, held_out=held_out)
        return AnnotatedImage(f"scene {number}", scene.image, scene.masks)

    return Lazy(range(count), draw)


def drawn_clips(
    count: int,
    *,
    frames: int = 24,
    side: int = SIDE,
    level: float = 0.5,
    objects: int = OBJECTS,
    held_out: bool = False,
) -> Lazy[AnnotatedVideo]:
    """Videos (side, side) with up to `objects` objects, always the same ones; see `drawn_images`."""

    def draw(number: int) -> AnnotatedVideo:
        rng = np.random.default_rng([VAL_SEED, number, 1])
        clip = clips.draw(rng, side, side, frames=frames, level=level, objects=objects, held_out=held_out)
        rows = zip(clip.images, clip.masks, strict=True)
        return AnnotatedVideo(f"clip {number}", [AnnotatedFrame(image, masks) for image, masks in rows])

    return Lazy(range(count), draw)
