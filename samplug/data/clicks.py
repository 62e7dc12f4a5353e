"""Simulated users: a click in the middle of the largest error, or a box around the object.

Masks are bool (H, W); a click names a pixel, xy; a box has the outer edges, xyxy, so that a single pixel is one wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import Box, outer_boxes
from samplug.nn.constants import PREVIOUS_MASK_CLAMP
from samplug.prompts.objects import Prompt


@dataclass(frozen=True)
class Click:
    """A pixel, with label 1 where the object was missed or 0 where the mask is outside it."""

    x: int
    y: int
    label: int


def next_click(predicted: np.ndarray | None, truth: np.ndarray) -> Click | None:
    """The pixel deepest inside a false negative or false positive region (as RITM, arXiv 2102.06583).

    Without a prediction that is the middle of the object. None where the mask is right.
    """
    predicted = np.zeros_like(truth) if predicted is None else predicted
    missed, excess = deepest_pixel(truth & ~predicted), deepest_pixel(predicted & ~truth)
    depth, (row, column), label = max((*missed, 1), (*excess, 0), key=lambda error: (error[0], error[2]))
    return Click(column, row, label) if depth else None


def deepest_pixel(mask: np.ndarray) -> tuple[float, tuple[int, int]]:
    """The largest distance to the mask's edge, the image's border being one, and the (row, column) that has it."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return 0.0, (0, 0)
    padded = np.pad(mask[top : top + height, left : left + width], 1).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = divmod(int(distance.argmax()), width)
    return float(distance[row, column]), (top + row, left + column)


def outer_box(mask: np.ndarray) -> Box:
    """The box around a mask that is not empty."""
    left, top, right, bottom = outer_boxes(torch.from_numpy(mask)[None])[0].int().tolist()
    return left, top, right, bottom


def box_prompt(mask: np.ndarray) -> Prompt:
    """The box around a mask as a prompt."""
    return Prompt(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.tensor(outer_box(mask)).float())


def click_prompt(clicks: Sequence[Click], logits: Tensor | None = None) -> Prompt:
    """Clicks as a prompt, and with them the logits (h, w) of the mask that earlier ones gave."""
    points = torch.tensor([(click.x, click.y) for click in clicks], dtype=torch.float32)
    labels = torch.tensor([click.label for click in clicks])
    mask = None if logits is None else logits.clamp(-PREVIOUS_MASK_CLAMP, PREVIOUS_MASK_CLAMP)
    return Prompt(points, labels, mask=mask)
