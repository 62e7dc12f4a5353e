"""How well a mask meets the truth: region overlap J and boundary agreement F (Perazzi et al., DAVIS, CVPR 2016).

Masks are bool (H, W). `void` pixels, where nobody knows the truth, count for neither.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

TOLERANCE = 0.008  # of the picture's diagonal: how far off a boundary may lie
ROUNDING = 1e-3  # distances between pixels are roots of whole numbers, as float32


def jaccard(found: np.ndarray, wanted: np.ndarray, void: np.ndarray | None = None) -> float:
    """Intersection over union; 1 where both are empty."""
    if void is not None:
        found, wanted = found & ~void, wanted & ~void
    union = int(np.count_nonzero(found | wanted))
    return int(np.count_nonzero(found & wanted)) / union if union else 1.0


def boundary_f(found: np.ndarray, wanted: np.ndarray, void: np.ndarray | None = None) -> float:
    """Harmonic mean of two shares: of the found boundary near the true one, and of the true one near the found.

    Near is within `TOLERANCE` of the diagonal, rounded up to whole pixels. 1 where both are empty.
    """
    if void is not None:
        found, wanted = found & ~void, wanted & ~void
    radius = math.ceil(TOLERANCE * math.hypot(*wanted.shape))
    window = around(found | wanted, radius + 2)
    edges = [boundary(mask[window]) for mask in (found, wanted)]
    counts = [int(edge.sum()) for edge in edges]
    if not all(counts):
        return float(not any(counts))
    precision, recall = (
        int((edge & near(other, radius)).sum()) / count
        for edge, other, count in zip(edges, reversed(edges), counts, strict=True)
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their neighbour to the right, below, or below to the right."""
    wider = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = wider[:-1, 1:], wider[1:, :-1], wider[1:, 1:]
    return (mask != right) | (mask != below) | (mask != both)


def near(edge: np.ndarray, radius: int) -> np.ndarray:
    """Pixels within a distance of any pixel of an edge, which has some."""
    distance = cv2.distanceTransform((~edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= radius + ROUNDING


def around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The window of a mask and a margin, inside the picture; all of it for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return slice(None), slice(None)
    down = slice(max(top - margin, 0), top + height + margin)
    return down, slice(max(left - margin, 0), left + width + margin)
