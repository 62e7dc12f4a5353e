"""What happens in the window of `samplug pick`: mouse events and keys in, images out. Anything may show them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from samplug.cli.canvas import Found, overlay, with_band, with_text
from samplug.cli.sketch import Gesture, Sketch, Stroke
from samplug.host import Results
from samplug.predict.image import Predictor
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.sources.video import Video, VideoFrame

SCREEN = (1280, 800)  # width and height that a window may take
QUIT_KEYS = {ord("q"), 13, 27}  # q, enter, escape
HINTS = "left: on, right: off, drag: box | n next object, 0-9 that object | u undo, c clear | "
FRAME_KEYS = ", . frame | "
FOLLOW_KEYS = ", . frame | space follow | "
UNFOLLOWED = "space shows frame by frame: {} has no memory to follow objects | "


@dataclass(eq=False)
class Frames:
    """The images to be drawn on, by number: a video's frames, or images in a list, which may also be one alone."""

    video: Video | None = None  # frames that follow each other, None for images
    images: list[str] = field(default_factory=list)  # their paths or addresses
    _next: Iterator[VideoFrame] = field(default_factory=lambda: iter(()))
    _at: int = -2  # the frame read last

    @property
    def length(self) -> int:
        """How many there are, as far as the header of a video is right."""
        return len(self.images) if self.video is None else max(self.video.length or self.video.stated, 1)

    def source(self, number: int) -> Any:
        """What `set_image` takes of one; None past the end. A video is decoded on from the frame before."""
        if self.video is None:
            return self.images[number]
        if number != self._at + 1:
            self._next = self.video.forward(number)
        self._at = number
        frame = next(self._next, None)
        return None if frame is None else frame.image


@dataclass(eq=False)
class Session:
    """A conversation about images or a video."""

    frames: Frames  # what is shown
    predictor: Predictor  # answers prompts on one frame
    follower: SAM2VideoPredictor | None = None  # of objects through the video; None where there is none, or no memory
    path: str = ""  # of the video
    sketch: Sketch = field(default_factory=Sketch)  # what was drawn
    gesture: Gesture = field(default_factory=lambda: Gesture(1.0, (1, 1)))
    playing: bool = False  # whether objects are being followed, a frame each time that `view` is called
    done: bool = False  # the user has finished
    _loaded: int = -1
    _small: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))
    _answer: tuple[Any, Found | None] = (None, None)
    _followed: dict[int, Found] = field(default_factory=dict)
    _run: Iterator[Results] | None = None
    _shown: Any = None

    def mouse(self, event: int, x: int, y: int, flags: int) -> None:
        """Take an event of OpenCV's mouse callback."""
        stroke = self.gesture.feed(event, x, y, flags)
        if stroke is not None:
            self._change(stroke)

    def key(self, code: int) -> None:
        """Take a key, as `cv2.waitKey` returns it."""
        if code in QUIT_KEYS:
            self.done = True
        elif chr(code) in ",.":
            self.seek(self.sketch.frame + (1 if chr(code) == "." else -1))
        elif chr(code) == " ":
            self.playing = not self.playing and self.frames.length > 1
        else:
            before = list(self.sketch.strokes)
            self.sketch.press(chr(code))
            if self.sketch.strokes != before:
                self._change()

    def seek(self, number: int) -> None:
        """Show another frame."""
        number = min(max(number, 0), self.frames.length - 1)
        if number != self.sketch.frame:
            self.sketch.frame, self.playing = number, False
            self.sketch.obj = self.sketch.obj if self.sketch.moving else 0

    def _change(self, stroke: Stroke | None = None) -> None:
        """Add a stroke, if one is given, and forget what was followed by the strokes before."""
        if stroke is not None:
            self.sketch.add(stroke)
        self.close()
        self._followed.clear()

    def close(self) -> None:
        """Stop following."""
        if self._run is not None:
            self._run.close()  # type: ignore[attr-defined]  # a generator
        self._run, self.playing = None, False

    def view(self) -> np.ndarray | None:
        """The image to show now; None while nothing has changed."""
        if self.playing:
            self._play()
        sketch = self.sketch
        state = sketch.frame, sketch.obj, tuple(sketch.strokes), self.gesture.band, self.playing, len(self._followed)
        if state == self._shown or not self._load(sketch.frame):
            return None
        self._shown = state
        here = [stroke for stroke in sketch.strokes if stroke.frame == sketch.frame]
        shown = overlay(self._small, self._found(here), here, self.gesture.scale)
        if self.gesture.band is not None:
            shown = with_band(shown, self.gesture.band, sketch.obj)
        return with_text(shown, self._lines())

    def _lines(self) -> list[str]:
        frames = "" if self.frames.length <= 1 else FOLLOW_KEYS if self.follower else FRAME_KEYS
        if self.sketch.moving and self.follower is None:
            frames += UNFOLLOWED.format(self.predictor.model.variant)
        place = f"frame {self.sketch.frame} of {self.frames.length}, " if frames else ""
        return [f"{HINTS}{frames}q done", f"{place}object {self.sketch.obj}"]

    def _load(self, number: int) -> bool:
        """Encode a frame; False past the end, where the one before stays."""
        if number == self._loaded:
            return True
        source = self.frames.source(number)
        if source is None:
            self.sketch.frame, self.playing = max(self._loaded, 0), False
            return False
        self.predictor.set_image(source)
        image = self.predictor.batch[1][0]  # type: ignore[index]  # set_image has filled it
        height, width = image.shape[:2]
        scale = min(1.0, SCREEN[0] / width, SCREEN[1] / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self.gesture, self._loaded = Gesture(scale, (height, width)), number
        return True

    def _found(self, strokes: list[Stroke]) -> Found | None:
        """The masks on the current frame: those followed there, else the answers to its strokes."""
        frame = self.sketch.frame
        if frame in self._followed:
            return self._followed[frame]
        if self._answer[0] != (frame, strokes):
            found = None
            if strokes:
                (result,) = self.predictor(**self.sketch.prompts(frame))
                found = Found.of(result, [*self.sketch.objects(frame)])
            self._answer = (frame, strokes), found
        return self._answer[1]

    def _play(self) -> None:
        """Go on by a frame, with the objects followed from the first frame that was drawn on."""
        if self.follower is None or not self.sketch.strokes:
            self.sketch.frame += 1
            self.playing = self.sketch.frame < self.frames.length - 1
            return
        if self._run is None:
            prompts = self.sketch.by_frame()
            self._run = self.follower(source=self.path, stream=True, prompts=prompts, start=min(prompts))
        result = next(self._run, None)
        if result is None:
            self.close()
            return
        self.sketch.frame = result.frame
        self._followed[result.frame] = Found.of(result, result.boxes.id.int().tolist())
