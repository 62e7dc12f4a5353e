"""How `samplug pick` draws an image: masks with their scores, strokes, the box that is being drawn, and the keys."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from samplug.cli.sketch import Box, Stroke
from samplug.host import Results
from samplug.masks.packed import PackedMasks

PALETTE = ((255, 144, 30), (60, 180, 75), (75, 25, 230), (25, 225, 255), (180, 30, 145), (240, 240, 70))  # BGR
LINE, LETTER, FONT = 18, 8, cv2.FONT_HERSHEY_SIMPLEX  # height of a line of text, and about the width of a letter


@dataclass(frozen=True, eq=False)
class Found:
    """The masks of some objects on one frame, packed, with their scores."""

    masks: PackedMasks
    objects: Sequence[int]
    scores: Sequence[float]

    @classmethod
    def of(cls, result: Results, objects: Sequence[int]) -> Found:
        """The rows of a result, which are these objects."""
        assert isinstance(result.masks.data, Tensor)
        return cls(PackedMasks.pack(result.masks.data.cpu()), objects, result.boxes.conf.tolist())


def colour_of(obj: int) -> tuple[int, int, int]:
    """The colour of an object."""
    return PALETTE[obj % len(PALETTE)]


def overlay(image: np.ndarray, found: Found | None, strokes: Iterable[Stroke], scale: float) -> np.ndarray:
    """Draw masks, scores and strokes on an image (h, w, 3) of BGR bytes as the window shows it.

    Masks and strokes are in pixels of the image itself; `scale` is the size in the window over that in the image.
    """
    shown = image.copy()
    rows = [] if found is None else [*zip(found.masks.items, found.objects, found.scores, strict=True)]
    for mask, obj, _ in rows:
        pixels = mask.unpack().numpy().astype(np.uint8)
        inside = cv2.resize(pixels, shown.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        shown[inside] = shown[inside] // 2 + np.array(colour_of(obj), np.uint8) // 2
    for mask, obj, score in rows:
        if mask.area:
            left, top, *_ = (round(scale * side) for side in mask.pixel_box)
            write(shown, f"{obj} {score:.2f}", (left, max(top - 4, LINE)), colour_of(obj))
    for stroke in strokes:
        draw(shown, stroke, scale)
    return shown


def draw(shown: np.ndarray, stroke: Stroke, scale: float) -> None:
    """Draw a stroke: a box in the object's colour, a click as a dot, green on the object and red off it."""
    if isinstance(stroke, Box):
        x1, y1, x2, y2 = (round(side * scale) for side in stroke.corners)
        cv2.rectangle(shown, (x1, y1), (x2, y2), colour_of(stroke.obj), 2)
    else:
        centre = (round((stroke.x + 0.5) * scale), round((stroke.y + 0.5) * scale))
        cv2.circle(shown, centre, 6, (255, 255, 255), -1)
        cv2.circle(shown, centre, 4, (0, 160, 0) if stroke.label else (0, 0, 220), -1)


def with_band(shown: np.ndarray, band: tuple[int, int, int, int], obj: int) -> np.ndarray:
    """The image with the outline of a box that is being drawn, xyxy in pixels of the window."""
    return cv2.rectangle(shown.copy(), band[:2], band[2:], colour_of(obj), 1)


def with_text(shown: np.ndarray, lines: Iterable[str]) -> np.ndarray:
    """The image above lines of text, wrapped to its width."""
    columns = max(shown.shape[1] // LETTER, 8)
    wrapped = [part for line in lines for part in textwrap.wrap(line, columns)]
    strip = np.full((LINE * len(wrapped) + 6, shown.shape[1], 3), 32, np.uint8)
    for i, part in enumerate(wrapped):
        write(strip, part, (4, LINE * (i + 1) - 4), (230, 230, 230))
    return np.concatenate([shown, strip])


def write(shown: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Write text on a dark edge, which any ground shows."""
    cv2.putText(shown, text, at, FONT, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(shown, text, at, FONT, 0.45, colour, 1, cv2.LINE_AA)
