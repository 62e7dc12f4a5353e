"""Outlines of drawn objects.

A shape is a union of parts; a part is a list of closed contours filled even-odd, so that a second contour cuts a hole.
Contours are (N, 2) float32, centred on the origin, with a radius of about 1.
"""

from collections.abc import Callable

import cv2
import numpy as np

Shape = list[list[np.ndarray]]
_ANGLES = np.linspace(0, 2 * np.pi, 64, endpoint=False, dtype=np.float32)
_SHIFT = 4  # fractional bits of OpenCV's integer coordinates


def _polar(radius: np.ndarray | float, angles: np.ndarray = _ANGLES) -> np.ndarray:
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radius, (-1, 1))).astype(np.float32)


def blob(rng: np.random.Generator) -> Shape:
    """A star-convex outline with a few random Fourier terms."""
    orders = np.arange(1, 7)
    waves = rng.normal(0, 0.3, 6) / orders
    radius = 1 + (waves[:, None] * np.cos(orders[:, None] * _ANGLES + rng.uniform(0, 2 * np.pi, (6, 1)))).sum(0)
    return [[_polar(np.clip(radius, 0.15, 2))]]


def polygon(rng: np.random.Generator) -> Shape:
    """Three to nine corners; concave when neighbouring radii differ."""
    corners = int(rng.integers(3, 10))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * (2 * np.pi / corners)
    return [[_polar(rng.uniform(rng.choice([0.4, 0.85]), 1, corners), angles)]]


def superellipse(rng: np.random.Generator, power: float | None = None) -> Shape:
    """From a diamond through ellipses to a rectangle with rounded corners."""
    power = float(2 ** rng.uniform(0, 4)) if power is None else power
    unit = _polar(1.0)
    return [[np.sign(unit) * np.abs(unit) ** (2 / power)]]


def ellipse(rng: np.random.Generator) -> Shape:
    """A disc; placing it stretches it."""
    return superellipse(rng, 2.0)


def ring(rng: np.random.Generator) -> Shape:
    """Any closed outline with a hole through which the layers below are seen."""
    outer = (blob, superellipse, ellipse)[int(rng.integers(3))](rng)[0][0]
    inner = outer if rng.random() < 0.6 else superellipse(rng)[0][0]
    return [[outer, inner * np.float32(rng.uniform(0.3, 0.65))]]


def stroke(rng: np.random.Generator) -> Shape:
    """A thin curve: a walk whose direction drifts, with a tapering width."""
    steps = 20
    heading = np.cumsum(rng.normal(0, rng.uniform(0.02, 0.35), steps)) + rng.uniform(0, 2 * np.pi)
    walk = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    walk = (walk - walk.mean(0)) / (np.abs(walk - walk.mean(0)).max() + 1e-6)
    normal = np.stack([-np.sin(heading), np.cos(heading)], axis=1)
    width = rng.uniform(0.03, 0.12) * np.linspace(1, rng.uniform(0.3, 1), steps)[:, None]
    left, right = (walk + normal * width).astype(np.float32), (walk - normal * width).astype(np.float32)
    quads = [[np.stack([left[i], left[i + 1], right[i + 1], right[i]])] for i in range(steps - 1)]
    joints = [[_polar(float(w), _ANGLES[::8]) + p] for p, w in zip(walk.astype(np.float32), width[:, 0], strict=True)]
    return quads + joints


def creature(rng: np.random.Generator) -> Shape:
    """A body with limbs and a head: several convex parts that belong together."""
    body = superellipse(rng, 2.5)[0][0] * np.array([1, rng.uniform(0.35, 0.9)], np.float32)
    parts: Shape = [[body]]
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 6))):
        root = _polar(0.5, np.array([angle], np.float32))[0]
        direction = _polar(1.0, np.array([angle + rng.normal(0, 0.5)], np.float32))[0]
        side = np.array([-direction[1], direction[0]], np.float32)
        tip, thick, thin = root + direction * rng.uniform(0.5, 1.3), rng.uniform(0.1, 0.3), rng.uniform(0.04, 0.2)
        limb = [root + side * thick, tip + side * thin, tip - side * thin, root - side * thick]
        parts.append([np.array(limb, np.float32)])
        if rng.random() < 0.4:
            parts.append([_polar(rng.uniform(0.15, 0.4)) + tip])
    return parts


def letter(rng: np.random.Generator) -> Shape:
    """A capital letter or digit of one of OpenCV's pen fonts."""
    canvas = np.zeros((128, 128), np.uint8)
    glyph = "ABCDEFGHJKLMNPQRSTUVWXYZ2345678"[int(rng.integers(31))]
    font, pen = int(rng.choice([0, 2, 3, 4])), int(rng.integers(6, 20))
    cv2.putText(canvas, glyph, (24, 104), font, 3.2, 255, pen, cv2.LINE_AA)
    contours, _ = cv2.findContours((canvas > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [[(c[:, 0].astype(np.float32) - 64) / 44 for c in contours if len(c) > 2]]


def crescent(rng: np.random.Generator) -> Shape:
    """A disc from which another disc has bitten a part."""
    bite = rng.uniform(0.3, 1.0)
    half = np.arccos(bite / 2)  # where two unit circles, `bite` apart, meet
    outer = _polar(1.0, np.linspace(half, 2 * np.pi - half, 40, dtype=np.float32))
    inner = _polar(1.0, np.linspace(np.pi + half, np.pi - half, 40, dtype=np.float32)) + np.array([bite, 0], np.float32)
    return [[np.concatenate([outer, inner])]]


Outline = Callable[[np.random.Generator], Shape]
OUTLINES: tuple[Outline, ...] = (blob, polygon, superellipse, ellipse, ring, stroke, creature)
HELD_OUT_OUTLINES: tuple[Outline, ...] = (letter, crescent)
"""Never drawn in training, so that generalisation can be measured."""


def area(shape: Shape) -> float:
    """Area of a shape in its own unit; overlapping parts count twice."""
    return sum(cv2.contourArea(part[0]) - sum(cv2.contourArea(hole) for hole in part[1:]) for part in shape)


def place(shape: Shape, centre: np.ndarray, size: float, turn: float, aspect: float) -> Shape:
    """Stretch a shape in its own unit to an aspect, width over height, turn it by radians, scale and move it.

    `size` is the square root of the area wanted, in pixels; `centre` (2,) xy in pixels.
    """
    scale = size / max(area(shape), 1e-3) ** 0.5
    cos, sin = np.cos(turn), np.sin(turn)
    stretch = np.array([[scale * aspect**0.5, 0], [0, scale * aspect**-0.5]], np.float32)
    matrix = (np.array([[cos, -sin], [sin, cos]], np.float32) @ stretch).T.astype(np.float32)
    return [[contour @ matrix + centre.astype(np.float32) for contour in part] for part in shape]


def fill(shape: Shape, height: int, width: int) -> np.ndarray:
    """Coverage (height, width) uint8 of a placed shape, with soft edges; 128 and more counts as the object."""
    canvas = np.zeros((height, width), np.uint8)
    for part in shape:
        fixed = [np.rint(contour * (1 << _SHIFT)).astype(np.int32) for contour in part]
        cv2.fillPoly(canvas, fixed, 255, cv2.LINE_AA, _SHIFT)
    return canvas
