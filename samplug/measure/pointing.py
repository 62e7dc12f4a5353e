"""Where a simulated user points: the middle of the largest error, or a box around the object.

Masks are bool (H, W); a point names a pixel, xy; a box has the edges xyxy, so that a single pixel is one wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Click:
    """A pixel, and 1 where the object was missed or 0 where too much was taken."""

    x: int
    y: int
    label: int


def next_click(found: np.ndarray, wanted: np.ndarray) -> Click | None:
    """The pixel deepest inside an error, of what is missing or of what is too much (as RITM, arXiv 2102.06583).

    With nothing found that is the middle of the object. None where the mask is right.
    """
    missing, excess = deepest(wanted & ~found), deepest(found & ~wanted)
    depth, place, label = max((*missing, 1), (*excess, 0), key=lambda error: (error[0], error[2]))
    return Click(place[1], place[0], label) if depth else None


def deepest(mask: np.ndarray) -> tuple[float, tuple[int, int]]:
    """The largest distance to the mask's edge, the picture's border being one, and the (row, column) that has it."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return 0.0, (0, 0)
    padded = np.pad(mask[top : top + height, left : left + width], 1).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = divmod(int(distance.argmax()), width)
    return float(distance[row, column]), (top + row, left + column)


def box_around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The edges around a mask that is not empty."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width, top + height
