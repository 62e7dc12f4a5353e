"""The built-in data set: drawn pictures and clips that training never sees. Needs torch, numpy and OpenCV alone."""

from __future__ import annotations

import numpy as np

from samplug.measure.lazy import Lazy
from samplug.measure.pictures import Picture
from samplug.measure.videos import Frame, Video
from samplug.train import clips, scenes

MEASURED = 0x5CE2E5  # training draws with generators of a smaller first number, its seed
SIDE = 256  # pixels
OBJECTS = 3


def drawn_pictures(count: int, *, side: int = SIDE, level: float = 0.5, held_out: bool = False) -> Lazy[Picture]:
    """Pictures (side, side), always the same ones.

    Args:
        count: How many.
        side: In pixels.
        level: 0 for a few large plain objects, 1 for clutter.
        held_out: Of outlines and surfaces that training never uses.
    """

    def draw(number: int) -> Picture:
        scene = scenes.draw(np.random.default_rng([MEASURED, number]), side, side, level=level, held_out=held_out)
        return Picture(f"scene {number}", scene.image, scene.masks)

    return Lazy(range(count), draw)


def drawn_clips(
    count: int,
    *,
    frames: int = 24,
    side: int = SIDE,
    level: float = 0.5,
    objects: int = OBJECTS,
    held_out: bool = False,
) -> Lazy[Video]:
    """Clips (side, side) of so many frames with up to so many objects, always the same ones; see `drawn_pictures`."""

    def draw(number: int) -> Video:
        rng = np.random.default_rng([MEASURED, number, 1])
        clip = clips.draw(rng, side, side, frames=frames, level=level, objects=objects, held_out=held_out)
        rows = zip(clip.images, clip.masks, strict=True)
        return Video(f"clip {number}", [Frame(image, masks) for image, masks in rows])

    return Lazy(range(count), draw)
