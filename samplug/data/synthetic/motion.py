"""How things move in drawn clips.

Times (T,) are in frames: 0, 1, 2 … with a wider gap where frames were dropped. Places (T, 2) are xy in pixels.
"""

import numpy as np

_DROPPED_GAP = 2.5  # frames


def times(rng: np.random.Generator, frames: int, dropped: float) -> np.ndarray:
    """When the frames (T,) are taken: evenly, save for a share of them before which some were dropped."""
    gaps = np.where(rng.random(frames - 1) < dropped, _DROPPED_GAP, 1.0)
    return np.concatenate([[0.0], np.cumsum(gaps)])


def matrices(places: np.ndarray, turn: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(T, 3, 3) for columns (x, y, 1): scale and turn about the origin, then move to the places (T, 2)."""
    made = np.zeros((len(places), 3, 3))
    made[:, 0, 0] = made[:, 1, 1] = np.cos(turn) * size
    made[:, 1, 0] = np.sin(turn) * size
    made[:, 0, 1] = -made[:, 1, 0]
    made[:, :2, 2] = places
    made[:, 2, 2] = 1
    return made


def wander(rng: np.random.Generator, when: np.ndarray, rate: float) -> np.ndarray:
    """A value (T,) that goes to and fro from 0, by up to `rate` a frame."""
    pace, phase = rng.uniform(0.08, 0.4), rng.uniform(0, 2 * np.pi)
    return rate / pace * (np.sin(pace * when + phase) - np.sin(phase))


def straight(rng: np.random.Generator, when: np.ndarray, speed: float) -> np.ndarray:
    """Moves (T, 2) of about `speed` pixels a frame that bend and speed up a little; 0 at the middle of the clip."""
    since = when - when[-1] / 2
    heading, bend = rng.normal(0, 1, (2, 2))
    heading *= speed / (np.linalg.norm(heading) + 1e-6)
    return since[:, None] * heading + (since**2)[:, None] * bend * (0.4 * speed / max(when[-1], 1.0))


def bounced(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Places (T, 2) folded back wherever they would leave low..high, as a ball between walls."""
    span = high - low
    return low + span - np.abs((places - low) % (2 * span) - span)


def gone(when: np.ndarray, begin: float, end: float, ramp: float) -> np.ndarray:
    """A share (T,) that is 1 between two times, 0 more than `ramp` frames away from them, smooth between."""
    near = np.clip(1 - np.maximum(begin - when, when - end) / ramp, 0, 1)
    return near**2 * (3 - 2 * near)


def passing(when: np.ndarray, middle: float, half: float, ramp: float, near: float, far: float) -> np.ndarray:
    """A signed distance (T,): within `near` for `half` frames about the middle, then out to `far`, ever slower."""
    since = np.abs(when - middle)
    outside = 1 - np.exp(-np.maximum(since - half, 0) / ramp)
    return np.sign(when - middle) * (near * np.minimum(since / half, 1) + (far - near) * outside)
