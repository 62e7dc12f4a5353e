"""Videos on disk: whether each frame has room, and whether the file holds all of them at the end.

OpenCV's writer never says that it could not write, and holds back a part of the file until it is closed.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
from ultralytics.utils import MACOS

from samplug.host import LOGGER

FULL = 1 << 16  # bytes; a disk with less is full: what could not be written whole has taken up the rest of it


class Recording:
    """A video that results are drawn into.

    Attributes:
        path: the file that Ultralytics writes.
        shape: (H, W) of its frames.
        frames: how many were handed to its writer.
        writer: OpenCV's, None before the first.
    """

    def __init__(self, name: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = name.with_suffix(".mp4" if MACOS else ".avi"), shape
        self.frames = 0
        self.writer: Any = None

    def check_room(self) -> None:
        """Refuse to go on where the disk is full; one that does not know its own size is not asked.

        Raises:
            OSError: it is.
        """
        disk = shutil.disk_usage(self.path.parent)
        if disk.total and disk.free < FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def took(self, writer: Any) -> None:
        """Note that a writer was handed a frame.

        Raises:
            OSError: it could not open the file.
        """
        if not writer.isOpened():
            self.path.open("ab").close()  # says why, if it is the folder's fault
            raise OSError(f"{self.path} cannot be written: OpenCV has no encoder for it.")
        self.frames, self.writer = self.frames + 1, writer

    def close(self) -> None:
        """Write the rest."""
        if self.writer is not None:
            self.writer.release()

    def fault(self) -> str:
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
        self._all: dict[Path, Recording] = {}

    def of(self, name: Path, shape: tuple[int, int]) -> Recording:
        """The video of a name, a new one with frames of this shape."""
        return self._all.setdefault(name, Recording(name, shape))

    def __enter__(self) -> Recordings:
        self._all = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for each in self._all.values():
            each.close()
        if kind is not None and issubclass(kind, Exception):
            return  # there is an error already, which may well be the disk's
        faults = [fault for each in self._all.values() if (fault := each.fault())]
        if faults and kind is None:
            raise OSError(" ".join(faults))
        for fault in faults:
            LOGGER.warning(fault)


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
