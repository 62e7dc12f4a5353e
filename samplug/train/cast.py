"""What acts in drawn clips: outlines in their surfaces, with the parts and limbs that go where the whole goes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import paths, scenes, shapes
from .films import Layer, Wave

_ROOM = 1.2  # a skin is larger than its outline, which changes its form
_LEAST_SKIN, _SHADES_APART = 12, 15  # pixels; mean difference of a surface to what lies behind it, of 255


@dataclass(frozen=True, eq=False)
class Dress:
    """An outline and its surface; what wears the same dress looks alike.

    Attributes:
        outline: In its unit.
        skin: (h, w, 3) uint8.
        texels: (3, 3) from pixels of the skin to the unit.
        parts: On the outline, in the same unit, each above those before.
        limb: Hangs on the outline behind it, in its own unit; None without one.
        joint: (2,) where the limb hangs.
    """

    outline: shapes.Shape
    skin: np.ndarray
    texels: np.ndarray
    parts: tuple[Dress, ...] = ()
    limb: Dress | None = None
    joint: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @property
    def radius(self) -> float:
        """Of the circle about the origin that holds the outline."""
        return max(float(np.linalg.norm(contour, axis=1).max()) for part in self.outline for contour in part)


@dataclass(frozen=True, eq=False)
class Actor:
    """Layers that move together, in painter's order, and the objects that they make: the whole, then its parts."""

    layers: list[Layer]
    objects: list[list[Layer]]


class Tailor:
    """Makes dresses with the outlines and surfaces of pictures."""

    def __init__(self, painter: scenes.Painter, behind: np.ndarray):
        self.painter, self.rng, self.behind = painter, painter.rng, behind

    def dress(self, size: float) -> Dress:
        """One for a thing whose area has a square root of `size` pixels."""
        rng, level = self.rng, self.painter.level
        outline = shapes.place(self.painter.outline(), np.zeros(2), 1.0, 0.0, 2 ** rng.normal(0, 0.35))
        parts: list[Dress] = []
        if rng.random() < 0.1 + 0.35 * level:
            parts = [self.part(outline, size) for _ in range(int(rng.integers(1, 4)))]
        skin, texels = self.skin(outline, size)
        if rng.random() > 0.25 * level:
            return Dress(outline, skin, texels, tuple(parts))
        return Dress(outline, skin, texels, tuple(parts), self.limb(size), _vertex(rng, outline) * 0.8)

    def bare(self, outline: shapes.Shape, size: float) -> Dress:
        """An outline given, in its unit, in a surface and nothing more."""
        return Dress(outline, *self.skin(outline, size))

    def part(self, whole: shapes.Shape, size: float) -> Dress:
        """A piece on a whole, in the unit of that."""
        centre = _vertex(self.rng, whole) * self.rng.uniform(0, 0.8)
        share, turn = self.rng.uniform(0.04, 0.3), self.rng.uniform(0, 2 * np.pi)
        outline = shapes.place(self.painter.outline(), centre, share**0.5, turn, 2 ** self.rng.normal(0, 0.4))
        return self.bare(outline, size)

    def limb(self, size: float) -> Dress:
        """A long thing that hangs on its end."""
        long, thick = self.rng.uniform(0.5, 1.1), self.rng.uniform(0.12, 0.3)
        along = shapes.superellipse(self.rng, 4.0)[0][0] * [long / 2, thick / 2] + [long / 2, 0]
        return self.bare([[along.astype(np.float32)]], size)

    def skin(self, outline: shapes.Shape, size: float) -> tuple[np.ndarray, np.ndarray]:
        """A surface for an outline with its texels: seen against what is behind, and mostly lit from a side."""
        vertices = np.concatenate([contour for part in outline for contour in part])
        middle, half = (vertices.max(0) + vertices.min(0)) / 2, _ROOM * np.ptp(vertices, axis=0) / 2 + 1e-3
        width, height = np.clip(2 * half * size, _LEAST_SKIN, self.behind.shape[1::-1]).astype(int).tolist()
        scale = 2 * half / [width, height]
        texels = np.array([[scale[0], 0, middle[0] - half[0]], [0, scale[1], middle[1] - half[1]], [0, 0, 1]])
        cover = shapes.fill([[(c - texels[:2, 2]) / scale for c in part] for part in outline], height, width)
        lit = self.painter.lit(self.surface(height, width), cover, float(size))
        return (np.clip(lit, 0, 1) * 255).astype(np.uint8), texels

    def surface(self, height: int, width: int) -> np.ndarray:
        """Float32 (height, width, 3) that differs from the background, or from a sample of it."""
        y, x = (int(self.rng.integers(0, side)) for side in np.subtract(self.behind.shape[:2], (height - 1, width - 1)))
        sample = self.behind[y : y + height : 4, x : x + width : 4]
        for attempt in range(5):
            made = self.cut(self.painter.surface(height, width), height, width)
            if np.abs(made[::4, ::4].mean((0, 1)) * 255 - sample.mean((0, 1))).max() > _SHADES_APART:
                break
            # What nobody can see must not be asked for: where few surfaces are shared, now and then one more.
            self.painter.palette = [] if attempt == 3 else self.painter.palette
        return made

    def cut(self, surface: np.ndarray, height: int, width: int) -> np.ndarray:
        """A window somewhere in a surface that may be larger."""
        y, x = (int(self.rng.integers(0, side)) for side in np.subtract(surface.shape[:2], (height - 1, width - 1)))
        return surface[y : y + height, x : x + width]


def actor(rng: np.random.Generator, dress: Dress, places: np.ndarray, when: np.ndarray, level: float) -> Actor:
    """Put a dress on a path, matrices (T, 3, 3) from its unit to the frame; it may bend and cast a shadow."""
    wave = _wave(rng, when) if rng.random() < 0.5 * level else None
    shadow = (
        rng.uniform(-1, 1, 2) * 0.12 * np.sqrt(abs(np.linalg.det(places[0]))) if rng.random() < 0.3 * level else None
    )
    shutter = rng.uniform(0.2, 0.8) if rng.random() < 0.3 * level else 0.0
    body = Layer(dress.outline, dress.skin, dress.texels, places, wave, shadow=shadow, shutter=shutter)
    parts = [Layer(p.outline, p.skin, p.texels, places, wave, body, shutter=shutter) for p in dress.parts]
    limbs = []
    if dress.limb is not None:
        swing = rng.uniform(0, 2 * np.pi) + paths.wander(rng, when, 0.15 * level)
        hung = paths.matrices(np.tile(dress.joint, (len(when), 1)), swing, np.ones(len(when)))
        limbs = [Layer(dress.limb.outline, dress.limb.skin, dress.limb.texels, places @ hung, shutter=shutter)]
    whole = [*limbs, body, *parts]
    return Actor(whole, [whole, *([part] for part in parts)])


def _wave(rng: np.random.Generator, when: np.ndarray) -> Wave:
    """A wave that bends an outline slowly by up to a sixth of its radius."""
    return Wave(rng.uniform(-0.1, 0.1, 2), rng.normal(0, 2, (2, 2)), rng.uniform(0, 7) + rng.uniform(0.1, 0.7) * when)


def _vertex(rng: np.random.Generator, outline: shapes.Shape) -> np.ndarray:
    contour = outline[0][0]
    return contour[int(rng.integers(len(contour)))]
