"""The built-in data set: drawn pictures and clips that training never sees. Needs torch, numpy and OpenCV alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from samplug.measure import pictures, videos
from samplug.measure.entering import Network
from samplug.measure.lazy import Lazy
from samplug.measure.pictures import Asking, Picture
from samplug.measure.videos import Following, Frame, Video
from samplug.nn.sam2 import SAM2Model
from samplug.train import clips, scenes
from samplug.view import Size

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


def measure_pictures(
    model: Network,
    count: int = 500,
    *,
    side: int = SIDE,
    imgsz: Size | None = None,
    level: float = 0.5,
    held_out: bool = False,
    objects: int = OBJECTS,
    clicks: int = 20,
    batch: int = 16,
    baselines: bool = True,
) -> dict[str, Any]:
    """Measure a network on drawn pictures; see `samplug.measure.pictures.measure` for the scores.

    Args:
        model: In eval mode, on any device.
        count: Pictures.
        side: Of a picture, in pixels.
        imgsz: (h, w) of the network's input; None for the network's own.
        level: 0 for a few large plain objects, 1 for clutter.
        held_out: Of outlines and surfaces that training never uses.
        objects: The most objects of a picture.
        clicks: The most clicks on an object.
        batch: Pictures at once.
        baselines: Whether to add flood fill, box as mask and GrabCut.

    Returns:
        `Findings.as_dict()`.
    """
    asking = Asking(clicks=clicks, objects=objects, batch=batch, baselines=baselines)
    drawn = drawn_pictures(count, side=side, level=level, held_out=held_out)
    return pictures.measure(model, drawn, imgsz or model.image_size, asking).as_dict()


def measure_clips(
    model: SAM2Model,
    count: int = 60,
    frames: int = 24,
    *,
    side: int = SIDE,
    imgsz: Size | None = None,
    level: float = 0.5,
    held_out: bool = False,
    objects: int = OBJECTS,
    ask: tuple[str, ...] = ("mask",),
    batch: int = 8,
    baselines: bool = True,
) -> dict[str, Any]:
    """Measure a network on drawn clips; see `samplug.measure.videos.measure` for the scores.

    Args:
        model: A SAM 2 in eval mode, on any device.
        count: Clips.
        frames: Of each.
        side: Of a frame, in pixels.
        imgsz: (h, w) of the network's input; None for the network's own.
        level: 0 for a few large plain objects, 1 for clutter.
        held_out: Of outlines and surfaces that training never uses.
        objects: The most objects of a clip.
        ask: How objects are shown on their first frame: `"mask"`, `"box"`, `"click"`.
        batch: Frames encoded at once.
        baselines: Whether to add the network with its memory off, and the first mask kept.

    Returns:
        `Findings.as_dict()` for each way of showing objects and each baseline.
    """
    following = Following(ask=ask, batch=batch, baselines=baselines)
    drawn = drawn_clips(count, frames=frames, side=side, level=level, objects=objects, held_out=held_out)
    found = videos.measure(model, drawn, imgsz or model.image_size, following)
    return {name: findings.as_dict() for name, findings in found.items()}
