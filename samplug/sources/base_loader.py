"""What the loaders of images and of videos share."""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.loaders import LoadImagesAndVideos, SourceTypes
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS

from samplug import host
from samplug.sources.errors import ErrorPolicy

Batch = tuple[list[str], list[np.ndarray], list[str]]  # paths, BGR images, beginnings of log lines
FRAMES_COUNT = "Frames count from 0: in prompts, in results, in these lines and in the names of label files."
LISTS = ("txt", "csv")  # files that name others
STREAM_SCHEMES = ("rtsp://", "rtmp://", "tcp://", "http://", "https://")


class FileList(LoadImagesAndVideos):
    """Ultralytics' list of the files that a path, a folder, a glob or a .txt or .csv file names; none is opened."""

    def _new_video(self, path: str) -> None:
        self.cap = None


def list_files(source: str) -> list[str]:
    """The files that a path, a folder, a glob or a .txt or .csv file names: images, then videos.

    Lines of a list that name no image and no video stay, to be skipped under their names; # begins a comment.
    SourceError where the path is that of a pipe or a device.
    """
    host.require_regular_file(source)
    if "*" in source and os.path.isfile(source):  # a name, not a pattern
        return [str(Path(source).absolute())]
    if suffix(source) not in LISTS or not os.path.isfile(source):
        return FileList(source).files
    files = [file for line in sorted(lines_of_list(Path(source))) for file in files_of_line(line, Path(source).parent)]
    return sorted(files, key=is_video)


def lines_of_list(path: Path) -> list[str]:
    """The entries of a .txt or .csv file, in UTF-8 or UTF-16; a first row "source" is the title of a column."""
    content = path.read_bytes()
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    lines = content.decode(*(("utf-16", "replace") if is_utf_16 else ("utf-8-sig", "surrogateescape"))).splitlines()
    if suffix(path) == "csv":
        rows = [row for row in csv.reader(lines) if row]
        lines = [entry for row in (rows[1:] if rows[:1] == [["source"]] else rows) for entry in row]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def files_of_line(line: str, folder: Path) -> list[str]:
    """The files that a line of a list names, relative to here or to the list."""
    for path in (line, str(folder / line)) if suffix(line) not in LISTS else ():
        with suppress(OSError, ValueError):  # no such file, or no image
            return FileList(path).files
    return [str(Path(line).absolute())]


class SourceLoader(LoadImagesAndVideos):
    """A loader that Ultralytics' loop takes for one of its own.

    Inputs that cannot be read are skipped as `errors` says. The loop may hold a copy of the loader made with each
    batch, so that whatever belongs to a batch is an attribute.
    """

    def __init__(self, files: Sequence[str], video_flag: Sequence[bool], errors: ErrorPolicy) -> None:
        if not files:
            raise FileNotFoundError("The source holds no image and no video.")
        self.files, self.video_flag, self.errors = list(files), list(video_flag), errors
        self.nf, self.ni, self.bs = len(self.files), self.video_flag.count(False), 1
        self.mode, self.cap = "image" if self.ni else "video", None  # what the batch is of
        self.count = 0  # the index of the current image or video
        self.frame = 0  # the number of the batch's last frame in its video
        self.frames = 0  # of the current video, where that is known or claimed
        self.fps = 30.0  # of the current video
        self.source_type = SourceTypes()

    def batches(self) -> Iterator[Batch]:
        """The batches of a run."""
        raise NotImplementedError

    def __iter__(self) -> SourceLoader:
        self._batches = self.batches()
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the list, not how far a run is."""
        return {name: value for name, value in vars(self).items() if name != "_batches"}

    def close(self) -> None:
        """Close the current file."""
        if hasattr(self, "_batches"):
            self._batches.close()  # type: ignore[attr-defined]  # a generator


def is_address(source: Any) -> bool:
    """Whether a source is an address on the web."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def is_image_address(source: Any) -> bool:
    """Whether a source is the address of an image."""
    return is_address(source) and is_image(source)


def is_file_address(source: Any) -> bool:
    """Whether a source is the address of an image or a video, by its ending; others are streams."""
    return is_address(source) and (is_image(source) or is_video(source))


def without_query(address: str) -> str:
    """An address without what follows its path, from ? or # on."""
    return address.partition("#")[0].partition("?")[0]


def is_live(source: str | Path | int) -> bool:
    """Whether a source is a camera, a stream, a screen or an address, not local files."""
    text = str(source).lower()
    screen = text == "screen" or text.startswith("screen ") and not Path(str(source)).exists()
    return screen or text.isnumeric() or text.startswith(STREAM_SCHEMES) or text.endswith(".streams")


def image_count(dataset: Any) -> int | None:
    """Count the images a loader will give in all; None for videos, streams and screens."""
    if hasattr(dataset, "nf"):
        return None if any(dataset.video_flag) else dataset.nf
    return None if getattr(dataset, "mode", "") == "stream" else getattr(dataset, "bs", None)


def require_one_image(dataset: Any) -> None:
    """Refuse what gives another number of images than one: ValueError."""
    count = image_count(dataset)
    if count != 1:
        raise ValueError(f"set_image takes one image, not {count or 'a video'}: give a list as the source instead.")


def suffix(path: Any) -> str:
    """The ending of a file's name, also of one on the web, in lower case and without its dot."""
    path = without_query(str(path)).split("/", 3)[3:] if is_address(path) else [path]
    return Path(*path).suffix[1:].lower()


def is_image(item: Any) -> bool:
    """Whether an item is the path of an image file, by its ending."""
    return isinstance(item, str | Path) and suffix(item) in IMG_FORMATS


def is_video(item: Any) -> bool:
    """Whether an item of a source is the path of a video, by its name."""
    return isinstance(item, str | Path) and suffix(item) in VID_FORMATS
