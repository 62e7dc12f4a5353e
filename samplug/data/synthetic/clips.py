"""Procedural clips with exact masks: things that move, cross, hide, leave and return before a drawn background.

Outlines and surfaces are those of `scenes`. Every thing has a path of its own and the camera has one more. Light
drifts, fast things smear, frames are dropped, sensors are noisy.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from samplug.data.synthetic import scenes
from samplug.data.synthetic.choreography import Choreographer
from samplug.data.synthetic.painting import Film, Layer

_GRAIN_MARGIN = 64


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and the objects that are followed through them."""

    images: np.ndarray  # (T, H, W, 3) uint8, RGB
    masks: np.ndarray  # (T, N, H, W) bool, what is visible of each object; N >= 1, all are visible in the first frame


def draw(
    rng: np.random.Generator, height: int, width: int, *, frames: int = 8, level: float = 1.0, objects: int = 3,
    held_out: bool = False,
) -> Clip:  # fmt: skip
    """Draw one clip of so many pixels and frames; the same state of the generator gives the same clip.

    What happens is spread over the clip whatever its length. A level of 0 gives one or two large plain things that move
    slowly and hide nothing, 1 everything. At most so many `objects` are followed. `held_out` is as in `scenes.draw`.
    """
    while True:
        plan = Choreographer(rng, height, width, frames, scenes.Painter(rng, level, held_out))
        plan.place_actors()
        clip = _record(rng, Film(plan.backgrounds(), plan.layers), plan.followed, level, objects)
        if clip is not None:
            return clip


def _record(
    rng: np.random.Generator, film: Film, followed: list[list[Layer]], level: float, objects: int
) -> Clip | None:
    """A clip of some objects visible in its first frame, forwards or backwards; None if there are none."""
    order = slice(None, None, -1 if rng.random() < 0.5 else 1)
    first = slice(-1, None) if order.step == -1 else slice(1)
    least = max(scenes.MIN_VISIBLE * film.top[0].size, 12)
    seen = [layers for layers in followed if np.count_nonzero(film.visible(layers, first)) >= least]
    if not seen:
        return None
    chosen = [seen[index] for index in rng.permutation(len(seen))[:objects]]
    masks = np.stack([film.visible(layers)[order] for layers in chosen], 1)
    return Clip(_camera(rng, film.images[order], level), masks)


def _camera(rng: np.random.Generator, images: np.ndarray, level: float) -> np.ndarray:
    """Camera effects on frames (T, H, W, 3) uint8: blur, drifting brightness, grain, compression."""
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
        made[number] = scenes.jpeg(shot, quality) if number >= packed else shot
    return made


def _tones(rng: np.random.Generator, frames: int, level: float) -> np.ndarray:
    """Tables (T, 1, 256, 3) uint8 from a scene's light to an image's: gamma, tint, and brightness that drifts."""
    gamma, tint = 2 ** rng.normal(0, 0.3), 1 + 0.12 * level * rng.normal(0, 1, 3)
    swing = rng.normal(0, 0.15 * level) * np.sin(rng.uniform(0, 7) + np.arange(frames) * rng.uniform(0.05, 0.5))
    light = (np.arange(256) / 255)[:, None] ** gamma * tint
    return np.clip(255 * light[None, None] * (1 + swing)[:, None, None, None], 0, 255).astype(np.uint8)


@cache
def _grain(height: int, width: int) -> np.ndarray:
    """Sensor noise of deviation 1, with a margin to take cuts from: drawing it anew for every frame costs too much."""
    shape = (height + _GRAIN_MARGIN, width + _GRAIN_MARGIN, 3)
    return np.random.default_rng(21).standard_normal(shape, np.float32)
