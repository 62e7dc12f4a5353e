"""Surfaces: colours with the statistics of photographs, and patterns over them.

A texture is a float32 image (height, width, 3), RGB, mostly within 0..1.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

_OPPONENT = np.array([[1, 1, 1], [0.8, 0.1, -0.9], [0.5, -0.9, 0.4]], np.float32)  # light, blue-yellow, green-red
_BANK_SIZE, _BANK_FIELDS = 256, 24


@cache
def _noise_bank() -> np.ndarray:
    """Periodic noise fields with power 1/f^b, b from 0.6 (sand) to 3.4 (clouds), mean 0, deviation 1."""
    rng = np.random.default_rng(20)
    frequency = np.hypot(np.fft.fftfreq(_BANK_SIZE)[:, None], np.fft.rfftfreq(_BANK_SIZE)[None]) * _BANK_SIZE
    frequency[0, 0] = 1
    fields = []
    for slope in np.linspace(0.6, 3.4, _BANK_FIELDS):
        spectrum = np.fft.rfft2(rng.normal(size=(_BANK_SIZE, _BANK_SIZE))) * frequency ** (-slope / 2)
        spectrum[0, 0] = 0
        field = np.fft.irfft2(spectrum, s=(_BANK_SIZE, _BANK_SIZE))
        fields.append((field / field.std()).astype(np.float32))
    return np.stack(fields)


def noise(rng: np.random.Generator, height: int, width: int, rough: float = 0.5) -> np.ndarray:
    """A turned and scaled cut (height, width) of noise; `rough` 0 asks for clouds, 1 for sand."""
    level = np.clip((1 - rough) + rng.normal(0, 0.12), 0, 1)
    field = _noise_bank()[int(level * (_BANK_FIELDS - 1))]
    turn, zoom = rng.uniform(0, 2 * np.pi), 2 ** rng.uniform(-1.2, 1)
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    matrix = np.array([[cos, -sin, rng.uniform(0, _BANK_SIZE)], [sin, cos, rng.uniform(0, _BANK_SIZE)]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(field, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)


def colour(rng: np.random.Generator) -> np.ndarray:
    """One RGB colour (3,): wide in lightness, mostly narrow in hue, now and then vivid."""
    vivid = 0.3 if rng.random() < 0.3 else 0.08
    return np.clip(np.array([rng.normal(0.45, 0.24), *rng.normal(0, vivid, 2)], np.float32) @ _OPPONENT, 0, 1)


def _second(rng: np.random.Generator, first: np.ndarray) -> np.ndarray:
    """A colour that goes with the first: mostly another lightness of it."""
    if rng.random() < 0.25:
        return colour(rng)
    return np.clip(first + np.array([rng.normal(0, 0.22), *rng.normal(0, 0.04, 2)], np.float32) @ _OPPONENT, 0, 1)


def _mix(weight: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.merge([weight * change + start for start, change in zip(first, second - first, strict=True)])


def _ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A plane (height, width) that rises from about -1 to 1 in a random direction."""
    turn = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    return np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y[:, None]


def flat(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One colour with next to no variation."""
    grain = noise(rng, height, width) * np.float32(rng.uniform(0, 0.015))
    return cv2.merge([shade + grain for shade in colour(rng)])


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A slow change from one colour to another."""
    first = colour(rng)
    return _mix(_ramp(rng, height, width) * 0.5 + 0.5, first, _second(rng, first))


def cloud(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two colours mixed by noise, from clouds to sand."""
    first = colour(rng)
    return _mix(noise(rng, height, width, rng.random()) * np.float32(0.35) + 0.5, first, _second(rng, first))


def spots(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise cut at a level: islands of one colour in another."""
    first, field = colour(rng), noise(rng, height, width, rng.uniform(0, 0.6))
    weight = np.clip((field - np.float32(rng.normal(0, 0.7))) * np.float32(rng.uniform(2, 12)), 0, 1)
    return _mix(weight, first, _second(rng, first))


def stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Bands, straight or bent by noise, soft or sharp."""
    first, count = colour(rng), rng.uniform(2, 18)
    phase = _ramp(rng, height, width) * np.float32(count * np.pi / 2)
    if rng.random() < 0.6:
        phase += noise(rng, height, width, 0.15) * np.float32(rng.uniform(0, 1.5))
    return _mix(np.clip(np.sin(phase) * np.float32(rng.uniform(0.5, 4)) + 0.5, 0, 1), first, _second(rng, first))


def checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A chequered or woven surface."""
    first, count, turn = colour(rng), rng.uniform(2, 14) * np.pi / 2, rng.uniform(0, np.pi)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across = np.sin(count * (np.cos(turn) * x + np.sin(turn) * y))
    along = np.sin(count * (np.cos(turn) * y - np.sin(turn) * x))
    weight = np.clip(across * along * rng.uniform(0.5, 5) + 0.5, 0, 1).astype(np.float32)
    return _mix(weight, first, _second(rng, first))


def cells(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Voronoi cells with shades of one colour."""
    count = int(rng.integers(12, 60))
    sites = rng.uniform(0, 1, (count, 2)).astype(np.float32) * [width, height]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    distance = [(x - site[0]) ** 2 + (y - site[1]) ** 2 for site in sites]
    first = colour(rng)
    return _mix(rng.uniform(0, 1, count).astype(np.float32)[np.argmin(distance, axis=0)], first, _second(rng, first))


Texture = Callable[[np.random.Generator, int, int], np.ndarray]
FLAT_TEXTURES: tuple[Texture, ...] = (flat, gradient)
TEXTURES: tuple[Texture, ...] = (flat, gradient, cloud, cloud, spots, stripes, checks)
HELD_OUT_TEXTURES: tuple[Texture, ...] = (cells,)
"""Never drawn in training."""
