"""Clips: the frames of one video, by their true numbers, whatever they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from samplug.host import LOGGER
from samplug.predict.faults import Faults, SourceError, named
from samplug.predict.opening import as_picture, check_size
from samplug.words import in_a_line

FPS = 30.0  # of what does not say how fast it runs, as Ultralytics has it
LONGEST = 10**9  # frames that a header may claim and be believed
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
        stated: the number that a header claims, which is shown and never believed; 0 for none.
        seekable: whether a frame can be read again.
        faults: where frames that cannot be read are noted, which are left out; their numbers stay unused.
    """

    path: str
    fps: float = FPS
    length: int | None = None
    stated: int = 0
    seekable = True
    faults: Faults = Faults("raise")

    def open(self) -> None:
        """Read what can be known before the first frame."""

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        raise NotImplementedError

    def backward(self, start: int | None, stride: int = 1) -> Iterator[Shot]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        raise ValueError(f"{self.path} cannot be walked backwards: its frames are seen once, as they come.")

    def _shot(self, number: int, item: Any) -> Iterator[Shot]:
        """The frame that an item is, if it can be read."""
        file = str(item) if isinstance(item, str | Path) else ""
        try:
            picture = as_picture(item)
        except (OSError, TypeError) as error:
            name = file or f"frame {number} of {self.path}"
            self.faults.meet(name, named(name, error))
        else:
            yield Shot(number, picture, file or self.path)

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
    """Pictures in order: files, arrays, PIL pictures or (3, H, W) tensors, each opened when its turn comes."""

    def __init__(self, items: Sequence[Any], path: str) -> None:
        self.items, self.path, self.length = items, path, len(items)

    def open(self) -> None:
        """Say where the numbers in the files' names have gaps: frames are counted as they lie there."""
        numbers = [number_in(item) for item in self.items if isinstance(item, str | Path)]
        found = sorted({number for number in numbers if number is not None})
        missing = found[-1] - found[0] + 1 - len(found) if len(found) == len(self.items) else 0
        if missing:
            LOGGER.warning(f"{self.path}: {missing} numbers are missing between {found[0]} and {found[-1]}.")

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        return self._shots(range(start, len(self.items), stride))

    def backward(self, start: int | None, stride: int = 1) -> Iterator[Shot]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        return self._shots(range(len(self.items) - 1 if start is None else start, -1, -stride))

    def _shots(self, numbers: Iterable[int]) -> Iterator[Shot]:
        for number in numbers:
            yield from self._shot(number, self.items[number])


class VideoFile(Clip):
    """A video file, read to its last frame: the number of frames that its header claims is never believed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> None:
        """Read the header.

        Raises:
            SourceError: it is no video.
        """
        capture = self._open()
        fps, stated = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        self.fps, self.stated = fps if 0 < fps < 1000 else FPS, int(stated) if 0 < stated < LONGEST else 0

    def forward(self, start: int, stride: int = 1) -> Iterator[Shot]:
        """Frames start, start + stride, … to the end."""
        capture, number = self._open(), 0
        try:
            while capture.grab():
                if number >= start and (number - start) % stride == 0:
                    yield from self._decoded(capture, number)
                number += 1
        finally:
            capture.release()
        self._ended(number)

    def _decoded(self, capture: cv2.VideoCapture, number: int) -> Iterator[Shot]:
        """The frame that was grabbed, if it can be decoded."""
        try:
            read, picture = capture.retrieve()
        except cv2.error as error:  # no memory for it, nor for those to come
            raise SourceError(f"{self.path}: frame {number} cannot be decoded: {in_a_line(error)}") from error
        if read and picture is not None:
            yield Shot(number, picture, self.path)
        else:
            name = f"frame {number} of {self.path}"
            self.faults.meet(name, SourceError(f"{name} cannot be decoded."))

    def _ended(self, count: int) -> None:
        """Say where the end came sooner than the header has it."""
        if not count:
            raise SourceError(f"{self.path}: no frame of it can be decoded.")
        if count < self.stated:
            LOGGER.warning(f"{self.path}: its header says {self.stated} frames, {count} could be decoded: cut short?")
            self.stated = count

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
        self._ended(count)
        return count

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise SourceError(f"{self.path} cannot be opened as a video: it is none, damaged or cut short.")
        try:
            check_size(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        except SourceError as error:
            capture.release()
            raise SourceError(f"{self.path}: {error}") from error
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
                yield from self._shot(number, item)

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


def natural(path: str) -> list[tuple[int, int, str]]:
    """A key that sorts frame2.png before frame10.png."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", str(path))]


def number_in(path: str | Path) -> int | None:
    """The last number in a file's name."""
    found = re.findall(r"\d+", Path(path).stem)
    return int(found[-1]) if found else None
