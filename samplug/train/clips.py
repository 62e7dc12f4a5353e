"""Procedural clips with exact masks: cut-outs of one drawn scene move over another.

The cut-outs are the objects of `scenes`, so outlines, surfaces, parts and look-alikes are theirs. Every cut-out has a
path, the camera has one more; painter's order gives what is visible. Objects cross, hide behind others or behind still
things, leave and return; light drifts, fast things blur, frames are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from . import paths, scenes

_GRAIN_MARGIN = 64
_MOST_OF_PICTURE = 0.35  # cut-outs larger than this share stay at home


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


@dataclass(frozen=True, eq=False)
class _Layer:
    cover: np.ndarray  # (H, W) uint8, its outline at home
    picture: np.ndarray  # (H, W, 3) uint8, its surface, defined beyond the outline too
    places: np.ndarray  # (T, 3, 3), where it is in each frame
    blur: np.ndarray  # (T,) pixels over which motion smears it
    bend: np.ndarray  # (T,) pixels by which a wave of the length of the outline's height moves its rows


def draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    frames: int = 8,
    level: float = 1.0,
    objects: int = 3,
    held_out: bool = False,
) -> Clip:
    """Draw one clip.

    Args:
        rng: Source of every choice: the same generator state gives the same clip.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        frames: How many; what happens is spread over the clip whatever its length.
        level: 0 gives plain things that move slowly and hide nothing, 1 clutter, occlusions and a moving camera.
        objects: Followed ones, at most.
        held_out: Use the outlines and surfaces that training never sees, beside the usual ones.
    """
    while True:
        director = _Director(rng, level, frames)
        clip = director.film(height, width, held_out)
        seen = clip.masks[0].reshape(clip.masks.shape[1], -1).sum(1) >= max(scenes.LEAST_VISIBLE * height * width, 12)
        if seen.any():
            chosen = rng.permutation(np.flatnonzero(seen))[:objects]
            return Clip(clip.images, clip.masks[:, chosen], clip.amodal[:, chosen])


class _Director:
    """Decides what moves where, at one level of difficulty."""

    def __init__(self, rng: np.random.Generator, level: float, frames: int):
        self.rng, self.level, self.frames = rng, float(level), frames
        self.when = paths.times(rng, frames, 0.1 * level)

    def film(self, height: int, width: int, held_out: bool) -> Clip:
        rng = self.rng
        stage = scenes.draw(rng, height, width, level=self.level, held_out=held_out)
        wardrobe = scenes.draw(rng, height, width, level=self.level, held_out=held_out)
        camera = self.camera(height, width)
        cast = [self.actor(mask, wardrobe, camera) for mask in self.cut_outs(wardrobe)]
        if rng.random() < 0.5 * self.level:
            cast.append(self.occluder(stage, camera))
        still = [index for index in rng.permutation(len(stage.masks))[:2] if rng.random() < 0.35]
        clip = self.painted(stage, [stage.masks[index] for index in still], camera, cast)
        return self.reversed(clip) if rng.random() < 0.5 else clip

    def cut_outs(self, wardrobe: scenes.Scene) -> list[np.ndarray]:
        rng, masks = self.rng, wardrobe.masks
        fitting = [mask for mask in masks if mask.mean() < _MOST_OF_PICTURE]
        most = 1 + rng.poisson(0.5 + 2.5 * self.level)
        if not fitting:
            return []
        wish = np.sqrt([mask.sum() for mask in fitting])
        chosen = rng.choice(len(fitting), min(most, len(fitting)), replace=False, p=wish / wish.sum())
        return [fitting[index] for index in chosen]

    def camera(self, height: int, width: int) -> np.ndarray:
        shake = self.rng.random() * self.level
        speed = 0.12 * min(height, width) * shake
        moves = paths.drift(self.rng, self.when, speed, 0.15 * shake, 0.15 * shake)
        return paths.matrices(np.array([width / 2, height / 2]), *moves)

    def actor(self, mask: np.ndarray, wardrobe: scenes.Scene, camera: np.ndarray) -> _Layer:
        """A cut-out on a path of its own."""
        rng, (height, width) = self.rng, mask.shape
        span = (self.frames / 8) ** 0.6  # longer clips go farther, not as far as they are longer
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        centre = np.array([x + w / 2, y + h / 2])
        scale = 0.25 * min(height, width) + 0.8 * (w * h) ** 0.5  # small things move less far, in pixels
        speed = rng.uniform(0.03, 0.25 + 0.25 * self.level) * scale * span
        move, turn, size = paths.drift(rng, self.when, speed, 0.7 * span * rng.random(), 0.35 * span * rng.random())
        event = rng.random() * max(1.0, 8 / self.frames)
        if event < 0.3 * self.level:
            away = rng.normal(0, 1, 2)
            away *= (0.6 * np.array([width, height]) + [w, h]) / (np.linalg.norm(away) + 1e-6)
            move = 0.3 * move + paths.there_and_back(rng, self.when, away)
        elif event < 0.55 * self.level:
            move = 0.2 * move + paths.through(rng, self.when, centre, rng.uniform(0.25, 0.75, 2) * [width, height])
        places = camera @ paths.matrices(centre, move, turn, size)
        steps = np.linalg.norm(np.diff(move, axis=0, prepend=move[:1]), axis=1)
        blur = np.minimum(0.4 * steps, 0.03 * min(height, width)) * (rng.random() < 0.3 * self.level)
        bend = 0.2 * w * rng.random() * np.sin(rng.uniform(2, 9) * self.when) * (rng.random() < 0.4 * self.level)
        return _Layer(mask.astype(np.uint8) * 255, wardrobe.image, places, blur, bend)

    def occluder(self, stage: scenes.Scene, camera: np.ndarray) -> _Layer:
        """A still bar or post in front of everything; nobody asks for it."""
        rng, (height, width) = self.rng, stage.masks.shape[1:]
        cover = np.zeros((height, width), np.uint8)
        ends = rng.uniform(0, 1, (2, 2)) * [width, height]
        start, end = (tuple(int(value) for value in place) for place in ends)
        cv2.line(cover, start, end, 255, int(rng.uniform(0.06, 0.25) * min(height, width)))
        return _Layer(cover, np.roll(stage.image, width // 3, 1), camera, *np.zeros((2, self.frames)))

    def painted(self, stage: scenes.Scene, still: list[np.ndarray], camera: np.ndarray, cast: list[_Layer]) -> Clip:
        """Paint all frames; the objects are those of the stage, then the cast."""
        images, masks, amodal = [], [], []
        light = self.light()
        for frame in range(self.frames):
            image = _warped(stage.image, camera[frame], cv2.BORDER_REFLECT)
            whole = [_warped(mask.astype(np.uint8) * 255, camera[frame]) > 127 for mask in still]
            visible = [mask.copy() for mask in whole]
            for layer in cast:
                cover, there = _paint(image, layer, frame)
                for mask in visible:
                    mask[there] &= ~cover
                whole.append(np.zeros(image.shape[:2], bool))
                whole[-1][there] = cover
                visible.append(whole[-1].copy())
            images.append(self.shot(image, light[frame]))
            masks.append(visible)
            amodal.append(whole)
        shape = (self.frames, -1, *stage.masks.shape[1:])
        return Clip(np.stack(images), np.array(masks, bool).reshape(shape), np.array(amodal, bool).reshape(shape))

    def light(self) -> np.ndarray:
        """Brightness (T,) as a factor: it drifts."""
        swing = self.rng.normal(0, 0.12 * self.level)
        return 1 + swing * np.sin(np.pi * self.when * self.rng.uniform(0.5, 2))

    def shot(self, image: np.ndarray, light: float) -> np.ndarray:
        """What the camera makes of a frame: light and grain."""
        rng, (height, width) = self.rng, image.shape[:2]
        y, x = rng.integers(0, _GRAIN_MARGIN, 2)
        grain = _grain(height, width)[y : y + height, x : x + width]
        strength = rng.uniform(0, 3 + 9 * self.level)
        return cv2.addWeighted(image, light, grain, strength, 0, dtype=cv2.CV_8U)

    def reversed(self, clip: Clip) -> Clip:
        return Clip(*(np.ascontiguousarray(part[::-1]) for part in (clip.images, clip.masks, clip.amodal)))


@cache
def _grain(height: int, width: int) -> np.ndarray:
    """Sensor noise of deviation 1, with a margin to take cuts from: drawing it anew for every frame costs too much."""
    shape = (height + _GRAIN_MARGIN, width + _GRAIN_MARGIN, 3)
    return np.random.default_rng(21).standard_normal(shape, np.float32)


def _warped(picture: np.ndarray, place: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, place[:2], (width, height), borderMode=border)


def _paint(image: np.ndarray, layer: _Layer, frame: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Paint a layer into a frame, in place; gives what it covers, bool, and the window (rows, columns) that lies in."""
    place, blur, bend = layer.places[frame], int(layer.blur[frame]) | 1, float(layer.bend[frame])
    left, top, right, bottom = _window(layer.cover, place, image.shape[:2], blur, abs(bend))
    there = slice(top, bottom), slice(left, right)
    if left >= right or top >= bottom:
        return np.zeros((0, 0), bool), (slice(0, 0), slice(0, 0))
    matrix, size = place[:2] - [[0, 0, left], [0, 0, top]], (right - left, bottom - top)
    home, surface = _bent(layer.cover, layer.picture, bend)
    cover = cv2.warpAffine(home, matrix, size)
    picture = cv2.warpAffine(surface, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    soft = cover
    if blur > 1:
        soft, picture = cv2.blur(cover, (blur, blur)), cv2.blur(picture, (blur, blur))
    below = image[there].astype(np.float32)
    below += (soft * np.float32(1 / 255))[..., None] * (picture - below)
    image[there] = below
    return cover > 127, there


def _bent(cover: np.ndarray, picture: np.ndarray, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """A cover and its surface with every row moved sideways by a wave, by up to `bend` pixels."""
    if abs(bend) < 0.5:
        return cover, picture
    _, top, _, tall = cv2.boundingRect(cover)
    columns, rows = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in cover.shape[::-1]))
    columns += np.float32(bend) * np.sin((rows - top) * np.float32(2 * np.pi / tall))
    home = cv2.remap(cover, columns, rows, cv2.INTER_LINEAR)
    return home, cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _window(
    cover: np.ndarray, place: np.ndarray, shape: tuple[int, ...], blur: int, bend: float
) -> tuple[int, int, int, int]:
    """The edges, left top right bottom, of where a cover comes to lie, within the picture."""
    x, y, w, h = cv2.boundingRect(cover)
    left, right = x - bend, x + w + bend
    corners = np.array([[left, right, left, right], [y, y, y + h, y + h], [1, 1, 1, 1]])
    moved = place[:2] @ corners
    low = np.clip(np.floor(moved.min(1)).astype(int) - blur, 0, shape[::-1])
    high = np.clip(np.ceil(moved.max(1)).astype(int) + blur + 1, 0, shape[::-1])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _returns(there: np.ndarray) -> bool:
    """Whether bool (T,) is on, off for two or more in a row, and on again."""
    runs = np.split(there, np.flatnonzero(np.diff(there)) + 1)
    return any(not run[0] and len(run) >= 2 for run in runs[1:-1])
