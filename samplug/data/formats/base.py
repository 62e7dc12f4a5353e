"""What a writer of labels is, and how lists of JSON are written without holding them in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

import numpy as np

from samplug.data.formats.records import ImageRecord, ObjectRecord

Named = Sequence[tuple[int, ObjectRecord]]  # class number and object, in order
FileOf = Callable[[str], str]  # the file of an image or video by its name
ImageOf = Callable[[ImageRecord], np.ndarray | None]  # the BGR image (H, W, 3) of a record; None: not wanted


class Writer:
    """Writes the labels of images, one at a time.

    Attributes:
        place: the file or folder of the labels below the folder of the job.
        places_beside: what else is written there.

    Args:
        folder: where they are written.
        classes: number by class name; complete when it is closed.
        file_of: gives the file of an image or video by its name in the job.
        image_of: gives images that are in no file of their own, such as frames, for labels that need them.
    """

    place: str
    places_beside: tuple[str, ...] = ()

    def __init__(
        self, folder: Path, classes: Mapping[str, int], file_of: FileOf, image_of: ImageOf | None = None
    ) -> None:
        self.folder, self.classes, self.file_of, self.image_of = folder, classes, file_of, image_of
        self.target = folder / self.place
        if not self.target.suffix:
            self.target.mkdir(exist_ok=True)
        self.files = ExitStack()  # of what is open until the end
        self._open()

    def _open(self) -> None:
        """Make what `add` writes to."""

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an image's or frame's labels; without objects it was looked at and nothing found."""
        raise NotImplementedError

    def close(self) -> None:
        """Complete what was written."""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self.files:
            if error is None:
                self.close()

    def part(self) -> IO[str]:
        """A file for a part of the labels, gone at the end."""
        return self.files.enter_context(TemporaryFile("w+", dir=self.folder, encoding="utf-8"))


class JsonWriter(Writer):
    """Writes a JSON object, of which the values `lists` are long."""

    lists: tuple[str, ...]

    def _open(self) -> None:
        self._counts = dict.fromkeys(self.lists, 0)
        self._parts = {name: self.part() for name in self.lists}

    def append(self, name: str, entry: Mapping[str, Any]) -> int:
        """Add an entry to a list, with its number from 1 as `id` if it has none; returns the number."""
        number = self._counts[name] = self._counts[name] + 1
        self._parts[name].write((",\n" if number > 1 else "") + json.dumps({"id": number, **entry}))
        return number

    def head(self) -> dict[str, Any]:
        """What stands before the lists."""
        raise NotImplementedError

    def close(self) -> None:
        """Join the lists behind what stands before them."""
        with self.target.open("w", encoding="utf-8") as whole:
            whole.write(json.dumps(self.head())[:-1])
            for name, part in self._parts.items():
                whole.write(f",\n{json.dumps(name)}: [\n")
                join(part, whole)
                whole.write("\n]")
            whole.write("}\n")


class VideoWriter(Writer):
    """Writes labels of which a file or an entry is a whole video; an image is a video of one frame."""

    def _open(self) -> None:
        super()._open()
        self._frames: list[tuple[ImageRecord, Named]] = []

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Keep a frame until its video ends."""
        if self._frames and record.source != self._frames[-1][0].source:
            self._end_video()
        self._frames.append((record, [(number, replace(each)) for number, each in objects]))  # without unpacked masks

    def add_video(self, frames: Sequence[tuple[ImageRecord, Named]]) -> None:
        """Write a video."""
        raise NotImplementedError

    def close(self) -> None:
        """Write the last video, and complete what was written."""
        if self._frames:
            self._end_video()
        super().close()

    def _end_video(self) -> None:
        self.add_video(self._frames)
        self._frames = []


def join(part: IO[str], whole: IO[str]) -> None:
    """Append a part to a file."""
    part.seek(0)
    shutil.copyfileobj(part, whole)


def image_name(record: ImageRecord) -> str:
    """The file name of an image; of a frame, its number in a folder of the video's name."""
    stem = PurePosixPath(record.source).with_suffix("")
    return record.source if record.frame is None else f"{stem}/{record.frame:06d}.jpg"


def file_for(record: ImageRecord, folder: Path, suffix: str) -> Path:
    """The file of an image's or frame's labels, at its name; its folder is made."""
    path = folder / PurePosixPath(image_name(record)).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def track_of(objects: Named, place: int) -> int:
    """What tells an object of a video from others: its id, or, without ids, its place in the list."""
    obj_id = objects[place][1].id
    return place if obj_id is None else obj_id


def tracks_of(frames: Sequence[tuple[ImageRecord, Named]]) -> dict[int, dict[int, tuple[int, ObjectRecord]]]:
    """Class number and object of each track, by the track and the place of the frame, where it has any pixel."""
    tracks: dict[int, dict[int, tuple[int, ObjectRecord]]] = {}
    for at, (_, objects) in enumerate(frames):
        for place, (number, each) in enumerate(objects):
            if each.area:
                tracks.setdefault(track_of(objects, place), {})[at] = (number, each)
    return tracks
