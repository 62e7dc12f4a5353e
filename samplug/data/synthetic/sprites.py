"""Sprites and actors of drawn clips: outlines with surfaces, and the parts and limbs that move with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from samplug.data.synthetic import motion, scenes, shapes
from samplug.data.synthetic.painting import Layer, Wave

_SKIN_MARGIN = 1.2  # a skin is larger than its outline, which changes its form
_MIN_SKIN, _MIN_CONTRAST = 12, 15  # pixels; mean difference of a surface to what lies behind it, of 255


@dataclass(frozen=True, eq=False)
class Sprite:
    """An outline and its surface; actors of one sprite look alike."""

    outline: shapes.Shape  # in its own unit
    skin: np.ndarray  # (h, w, 3) uint8
    texels: np.ndarray  # (3, 3) from pixels of the skin to the unit
    parts: tuple[Sprite, ...] = ()  # on the outline, in the same unit, in painter's order
    limb: Sprite | None = None  # behind the outline, in its own unit
    joint: np.ndarray = field(default_factory=lambda: np.zeros(2))  # (2,) where the limb is attached

    @property
    def radius(self) -> float:
        """Of the circle about the origin that holds the outline."""
        return max(float(np.linalg.norm(contour, axis=1).max()) for part in self.outline for contour in part)


@dataclass(frozen=True, eq=False)
class Actor:
    """Layers that move together, in painter's order, and the objects that they make: the whole, then its parts."""

    layers: list[Layer]
    objects: list[list[Layer]]


class SpriteMaker:
    """Makes sprites with the outlines and surfaces of drawn images."""

    def __init__(self, painter: scenes.Painter, behind: np.ndarray):
        self.painter, self.rng, self.behind = painter, painter.rng, behind

    def make(self, size: float) -> Sprite:
        """A sprite for an actor whose area has a square root of `size` pixels."""
        rng, level = self.rng, self.painter.level
        outline = shapes.place(self.painter.outline(), np.zeros(2), 1.0, 0.0, 2 ** rng.normal(0, 0.35))
        parts: list[Sprite] = []
        if rng.random() < 0.1 + 0.35 * level:
            parts = [self.make_part(outline, size) for _ in range(int(rng.integers(1, 4)))]
        skin, texels = self.make_skin(outline, size)
        if rng.random() > 0.25 * level:
            return Sprite(outline, skin, texels, tuple(parts))
        return Sprite(outline, skin, texels, tuple(parts), self.make_limb(size), _vertex(rng, outline) * 0.8)

    def make_simple(self, outline: shapes.Shape, size: float) -> Sprite:
        """A sprite of a given outline, in its unit, without parts and limbs."""
        return Sprite(outline, *self.make_skin(outline, size))

    def make_part(self, whole: shapes.Shape, size: float) -> Sprite:
        """A piece on a whole, in the unit of that."""
        centre = _vertex(self.rng, whole) * self.rng.uniform(0, 0.8)
        share, turn = self.rng.uniform(0.04, 0.3), self.rng.uniform(0, 2 * np.pi)
        outline = shapes.place(self.painter.outline(), centre, share**0.5, turn, 2 ** self.rng.normal(0, 0.4))
        return self.make_simple(outline, size)

    def make_limb(self, size: float) -> Sprite:
        """A long sprite that hangs on its end."""
        long, thick = self.rng.uniform(0.5, 1.1), self.rng.uniform(0.12, 0.3)
        along = shapes.superellipse(self.rng, 4.0)[0][0] * [long / 2, thick / 2] + [long / 2, 0]
        return self.make_simple([[along.astype(np.float32)]], size)

    def make_skin(self, outline: shapes.Shape, size: float) -> tuple[np.ndarray, np.ndarray]:
        """A surface for an outline with its texels: seen against what is behind, and mostly lit from a side."""
        vertices = np.concatenate([contour for part in outline for contour in part])
        middle, half = (vertices.max(0) + vertices.min(0)) / 2, _SKIN_MARGIN * np.ptp(vertices, axis=0) / 2 + 1e-3
        width, height = np.clip(2 * half * size, _MIN_SKIN, self.behind.shape[1::-1]).astype(int).tolist()
        scale = 2 * half / [width, height]
        texels = np.array([[scale[0], 0, middle[0] - half[0]], [0, scale[1], middle[1] - half[1]], [0, 0, 1]])
        cover = shapes.fill([[(c - texels[:2, 2]) / scale for c in part] for part in outline], height, width)
        lit = self.painter.lit(self.surface(height, width), cover, float(size))
        return (np.clip(lit, 0, 1) * 255).astype(np.uint8), texels

    def surface(self, height: int, width: int) -> np.ndarray:
        """Float32 (height, width, 3) that differs from the background, or from a sample of it."""
        sample = self.cut(self.behind, height, width)[::4, ::4]
        for attempt in range(5):
            made = self.cut(self.painter.surface(height, width), height, width)
            if np.abs(made[::4, ::4].mean((0, 1)) * 255 - sample.mean((0, 1))).max() > _MIN_CONTRAST:
                break
            # What nobody can see must not be prompted: where few surfaces are shared, now and then one more.
            self.painter.palette = [] if attempt == 3 else self.painter.palette
        return made

    def cut(self, surface: np.ndarray, height: int, width: int) -> np.ndarray:
        """A window somewhere in a surface that may be larger."""
        y, x = (int(self.rng.integers(0, side)) for side in np.subtract(surface.shape[:2], (height - 1, width - 1)))
        return surface[y : y + height, x : x + width]


def make_actor(rng: np.random.Generator, sprite: Sprite, poses: np.ndarray, when: np.ndarray, level: float) -> Actor:
    """Put a sprite on a path, matrices (T, 3, 3) from its unit to the frame; it may bend and cast a shadow."""
    wave = _wave(rng, when) if rng.random() < 0.5 * level else None
    has_shadow, size = rng.random() < 0.3 * level, np.sqrt(abs(np.linalg.det(poses[0])))
    shadow = rng.uniform(-1, 1, 2) * 0.12 * size if has_shadow else None
    shutter = rng.uniform(0.2, 0.8) if rng.random() < 0.3 * level else 0.0
    body = Layer(sprite.outline, sprite.skin, sprite.texels, poses, wave, shadow=shadow, shutter=shutter)
    parts = [Layer(p.outline, p.skin, p.texels, poses, wave, body, shutter=shutter) for p in sprite.parts]
    limbs = []
    if sprite.limb is not None:
        swing = rng.uniform(0, 2 * np.pi) + motion.wander(rng, when, 0.15 * level)
        hung = motion.matrices(np.tile(sprite.joint, (len(when), 1)), swing, np.ones(len(when)))
        limbs = [Layer(sprite.limb.outline, sprite.limb.skin, sprite.limb.texels, poses @ hung, shutter=shutter)]
    whole = [*limbs, body, *parts]
    return Actor(whole, [whole, *([part] for part in parts)])


def _wave(rng: np.random.Generator, when: np.ndarray) -> Wave:
    """A wave that bends an outline slowly by up to a sixth of its radius."""
    return Wave(rng.uniform(-0.1, 0.1, 2), rng.normal(0, 2, (2, 2)), rng.uniform(0, 7) + rng.uniform(0.1, 0.7) * when)


def _vertex(rng: np.random.Generator, outline: shapes.Shape) -> np.ndarray:
    contour = outline[0][0]
    return contour[int(rng.integers(len(contour)))]
