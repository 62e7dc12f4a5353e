"""What one gets without any network: the least that a network has to beat."""

from __future__ import annotations

import cv2
import numpy as np

from samplug.measure.overlap import jaccard
from samplug.measure.pointing import Click, box_around, next_click

COLOURS = 12  # how far a neighbour's colour may lie from the clicked one's, of 255, for a flood fill to go on
ROUNDS = 3  # of GrabCut


def of_picture(image: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Overlaps of a flood fill from the first click, of the box as mask, and of GrabCut from the box."""
    box, click = box_around(wanted), next_click(np.zeros_like(wanted), wanted)
    assert click is not None
    masks = {"flood_fill": flood_fill(image, click), "box_as_mask": filled(box, wanted.shape)}
    masks["grabcut"] = grabcut(image, box)
    return {name: jaccard(mask, wanted) for name, mask in masks.items()}


def flood_fill(image: np.ndarray, click: Click) -> np.ndarray:
    """The pixels around a click that look like it, (H, W) bool."""
    height, width = image.shape[:2]
    reached = np.zeros((height + 2, width + 2), np.uint8)
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    rule = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 255 << 8
    within = (float(COLOURS),) * 3
    cv2.floodFill(smooth, reached, (click.x, click.y), (0, 0, 0), within, within, rule)
    return reached[1:-1, 1:-1] > 0


def filled(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """The box itself as a mask (H, W)."""
    left, top, right, bottom = box
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def grabcut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """What GrabCut (Rother et al., SIGGRAPH 2004) finds in a box; the box itself where it fills the picture."""
    inside = filled(box, image.shape[:2])
    if inside.all():
        return inside
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(0)
    ignored, background, foreground = (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, ignored, background, foreground, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
