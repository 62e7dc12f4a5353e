"""Procedural clips with exact masks: things that move, cross, hide, leave and return before a drawn background.

Outlines and surfaces are those of `scenes`. Every thing has a path of its own and the camera has one more. Light
drifts, fast things smear, frames are dropped, sensors are noisy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from . import scenes
from .direction import Director
from .films import Film, Layer

_GRAIN_MARGIN = 64


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and the objects that are followed through them.

    Attributes:
        images: (T, H, W, 3) uint8, RGB.
        masks: (T, N, H, W) bool, what is visible of each object; N >= 1, and all are visible in the first frame.
        amodal: (T, N, H, W) bool, each object as if nothing were in front of it; the picture's border still cuts it.
    """

    images: np.ndarray
    masks: np.ndarray
    amodal: np.ndarray

    @property
    def leaves_and_returns(self) -> np.ndarray:
        """Bool (N,): which objects are gone for two frames or more and visible again later."""
        seen = np.asarray(self.masks.any((2, 3)))
        return np.array([_returns(seen[:, number]) for number in range(seen.shape[1])])


def draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    frames: int = 8,
    level: float = 1.0,
    objects: int = 3,
    held_out: bool = False,
    leaving: bool = False,
) -> Clip:
    """Draw one clip.

    Args:
        rng: Source of every choice: the same generator state gives the same clip.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        frames: How many; what happens is spread over the clip whatever its length.
        level: 0 gives one or two large plain things that move slowly and hide nothing, 1 everything.
        objects: Followed ones, at most.
        held_out: Use the outlines and surfaces that training never sees, beside the usual ones.
        leaving: Draw until an object is gone for two frames or more and visible again; needs four frames.

    Raises:
        ValueError: If an object should leave and return within fewer than four frames.
    """
    if leaving and frames < 4:
        raise ValueError(f"an object leaves and returns in 4 frames or more, not in {frames}; ask for frames=4")
    while True:
        director = Director(rng, height, width, frames, scenes.Painter(rng, level, held_out))
        director.engage(leaving)
        clip = _shot(rng, Film(director.backgrounds(), director.layers), director.followed, level, objects)
        if clip is not None and (not leaving or clip.leaves_and_returns.any()):
            return clip


def _shot(rng: np.random.Generator, film: Film, followed: list[list[Layer]], level: float, objects: int) -> Clip | None:
    """The film with some of those that its first frame shows, forwards or backwards; None if it shows none."""
    order = slice(None, None, -1 if rng.random() < 0.5 else 1)
    first = slice(-1, None) if order.step == -1 else slice(1)
    least = max(scenes.LEAST_VISIBLE * film.top[0].size, 12)
    seen = [layers for layers in followed if np.count_nonzero(film.visible(layers, first)) >= least]
    if not seen:
        return None
    chosen = [seen[index] for index in rng.permutation(len(seen))[:objects]]
    masks = np.stack([film.visible(layers)[order] for layers in chosen], 1)
    amodal = np.stack([film.amodal(layers)[order] for layers in chosen], 1)
    return Clip(_exposed(rng, film.images[order], level), masks, amodal)


def _exposed(rng: np.random.Generator, images: np.ndarray, level: float) -> np.ndarray:
    """What a camera makes of frames (T, H, W, 3) uint8: blur, light that drifts, grain, compression."""
    tones = _tones(rng, len(images), level)
    soft = rng.uniform(0.3, 0.9) if rng.random() < 0.5 * level else 0.0
    grain = _grain(*images.shape[1:3]) * np.float32(rng.uniform(0, 3 + 9 * level))
    packed = int(rng.integers(len(images))) if rng.random() < 0.2 * level else len(images)
    quality = int(rng.integers(25, 80))
    made = np.empty(images.shape, np.uint8)
    for number, (image, tone) in enumerate(zip(images, tones, strict=True)):
        shot = cv2.GaussianBlur(image, (3, 3), soft) if soft else image
        y, x = rng.integers(0, _GRAIN_MARGIN, 2)
        noise = grain[y : y + image.shape[0], x : x + image.shape[1]]
        shot = cv2.add(cv2.LUT(shot, tone), noise, dtype=cv2.CV_8U)
        made[number] = _packed(shot, quality) if number >= packed else shot
    return made


def _tones(rng: np.random.Generator, frames: int, level: float) -> np.ndarray:
    """Tables (T, 1, 256, 3) uint8 from a scene's light to a picture's: gamma, tint, and brightness that drifts."""
    gamma, tint = 2 ** rng.normal(0, 0.3), 1 + 0.12 * level * rng.normal(0, 1, 3)
    swing = rng.normal(0, 0.15 * level) * np.sin(rng.uniform(0, 7) + np.arange(frames) * rng.uniform(0.05, 0.5))
    light = (np.arange(256) / 255)[:, None] ** gamma * tint
    return np.clip(255 * light[None, None] * (1 + swing)[:, None, None, None], 0, 255).astype(np.uint8)


def _packed(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


@cache
def _grain(height: int, width: int) -> np.ndarray:
    """Sensor noise of deviation 1, with a margin to take cuts from: drawing it anew for every frame costs too much."""
    shape = (height + _GRAIN_MARGIN, width + _GRAIN_MARGIN, 3)
    return np.random.default_rng(21).standard_normal(shape, np.float32)


def _returns(there: np.ndarray) -> bool:
    """Whether bool (T,) is on, off for two or more in a row, and on again."""
    runs = np.split(there, np.flatnonzero(np.diff(there)) + 1)
    return any(not run[0] and len(run) >= 2 for run in runs[1:-1])
