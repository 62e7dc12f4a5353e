"""Drawings of results on disk: images written whole where memory suffices, videos checked to hold all of their frames.

OpenCV's writer of videos never says that it could not write, and holds back a part of the file until it is closed.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.utils import MACOS

from samplug import resources
from samplug.files.atomic import atomic_write
from samplug.host import LOGGER, Results

DRAWING_BYTES = 36, 24  # bytes of memory for a pixel, measured: of Ultralytics' drawing alone, and of each mask in it
FULL_DISK_BYTES = 1 << 16  # free on a disk that is full: a write that failed took the rest


def check_drawing(result: Results) -> None:
    """Require the memory that drawing a result takes; OutOfMemoryError where there is less."""
    height, width = result.orig_shape
    rows = 0 if result.masks is None else len(result.masks)
    need = (DRAWING_BYTES[0] + DRAWING_BYTES[1] * rows) * height * width
    resources.require_memory(
        need, f"drawing {rows} masks on {width}x{height} pixels", "save_txt=True saves outlines without drawing"
    )


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a colour image in the format of its name; OSError where that fails, and what was there before stays.

    Raises:
        ValueError: OpenCV writes no colour images under such a name.
    """
    known = cv2.haveImageWriter(path.name)
    written, data = cv2.imencode(path.suffix, np.ascontiguousarray(image)) if known else (False, np.empty(0))
    if not written:
        suffix = path.suffix or "a name without a suffix"
        raise ValueError(f"Cannot write {path}: OpenCV has no colour images for {suffix}. Expected .jpg or .png.")
    with atomic_write(path, flush=False) as aside:
        aside.write_bytes(data.tobytes())


def resize_frame(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A frame (H, W, 3) at another size: a video has one for all of its frames."""
    return image if image.shape[:2] == shape else cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)


@dataclass(eq=False)
class Recording:
    """A video that results are drawn into."""

    path: Path  # the file that Ultralytics writes
    shape: tuple[int, int]  # (H, W) of its frames
    frames: int = 0  # how many were handed to its writer
    writer: Any = None  # OpenCV's, None before the first
    waiting: tuple[int | None, np.ndarray] | None = None  # number and drawing of the last frame, while not yet written

    def check_disk(self) -> None:
        """Refuse to go on where the disk is full, by an OSError; one that does not know its own size is not asked."""
        disk = shutil.disk_usage(self.path.parent)
        if disk.total and disk.free < FULL_DISK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def count_frame(self, writer: Any) -> None:
        """Note that a writer was handed a frame; OSError if it could not open the file."""
        if not writer.isOpened():
            self.path.open("ab").close()  # says why, if it is the folder's fault
            raise OSError(f"{self.path} cannot be written: OpenCV has no encoder for it.")
        self.frames, self.writer = self.frames + 1, writer

    def problem(self) -> str:
        """Say, of a closed one, what is wrong with the file. Empty if nothing is."""
        if not self.frames or is_complete(self.path) and frames_in(self.path) >= self.frames:
            return ""
        return f"{self.path} is not whole: of {self.frames} frames not all could be written. Is the disk full?"


class Recordings:
    """The videos of one run, by the names they are saved under.

    As a context it closes them and looks whether they are whole: at the end of a run one that is not is an error, and
    after a run that was broken off a warning.
    """

    def __init__(self) -> None:
        self.all: dict[Path, Recording] = {}
        self.writers: dict[Path, Any] = {}  # OpenCV's

    def of(self, name: Path, shape: tuple[int, int]) -> Recording:
        """The video of a name, a new one with frames of this shape."""
        return self.all.setdefault(name, Recording(name.with_suffix(".mp4" if MACOS else ".avi"), shape))

    def __enter__(self) -> Recordings:
        self.all, self.writers = {}, {}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for each in self.all.values():
            if each.writer is not None:
                each.writer.release()
        if kind is not None and issubclass(kind, Exception):
            return  # there is an error already, which may well be the disk's
        problems = [problem for each in self.all.values() if (problem := each.problem())]
        if problems and kind is None:
            raise OSError(" ".join(problems))
        for problem in problems:
            LOGGER.warning(problem)


def is_complete(path: Path) -> bool:
    """Whether an AVI file ends where its header has it, which is filled in last.

    Of other formats this says nothing: they have a table behind the frames, and do not open without it.
    """
    if not path.is_file():
        return False
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while end < size:  # a long file has several parts
            file.seek(end)
            head = file.read(8)
            if head[:4] != b"RIFF":
                return not end
            end += 8 + int.from_bytes(head[4:], "little")
    return end == size


def frames_in(path: Path) -> int:
    """How many frames a video holds by its header, 0 where it cannot be opened.

    Readers other than FFmpeg's estimate the number, so there they are counted.
    """
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        return 0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if capture.getBackendName() != "FFMPEG":
        count = 0
        while capture.grab():
            count += 1
    capture.release()
    return count
