"""Simulated users of an evaluation: where they click, how they correct a mask.

Masks are bool (H, W); points are xy in pixels and name a pixel; boxes are xyxy edges, so a single pixel is one wide.
"""

from __future__ import annotations

import cv2
import numpy as np


def depth(mask: np.ndarray) -> np.ndarray:
    """Distance (H, W) of the mask's pixels to its edge, the picture's border being one, else 0."""
    return cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]


def centre(mask: np.ndarray) -> np.ndarray:
    """The pixel (2,) farthest from the edge of the mask's largest connected piece."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        raise ValueError("An empty mask has no centre.")
    largest = pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    row, column = np.unravel_index(int(np.argmax(depth(largest))), mask.shape)
    return np.array([column, row], np.float32)


def box(mask: np.ndarray) -> np.ndarray:
    """The edges (4,) around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def correction(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The next click on a mask that is not right yet, at the centre of the largest error.

    Args:
        predicted: What the network answered.
        truth: What was wanted.

    Returns:
        The pixel (2,) and its label, 1 where the object was missed and 0 where too much was taken; None without errors.
    """
    wrong = predicted != truth
    if not wrong.any():
        return None
    point = centre(wrong)
    return point, int(truth[int(point[1]), int(point[0])])
