"""Videos: frames by their numbers, from a file, a sequence of images or an iterator."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np

from samplug import host
from samplug.errors import SourceError, one_line, report_slip
from samplug.sources.base_loader import is_address, suffix, without_query
from samplug.sources.download import download_video
from samplug.sources.errors import INPUT_ERRORS, ErrorPolicy
from samplug.sources.image import check_size, read_image

DEFAULT_FPS = 30.0  # where the source has no frame rate, as in Ultralytics
MAX_FRAMES = 10**9  # frames that a header may claim and be believed
CHUNK = 32  # frames of a file held at once when it is read backwards
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B  # what a block of a GIF begins with
HEADER, DESCRIPTOR = 13, 9  # bytes of a GIF's header, and of a frame's after its first


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame: its number in the video, counted from 0, its image (H, W, 3) BGR, and where that came from."""

    number: int
    image: np.ndarray
    file: str


class Video:
    """The frames of one video."""

    path: str  # its name: what results are saved under, and what prompts by file are found by
    fps: float = DEFAULT_FPS
    length: int | None = None  # number of frames, None where nobody knows before the end
    stated: int = 0  # the number that the header claims, for log lines only; 0 for none
    seekable = True  # whether a frame can be read again
    errors: ErrorPolicy = ErrorPolicy("raise")  # where frames that cannot be read are noted; their numbers stay unused

    def open(self) -> None:
        """Read what can be known before the first frame."""

    def close(self) -> None:
        """Delete what was stored to read it; read again, it is stored again."""

    def forward(self, start: int, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start, start + stride, … to the end."""
        raise NotImplementedError

    def backward(self, start: int | None, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        raise ValueError(f"{self.path} cannot be read backwards: its frames come once.")

    def _read(self, number: int, item: Any) -> Iterator[VideoFrame]:
        """The frame that an item is, if it can be read."""
        file = str(item) if isinstance(item, str | Path) else ""
        try:
            image = read_image(item)
        except INPUT_ERRORS as error:
            self.errors.handle(file or f"frame {number} of {self.path}", error)
        else:
            yield VideoFrame(number, image, file or self.path)

    def read(self, number: int) -> VideoFrame:
        """One frame; IndexError where there is none."""
        for frame in self.forward(number):
            if frame.number == number:
                return frame
            break
        raise IndexError(f"{self.path} has no frame {number}.")


class ImageSequence(Video):
    """Images in order: files, arrays, PIL images or (3, H, W) tensors, each opened when its turn comes."""

    def __init__(self, items: Sequence[Any], path: str) -> None:
        self.items, self.path, self.length = items, path, len(items)

    def open(self) -> None:
        """Warn of gaps in the numbers of the files' names: frames are numbered without them."""
        numbers = [last_number(item) for item in self.items if isinstance(item, str | Path)]
        found = sorted({number for number in numbers if number is not None})
        missing = found[-1] - found[0] + 1 - len(found) if len(found) == len(self.items) else 0
        if missing:
            line = f"{self.path}: {missing} numbers are missing between {found[0]} and {found[-1]}."
            report_slip(line, SourceError)

    def forward(self, start: int, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start, start + stride, … to the end."""
        return self._read_all(range(start, len(self.items), stride))

    def backward(self, start: int | None, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start (None: the last one), start - stride, … down to the first."""
        start = len(self.items) - 1 if start is None else start
        if start >= len(self.items):
            raise past_the_end(start)
        return self._read_all(range(start, -1, -stride))

    def _read_all(self, numbers: Iterable[int]) -> Iterator[VideoFrame]:
        for number in numbers:
            yield from self._read(number, self.items[number])


class VideoFile(Video):
    """A video file, read to its last frame: the number of frames that its header claims is never believed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.whole_frames: int | None = None

    @property
    def file(self) -> str:
        """The file that is read."""
        return self.path

    def open(self) -> None:
        """Read the header; SourceError where it is no video."""
        capture = self._open()
        fps, stated = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        self.whole_frames = count_whole_frames(self.file)
        self.fps, self.stated = fps if 0 < fps < 1000 else DEFAULT_FPS, int(stated) if 0 < stated < MAX_FRAMES else 0

    def forward(self, start: int, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start, start + stride, … to the end."""
        capture, number = self._open(), 0
        try:
            while number != self.whole_frames and capture.grab():
                if number >= start and (number - start) % stride == 0:
                    yield from self._decode(capture, number)
                number += 1
        finally:
            capture.release()
        self._check_end(number)

    def _decode(self, capture: cv2.VideoCapture, number: int) -> Iterator[VideoFrame]:
        """The frame that was grabbed, if it can be decoded."""
        try:
            read, image = capture.retrieve()
        except cv2.error as error:  # no memory for it, nor for those to come
            raise SourceError(f"{self.path}: frame {number} cannot be decoded: {one_line(error)}") from error
        if read and image is not None:
            yield VideoFrame(number, image, self.path)
        else:
            name = f"frame {number} of {self.path}"
            self.errors.handle(name, SourceError(f"{name} cannot be decoded."))

    def _check_end(self, count: int) -> None:
        """Warn where the video ended before its header has it."""
        if not count:
            raise SourceError(f"{self.path}: no frame of it can be decoded.")
        if self.whole_frames is not None:
            report_slip(f"{self.path}: it is cut short after {self.whole_frames} whole frames.", SourceError)
        elif count < self.stated:
            line = f"{self.path}: its header claims {self.stated} frames, {count} could be decoded: cut short?"
            report_slip(line, SourceError)
            self.stated = count

    def backward(self, start: int | None, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start (None: the last one), start - stride, … down to the first.

        The file is decoded from its beginning again for each few frames: seeking is exact in few containers.
        """
        asked = start = self._count() - 1 if start is None else start
        while start >= 0:
            first = start - min(start // stride, CHUNK - 1) * stride
            few = []
            for frame in self.forward(first, stride):
                if frame.number > start:
                    break
                few.append(frame)
            if start == asked and start not in [frame.number for frame in few] and start >= self._count():
                raise past_the_end(start)
            yield from reversed(few)
            start = first - stride

    def _count(self) -> int:
        capture, count = self._open(), 0
        while count != self.whole_frames and capture.grab():
            count += 1
        capture.release()
        self._check_end(count)
        return count

    def _open(self) -> cv2.VideoCapture:
        host.require_regular_file(self.file)
        capture = cv2.VideoCapture(self.file)
        if not capture.isOpened():
            raise SourceError(f"{self.path} cannot be opened as a video: it is damaged, cut short or not a video.")
        try:
            check_size(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        except SourceError as error:
            capture.release()
            raise SourceError(f"{self.path}: {error}") from error
        return capture


class VideoAddress(VideoFile):
    """A video on the web, downloaded when it is read: a temporary file until it is closed, or nobody has this any more.

    Its name is the address without a query, which may hold a password.
    """

    def __init__(self, address: str) -> None:
        super().__init__(without_query(address))
        self.address = address
        self._file: Path | None = None
        self._delete: Callable[[], Any] = lambda: None

    @property
    def file(self) -> str:
        """The temporary file; SourceError where the video cannot be downloaded."""
        if self._file is None:
            folder = TemporaryDirectory(prefix="samplug-", ignore_cleanup_errors=True)
            self._delete = weakref.finalize(self, folder.cleanup)
            file = Path(folder.name, f"video.{suffix(self.path)}")
            try:
                download_video(self.address, file)
            except BaseException:  # Ctrl-C too
                self.close()
                raise
            self._file = file
        return str(self._file)

    def close(self) -> None:
        """Delete the temporary file; read again, the video is downloaded again."""
        self._file = None
        self._delete()


def video_file(path: str) -> VideoFile:
    """The video of a file, or of an address."""
    return VideoAddress(path) if is_address(path) else VideoFile(path)


class FrameStream(Video):
    """Frames from an iterator, taken one at a time and never kept."""

    seekable = False

    def __init__(self, frames: Iterable[Any], path: str) -> None:
        self.frames, self.path = iter(frames), path

    def forward(self, start: int, stride: int = 1) -> Iterator[VideoFrame]:
        """Frames start, start + stride, … to the end."""
        for number, item in enumerate(self.frames):
            if number >= start and (number - start) % stride == 0:
                yield from self._read(number, item)

    def read(self, number: int) -> VideoFrame:
        """Raise IndexError: frames are not kept."""
        raise IndexError(f"{self.path} cannot go back to frame {number}: its frames come once.")


@dataclass(frozen=True)
class FrameOrder:
    """Which frames of a video are run, and in which order.

    "both": forwards from `start`, then from the same place backwards. The loader then gives all of these frames once
    more, in the order of time.
    """

    start: int | None = None  # the first frame; None for the beginning, or the end when read backwards
    stride: int = 1  # from one to the next; from the beginning, stride - 1 is the first, as with Ultralytics' loader
    reverse: bool | Literal["both"] = False

    def from_prompted(self, prompted: Collection[int]) -> FrameOrder:
        """The same from the frames that are prompted, where it runs backwards and nobody said from where."""
        if self.start is not None or not self.reverse or not prompted:
            return self
        return replace(self, start=min(prompted) if self.reverse == "both" else max(prompted))

    @property
    def origin(self) -> int:
        """The first frame of a forward pass: number 0 to the tracker."""
        return self.stride - 1 if self.start is None else self.start

    def frames(self, video: Video) -> Iterator[tuple[bool, VideoFrame]]:
        """Yield (whether backwards, frame); SourceError where the video ends before the first."""
        if self.reverse and not video.seekable:
            video.backward(None)  # refuses, before anything is run forwards
        empty, passes = True, [(True, self.start)] if self.reverse is True else [(False, self.origin)]
        if self.reverse == "both":
            passes.append((True, self.origin - self.stride))
        for backwards, start in passes:
            for frame in video.backward(start, self.stride) if backwards else video.forward(start or 0, self.stride):
                empty = False
                yield backwards, frame
            if empty and self.origin:
                raise past_the_end(self.origin)


def past_the_end(start: int) -> SourceError:
    """The error for a first frame that a video does not have."""
    return SourceError(f"frame {start} (start=, vid_stride=) is past the end; frames count from 0.")


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """A key that sorts frame2.png before frame10.png."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", str(path))]


def last_number(path: str | Path) -> int | None:
    """The last number in a file's name."""
    found = re.findall(r"\d+", Path(path).stem)
    return int(found[-1]) if found else None


def count_whole_frames(path: str | Path) -> int | None:
    """The number of frames that are whole in a GIF that is cut short; None for whole GIFs and other files.

    Decoders answer its last frame half empty, without a word.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != b"GIF8":
            return None
    data, frames = Path(path).read_bytes(), 0
    try:
        at = HEADER + palette_size(data[10])
        while data[at] != END:
            if data[at] not in (EXTENSION, FRAME):
                return None  # decoders differ in what they make of it
            is_frame = data[at] == FRAME
            at = skip_blocks(data, at + 2 + (DESCRIPTOR + palette_size(data[at + DESCRIPTOR]) if is_frame else 0))
            frames += is_frame
    except IndexError:
        return frames
    return None


def palette_size(flags: int) -> int:
    """The bytes of the palette that these flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def skip_blocks(data: bytes, at: int) -> int:
    """Where the chain of sub-blocks that begins here ends."""
    while data[at]:
        at += 1 + data[at]
    return at + 1
