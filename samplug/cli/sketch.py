"""What the user of `samplug pick` has drawn, from mouse events and keys to prompts. No window and no network."""

from dataclasses import dataclass, field, replace
from typing import Any

import cv2

DRAG = 4  # pixels of the window from which a moved button means a box


@dataclass(frozen=True)
class Click:
    """A click in pixels of the image; label 1 on the object, 0 off it."""

    x: int
    y: int
    label: int
    obj: int = 0
    frame: int = 0


@dataclass(frozen=True)
class Box:
    """A box in pixels of the image, corners in order."""

    x1: int
    y1: int
    x2: int
    y2: int
    obj: int = 0
    frame: int = 0

    @property
    def corners(self) -> list[int]:
        """The box as xyxy."""
        return [self.x1, self.y1, self.x2, self.y2]


Stroke = Click | Box


@dataclass
class Sketch:
    """The strokes so far, in order."""

    strokes: list[Stroke] = field(default_factory=list)  # on all frames
    moving: bool = False  # the frames are a video's, whose objects go on from one to the next; else each has its own
    obj: int = 0  # the object that the next stroke belongs to
    frame: int = 0  # the frame that it is drawn on

    def add(self, stroke: Stroke) -> None:
        """Draw a stroke of the current object on the current frame."""
        self.strokes.append(replace(stroke, obj=self.obj, frame=self.frame))

    def press(self, key: str) -> None:
        """Apply a key: n the next object, a digit that object, u undo, c clear the frame; others do nothing."""
        if key == "n":
            strokes = [stroke for stroke in self.strokes if self.moving or self._is_here(stroke)]
            self.obj = 1 + max((stroke.obj for stroke in strokes), default=-1)
        elif key in "0123456789":
            self.obj = int(key)
        elif key == "u" and self.strokes:
            last = self.strokes.pop()
            self.obj, self.frame = last.obj, last.frame
        elif key == "c":
            self.strokes = [stroke for stroke in self.strokes if not self._is_here(stroke)]
            self.obj = self.obj if self.moving else 0

    def _is_here(self, stroke: Stroke) -> bool:
        return stroke.frame == self.frame

    @property
    def frames(self) -> list[int]:
        """The frames with strokes."""
        return sorted({stroke.frame for stroke in self.strokes})

    def objects(self, frame: int = 0) -> dict[int, list[Stroke]]:
        """The strokes on a frame by their objects."""
        here = [stroke for stroke in self.strokes if stroke.frame == frame]
        return {obj: [stroke for stroke in here if stroke.obj == obj] for obj in sorted({each.obj for each in here})}

    def prompts(self, frame: int = 0) -> dict[str, Any]:
        """The arguments of `predict` that ask for the objects of an image, spelled as shortly as they can be."""
        rows = [prompts_of(strokes) for strokes in self.objects(frame).values()]
        points, labels = ([row.get(name, []) for row in rows] for name in ("points", "labels"))
        prompts: dict[str, Any] = {}
        if any(points):
            single = all(len(each) == 1 for each in points)
            prompts["points"] = [each[0] for each in points] if single else points
            if any(0 in each for each in labels):
                prompts["labels"] = [each[0] for each in labels] if single else labels
        if any("bboxes" in row for row in rows):
            prompts["bboxes"] = [row.get("bboxes") for row in rows]
        return prompts

    def by_frame(self) -> dict[int, dict[int, dict[str, Any]]]:
        """The prompts of a video: {frame: {object: its prompts}}."""
        by_object = {frame: self.objects(frame).items() for frame in self.frames}
        return {frame: {obj: prompts_of(each) for obj, each in objects} for frame, objects in by_object.items()}


def prompts_of(strokes: list[Stroke]) -> dict[str, Any]:
    """The prompts of one object on one frame; of several boxes the last."""
    clicks = [stroke for stroke in strokes if isinstance(stroke, Click)]
    boxes = [stroke.corners for stroke in strokes if isinstance(stroke, Box)]
    prompts: dict[str, Any] = {}
    if clicks:
        prompts = {"points": [[each.x, each.y] for each in clicks], "labels": [each.label for each in clicks]}
    return prompts | ({"bboxes": boxes[-1]} if boxes else {})


@dataclass
class Gesture:
    """Turns mouse events of a window that shows the image at `scale` into strokes on a (height, width) image."""

    scale: float
    shape: tuple[int, int]
    start: tuple[int, int] | None = None
    band: tuple[int, int, int, int] | None = None  # of a box that is being drawn, xyxy in pixels of the window

    def feed(self, event: int, x: int, y: int, flags: int) -> Stroke | None:
        """Take an event of OpenCV's mouse callback; return the stroke it completes, if any."""
        if event == cv2.EVENT_LBUTTONDOWN:
            self.start = (x, y)
        elif event == cv2.EVENT_MOUSEMOVE and self.start is not None:
            self.band = (*self.start, x, y)
        elif event == cv2.EVENT_RBUTTONUP:
            return Click(*self._pixel(x, y), label=0)
        elif event == cv2.EVENT_LBUTTONUP and self.start is not None:
            (left, top), self.start, self.band = self.start, None, None
            if min(abs(x - left), abs(y - top)) >= DRAG:
                (x1, x2), (y1, y2) = zip(self._pixel(left, top), self._pixel(x, y), strict=True)
                return Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            off = flags & (cv2.EVENT_FLAG_CTRLKEY | cv2.EVENT_FLAG_SHIFTKEY)  # for trackpads with one button
            return Click(*self._pixel(x, y), label=0 if off else 1)
        return None

    def _pixel(self, x: int, y: int) -> tuple[int, int]:
        height, width = self.shape
        return min(max(int(x / self.scale), 0), width - 1), min(max(int(y / self.scale), 0), height - 1)
