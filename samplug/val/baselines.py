"""What one gets without any network: the least that a network has to beat."""

from __future__ import annotations

import cv2
import numpy as np

from samplug.data.clicks import Click, next_click, outer_box
from samplug.masks.boxes import Box
from samplug.val.metrics import jaccard

COLOUR_TOLERANCE = 12.0  # how far a neighbour's colour may lie from the clicked one's, of 255
GRABCUT_ROUNDS = 3


def baseline_scores(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """IoU of a flood fill from the first click, of the box as mask, and of GrabCut from the box."""
    box, click = outer_box(truth), next_click(None, truth)
    assert click is not None
    masks = {"flood_fill": flood_fill(image, click), "box_as_mask": box_mask(box, truth.shape)}
    masks["grabcut"] = grabcut(image, box)
    return {name: jaccard(mask, truth) for name, mask in masks.items()}


def flood_fill(image: np.ndarray, click: Click) -> np.ndarray:
    """The pixels connected to a click that are of its colour, (H, W) bool."""
    height, width = image.shape[:2]
    reached = np.zeros((height + 2, width + 2), np.uint8)
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 255 << 8
    tolerance = (COLOUR_TOLERANCE,) * 3
    cv2.floodFill(smooth, reached, (click.x, click.y), (0, 0, 0), tolerance, tolerance, flags)
    return reached[1:-1, 1:-1] > 0


def box_mask(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """The box itself as a mask (H, W)."""
    left, top, right, bottom = box
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def grabcut(image: np.ndarray, box: Box) -> np.ndarray:
    """The mask of GrabCut (Rother et al., SIGGRAPH 2004) in a box; the box itself where it fills the image."""
    inside = box_mask(box, image.shape[:2])
    if inside.all():
        return inside
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(0)
    ignored, background, foreground = (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, ignored, background, foreground, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
