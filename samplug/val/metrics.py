"""Metrics of a mask against the truth: region IoU J and boundary F (Perazzi et al., DAVIS, CVPR 2016).

Masks are bool (H, W); `void` pixels are ignored. A metric added to `METRICS` appears in all results, files and tables.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

TOLERANCE = 0.008  # of the image's diagonal: how far off a boundary may lie
ROUNDING = 1e-3  # distances between pixels are roots of whole numbers, as float32


def jaccard(predicted: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Intersection over union; 1 where both are empty."""
    if void is not None:
        predicted, truth = predicted & ~void, truth & ~void
    union = int(np.count_nonzero(predicted | truth))
    return int(np.count_nonzero(predicted & truth)) / union if union else 1.0


def boundary_f(predicted: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Harmonic mean of boundary precision and recall; 1 where both masks are empty.

    Boundary pixels match within `TOLERANCE` of the diagonal, rounded up to whole pixels.
    """
    if void is not None:
        predicted, truth = predicted & ~void, truth & ~void
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    window = _window(predicted | truth, radius + 2)
    edges = [boundary(mask[window]) for mask in (predicted, truth)]
    counts = [int(edge.sum()) for edge in edges]
    if not all(counts):
        return float(not any(counts))
    precision, recall = (
        int((edge & _dilated(other, radius)).sum()) / count
        for edge, other, count in zip(edges, reversed(edges), counts, strict=True)
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


METRICS = {"J": jaccard, "F": boundary_f}


def mask_scores(predicted: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> dict[str, float]:
    """Every metric of one mask, by name."""
    return {name: metric(predicted, truth, void) for name, metric in METRICS.items()}


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their neighbour to the right, below, or below to the right."""
    wider = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = wider[:-1, 1:], wider[1:, :-1], wider[1:, 1:]
    return (mask != right) | (mask != below) | (mask != both)


def _dilated(edge: np.ndarray, radius: int) -> np.ndarray:
    """Pixels within a distance of any pixel of an edge, which has some."""
    distance = cv2.distanceTransform((~edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= radius + ROUNDING


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The rows and columns of a mask with a margin, inside the image; all of them for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return slice(None), slice(None)
    rows = slice(max(top - margin, 0), top + height + margin)
    return rows, slice(max(left - margin, 0), left + width + margin)
