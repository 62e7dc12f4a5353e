"""How things move in drawn clips: a place, a turn and a size for every frame.

Times run from 0 to 1 over a clip whatever its number of frames. Matrices (T, 3, 3) float64 act on columns (x, y, 1).
"""

from __future__ import annotations

import numpy as np


def matrices(centre: np.ndarray, move: np.ndarray, turn: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Turn and scale about a centre (2,), then move: for moves (T, 2), turns (T,) in radians, sizes (T,) as factors."""
    cos, sin = np.cos(turn) * size, np.sin(turn) * size
    made = np.zeros((len(turn), 3, 3))
    made[:, 0, 0], made[:, 0, 1], made[:, 1, 0], made[:, 1, 1] = cos, -sin, sin, cos
    made[:, :2, 2] = centre + move - made[:, :2, :2] @ centre
    made[:, 2, 2] = 1
    return made


def times(rng: np.random.Generator, frames: int, dropped: float) -> np.ndarray:
    """When the frames (T,) are taken: evenly, save that a share of them comes late, when things have moved farther."""
    gaps = np.ones(max(frames - 1, 1))
    gaps[rng.random(len(gaps)) < dropped] = 2.5
    return (np.concatenate([[0], np.cumsum(gaps)]) / gaps.sum())[:frames]


def drift(rng: np.random.Generator, when: np.ndarray, speed: float, turning: float, growing: float) -> tuple:
    """Nearly straight: moves (T, 2) up to about `speed` pixels, turns (T,), sizes (T,)."""
    velocity, bend = rng.normal(0, speed, 2), rng.normal(0, 0.5 * speed, 2)
    move = when[:, None] * velocity + (when**2)[:, None] * bend
    return move, when * rng.normal(0, turning), np.exp(np.clip(when * rng.normal(0, growing), -1, 1))


def there_and_back(rng: np.random.Generator, when: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Moves (T, 2) away by `reach` (2,) and back again, once, at some time of the clip."""
    begin, length = rng.uniform(0, 0.35), rng.uniform(0.4, 0.65)
    phase = np.clip((when - begin) / length, 0, 1)
    return np.sin(np.pi * phase)[:, None] ** 0.7 * reach


def through(rng: np.random.Generator, when: np.ndarray, start: np.ndarray, crossing: np.ndarray) -> np.ndarray:
    """Moves (T, 2) that lead from `start` (2,) through the point `crossing` (2,), and on."""
    at = rng.uniform(0.3, 0.7)
    return (when / at)[:, None] * (crossing - start)
