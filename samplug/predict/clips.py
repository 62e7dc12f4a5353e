"""Clips: the frames of one video, by their true numbers, whatever they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from torch import Tensor
from ultralytics.utils.patches import imread

from samplug import host
from samplug.host import LOGGER

FPS = 30.0  # of what does not say how fast it runs, as Ultralytics has it
CHUNK = 32  # frames of a file held at once when it is walked backwards


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame: its number in the clip, counted from 0, its picture (H, W, 3) BGR, and where that came from."""

    number: int
    picture: np.ndarray
    file: str


class Clip:
    """The frames of one video.

    Attributes:
        path: its name: what results are saved under, and what prompts by file are found by.
        fps: frames per second.
        length: number of frames, None where nobody knows before the end.
        seekable: whether a frame can be read again.
    """

    path: str
    fps: float = FPS
    length: int | None = None
    seekable = True

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        raise NotImplementedError

    def backward(self, start: int | None, stride: int = 1) -> Iterator[Shot]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        raise ValueError(f"{self.path} cannot be walked backwards: its frames are seen once, as they come.")

    def read(self, number: int) -> Shot:
        """One frame.

        Raises:
            IndexError: there is no such frame.
        """
        for shot in self.forward(number):
            if shot.number == number:
                return shot
            break
        raise IndexError(f"{self.path} has no frame {number}.")


class Pictures(Clip):
    """Pictures in order: files, arrays, PIL pictures or (3, H, W) tensors, each opened when its turn comes.

    A file that cannot be read is left out with a warning; its number stays unused.
    """

    def __init__(self, items: Sequence[Any], path: str) -> None:
        self.items, self.path, self.length = items, path, len(items)

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        return self._shots(range(start, len(self.items), stride))

    def backward(self, start: int | None, stride: int = 1) -> Iterator[Shot]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        return self._shots(range(len(self.items) - 1 if start is None else start, -1, -stride))

    def _shots(self, numbers: Iterable[int]) -> Iterator[Shot]:
        for number in numbers:
            item = self.items[number]
            picture = as_picture(item)
            if picture is None:
                LOGGER.warning(f"{item} cannot be read as a picture: left out.")
            else:
                yield Shot(number, picture, str(item) if isinstance(item, str | Path) else self.path)


class VideoFile(Clip):
    """A video file, read to its last frame: the number of frames that its header claims is never believed."""

    def __init__(self, path: str) -> None:
        self.path = path
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else FPS
        capture.release()

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        capture, number = self._open(), 0
        try:
            while capture.grab():
                if number >= start and (number - start) % stride == 0:
                    read, picture = capture.retrieve()
                    if read and picture is not None:
                        yield Shot(number, picture, self.path)
                number += 1
        finally:
            capture.release()

    def backward(self, start: int | None, stride: int = 1) -> Iterator[Shot]:
        """Frames start (None: the last one), start - stride, … down to the first.

        The file is decoded from its beginning again for each few frames: seeking is exact in few containers.
        """
        start = self._count() - 1 if start is None else start
        while start >= 0:
            first = start - min(start // stride, CHUNK - 1) * stride
            few = []
            for shot in self.forward(first, stride):
                if shot.number > start:
                    break
                few.append(shot)
            yield from reversed(few)
            start = first - stride

    def _count(self) -> int:
        capture, count = self._open(), 0
        while capture.grab():
            count += 1
        capture.release()
        return count

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise FileNotFoundError(f"{self.path} cannot be opened as a video.")
        return capture


class Live(Clip):
    """Frames from an iterator, taken one at a time and never kept."""

    seekable = False

    def __init__(self, frames: Iterable[Any], path: str) -> None:
        self.frames, self.path = iter(frames), path

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        for number, item in enumerate(self.frames):
            if number >= start and (number - start) % stride == 0:
                picture = as_picture(item)
                if picture is not None:
                    yield Shot(number, picture, str(item) if isinstance(item, str | Path) else self.path)

    def read(self, number: int) -> Shot:
        """Refuse: what went by is gone."""
        raise IndexError(f"{self.path} cannot go back to frame {number}: its frames are seen once, as they come.")


@dataclass(frozen=True)
class Course:
    """Which frames of a clip are run, and in which order.

    Attributes:
        start: the first frame; None for the beginning, or the end when walked backwards.
        stride: frames from one to the next. From the beginning, `stride - 1` is the first, as with Ultralytics' loader.
        reverse: False, True, or "both": forwards from `start`, then from the same place backwards.
    """

    start: int | None = None
    stride: int = 1
    reverse: bool | Literal["both"] = False

    @property
    def origin(self) -> int:
        """The frame that the tracker's clock calls 0."""
        return self.stride - 1 if self.start is None else self.start

    def shots(self, clip: Clip) -> Iterator[tuple[bool, Shot]]:
        """Yield (whether walked backwards, frame)."""
        if self.reverse is not True:
            yield from ((False, shot) for shot in clip.forward(self.origin, self.stride))
        if self.reverse is True:
            yield from ((True, shot) for shot in clip.backward(self.start, self.stride))
        elif self.reverse:
            yield from ((True, shot) for shot in clip.backward(self.origin - self.stride, self.stride))


def as_picture(item: Any) -> np.ndarray | None:
    """Read a file, a PIL picture, a (3, H, W) RGB tensor in 0-1 or a BGR array as (H, W, 3) BGR bytes.

    Returns None for a file that cannot be read.
    """
    if isinstance(item, str | Path):
        return opened(item)
    if isinstance(item, Tensor):
        return host.pictures(item.reshape(-1, *item.shape[-3:])[:1])[0]
    if hasattr(item, "convert"):
        from PIL import ImageOps

        item = np.asarray(ImageOps.exif_transpose(item).convert("RGB"))[..., ::-1]
    if not isinstance(item, np.ndarray) or item.ndim not in (2, 3):
        raise TypeError(f"a frame is an array (H, W, 3), a PIL picture, a (3, H, W) tensor or a file, not {item!r:.80}")
    return np.ascontiguousarray(host.as_bgr(item))


def opened(file: str | Path) -> np.ndarray | None:
    """Read a picture file as (H, W, 3) BGR bytes; None where that fails, in whichever way."""
    try:
        return imread(str(file))
    except (cv2.error, OSError):  # old releases let a broken file raise
        return None


def natural(path: str) -> list[tuple[int, int, str]]:
    """A key that sorts frame2.png before frame10.png."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", str(path))]
