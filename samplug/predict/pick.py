"""`samplug pick`: clicks and boxes in a window, the mask at once, and in the end the command that repeats it.

What mouse and keys mean (`Gesture`, `Sketch`) and what is shown (`overlay`) need no window; the last section does.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from samplug.predict.image import Predictor
from samplug.prompts import PromptError

TITLE = "samplug pick: left on, right off, drag a box, n next object, u undo, c clear, q done"
SCREEN = (1280, 800)  # width and height that a window may take
DRAG = 4  # pixels of the window from which a moved button means a box
FINISHED = {ord("q"), 13, 27}  # q, enter, escape
COLOURS = ((255, 144, 30), (60, 180, 75), (75, 25, 230), (25, 225, 255), (180, 30, 145), (240, 240, 70))  # BGR, in turn


class WindowError(OSError):
    """No window can be opened here; the message says what to do."""


# What was drawn -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Click:
    """A click in pixels of the picture; label 1 on the object, 0 off it."""

    x: int
    y: int
    label: int


@dataclass(frozen=True)
class Box:
    """A box in pixels of the picture, corners in order."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def corners(self) -> list[int]:
        """The box as xyxy."""
        return [self.x1, self.y1, self.x2, self.y2]


@dataclass(frozen=True)
class NextObject:
    """What follows belongs to another object."""


Stroke = Click | Box | NextObject


@dataclass
class Sketch:
    """What the user did so far, in order; undoing is forgetting the last."""

    strokes: list[Stroke] = field(default_factory=list)

    def press(self, key: str) -> None:
        """Do what a key means: n the next object, u undo, c clear; others mean nothing."""
        if key == "n":
            self.strokes.append(NextObject())
        elif key == "u":
            del self.strokes[-1:]
        elif key == "c":
            self.strokes.clear()

    @property
    def objects(self) -> list[list[Click | Box]]:
        """The strokes of each object that has any."""
        groups: list[list[Click | Box]] = [[]]
        for stroke in self.strokes:
            if isinstance(stroke, NextObject):
                groups.append([])
            else:
                groups[-1].append(stroke)
        return [group for group in groups if group]

    def prompts(self) -> dict[str, Any]:
        """Return the arguments of `predict` that ask for these objects, spelled as shortly as they can be."""
        clicks = [[stroke for stroke in strokes if isinstance(stroke, Click)] for strokes in self.objects]
        boxes = [[stroke.corners for stroke in strokes if isinstance(stroke, Box)] for strokes in self.objects]
        points = [[[click.x, click.y] for click in group] for group in clicks]
        labels = [[click.label for click in group] for group in clicks]
        prompts: dict[str, Any] = {}
        if any(points):
            single = all(len(group) == 1 for group in points)
            prompts["points"] = [group[0] for group in points] if single else points
            if any(0 in group for group in labels):
                prompts["labels"] = [group[0] for group in labels] if single else labels
        if any(boxes):
            prompts["bboxes"] = [group[-1] if group else None for group in boxes]  # a second box replaces the first
        return prompts


@dataclass
class Gesture:
    """Turns mouse events of a window that shows the picture at `scale` into strokes on a (height, width) picture."""

    scale: float
    shape: tuple[int, int]
    start: tuple[int, int] | None = None

    def feed(self, event: int, x: int, y: int, flags: int) -> Stroke | None:
        """Take an event of OpenCV's mouse callback; return the stroke it completes, if any."""
        if event == cv2.EVENT_LBUTTONDOWN:
            self.start = (x, y)
        elif event == cv2.EVENT_RBUTTONUP:
            return Click(*self._pixel(x, y), label=0)
        elif event == cv2.EVENT_LBUTTONUP and self.start is not None:
            (left, top), self.start = self.start, None
            if min(abs(x - left), abs(y - top)) >= DRAG:
                (x1, x2), (y1, y2) = zip(self._pixel(left, top), self._pixel(x, y), strict=True)
                return Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            off = flags & (cv2.EVENT_FLAG_CTRLKEY | cv2.EVENT_FLAG_SHIFTKEY)  # for trackpads with one button
            return Click(*self._pixel(x, y), label=0 if off else 1)
        return None

    def _pixel(self, x: int, y: int) -> tuple[int, int]:
        height, width = self.shape
        return min(max(int(x / self.scale), 0), width - 1), min(max(int(y / self.scale), 0), height - 1)


def command(settings: dict[str, Any], prompts: dict[str, Any]) -> str:
    """Return the command line that gives the same masks without a window."""
    return " ".join(["samplug predict", *(f"{name}={quoted(item)}" for name, item in {**settings, **prompts}.items())])


def quoted(item: Any) -> str:
    """Write a value for a shell: in double quotes, which every shell reads, where it needs any."""
    text = str(item)
    if re.fullmatch(r"[\w./:=@+-]+", text):
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


# What is shown --------------------------------------------------------------------------------------------------------


def overlay(picture: np.ndarray, masks: np.ndarray, sketch: Sketch, scale: float) -> np.ndarray:
    """Draw masks and strokes.

    Args:
        picture: (h, w, 3) BGR bytes as the window shows it.
        masks: (N, H, W) bool at the resolution of the picture itself, one an object.
        sketch: what was drawn, in pixels of the picture itself.
        scale: size in the window over size in the picture.

    Returns:
        (h, w, 3) BGR bytes.
    """
    shown = picture.copy()
    for i, mask in enumerate(masks):
        inside = cv2.resize(mask.astype(np.uint8), shown.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        shown[inside] = shown[inside] // 2 + np.array(COLOURS[i % len(COLOURS)], np.uint8) // 2
    for i, strokes in enumerate(sketch.objects):
        for stroke in strokes:
            draw(shown, stroke, COLOURS[i % len(COLOURS)], scale)
    return shown


def draw(shown: np.ndarray, stroke: Click | Box, colour: tuple[int, int, int], scale: float) -> None:
    """Draw a stroke: a box in the object's colour, a click as a dot, green on the object and red off it."""
    if isinstance(stroke, Box):
        x1, y1, x2, y2 = (round(side * scale) for side in stroke.corners)
        cv2.rectangle(shown, (x1, y1), (x2, y2), colour, 2)
    else:
        centre = (round((stroke.x + 0.5) * scale), round((stroke.y + 0.5) * scale))
        cv2.circle(shown, centre, 6, (255, 255, 255), -1)
        cv2.circle(shown, centre, 4, (0, 160, 0) if stroke.label else (0, 0, 220), -1)


def masks_of(predictor: Predictor, sketch: Sketch) -> np.ndarray:
    """Return the (N, H, W) bool masks of the objects in a sketch, one an object; none for an empty one."""
    if not sketch.objects:
        return np.zeros((0, 1, 1), bool)
    (result,) = predictor(**sketch.prompts())
    data = result.masks.data
    return (data.cpu().numpy() if isinstance(data, Tensor) else data).astype(bool)


# The window -----------------------------------------------------------------------------------------------------------


def pick(settings: dict[str, Any]) -> None:
    """Let the user click on the picture `source`; print the command that repeats it.

    Args:
        settings: arguments of `predict`; `source` is one picture, and there are no prompts yet.

    Raises:
        PromptError: `source` is not one picture.
        WindowError: there is no screen, or an OpenCV without windows.
    """
    settings = dict(settings)
    source = settings.pop("source", None)
    if not (isinstance(source, str) and (Path(source).is_file() or "://" in source)):
        raise PromptError(f"source: got {source!r}. Accepted is one picture, as in samplug pick source=bus.jpg.")
    open_window()
    predictor = Predictor(overrides={**settings, "save": False, "verbose": False})
    predictor.set_image(source)
    sketch = Sketch()
    try:
        converse(predictor, sketch)
    finally:
        cv2.destroyWindow(TITLE)
    if sketch.objects:
        print(command({"source": source, **settings}, sketch.prompts()))


def open_window() -> None:
    """Open the window, or raise `WindowError`: without a screen some builds of OpenCV end the whole program instead."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise WindowError("there is no screen here (DISPLAY is not set): give prompts as arguments, see samplug help.")
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
    except cv2.error as error:
        raise WindowError(
            "this OpenCV is built without windows: pip uninstall opencv-python-headless, then "
            "pip install --force-reinstall opencv-python; or give prompts as arguments, see samplug help."
        ) from error


def converse(predictor: Predictor, sketch: Sketch) -> None:
    """Draw into `sketch` and show the masks until the user has done."""
    picture = predictor.batch[1][0]  # type: ignore[index]  # set_image has filled it
    height, width = picture.shape[:2]
    scale = min(1.0, SCREEN[0] / width, SCREEN[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    gesture = Gesture(scale, (height, width))

    def on_mouse(event: int, x: int, y: int, flags: int, _: Any) -> None:
        stroke = gesture.feed(event, x, y, flags)
        if stroke is not None:
            sketch.strokes.append(stroke)

    cv2.setMouseCallback(TITLE, on_mouse)
    drawn: list[Stroke] | None = None
    while cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0 or drawn is None:
        if sketch.strokes != drawn:
            drawn = list(sketch.strokes)
            cv2.imshow(TITLE, overlay(small, masks_of(predictor, sketch), sketch, scale))
        key = cv2.waitKey(30) & 0xFF
        if key in FINISHED:
            return
        sketch.press(chr(key))
