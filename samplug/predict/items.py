"""What the picture predictors run over, as a loader of Ultralytics: pictures and frames of videos, each by itself."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.loaders import LOADERS, LoadImagesAndVideos, SourceTypes, autocast_list
from ultralytics.data.utils import VID_FORMATS

from samplug.predict.clips import VideoFile
from samplug.predict.faults import Faults, SourceError, named
from samplug.predict.opening import as_picture

Batch = tuple[list[str], list[np.ndarray], list[str]]
STREAMED = ("rtsp://", "rtmp://", "tcp://", "http://", "https://")


class Listed(LoadImagesAndVideos):
    """Ultralytics' list of the files that a path, a folder, a glob or a .txt or .csv file names; none is opened."""

    def _new_video(self, path: str) -> None:
        self.cap = None


class Items(LoadImagesAndVideos):
    """A loader of pictures and videos, which Ultralytics' loop takes for one of its own.

    What cannot be read is left out and noted in `faults`; its number stays unused. Videos are read to their last frame,
    whatever their header says, and no batch holds frames of two. The loop may hold a copy of the loader made with each
    batch, so that whatever belongs to a batch is an attribute.

    Attributes:
        numbers: the places of the batch's pictures among all there are; of frames, since the first video began.
        frame: the number of the batch's last frame, from 1.
        mode: "image" or "video", what the batch is of.
    """

    def __init__(self, items: Sequence[Any], faults: Faults, batch: int = 1, stride: int = 1) -> None:
        self.items, self.faults, self.bs, self.vid_stride = list(items), faults, max(1, int(batch)), stride
        self.video_flag = [isinstance(item, str | Path) and is_video(item) for item in self.items]
        self.files = [name_of(item, i) for i, item in enumerate(self.items)]
        self.nf, self.ni = len(self.items), self.video_flag.count(False)
        if not self.nf:
            raise FileNotFoundError("The source holds no picture and no video.")
        self.mode, self.cap = "image" if self.ni else "video", None
        self.count = self.frame = self.frames = 0
        self.fps = 30.0
        self.numbers: list[int] = []
        self.source_type = SourceTypes()
        faults.alone = self.nf == self.ni == 1

    def __iter__(self) -> Items:
        self._batches = self._run()
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the list, not how far a run is."""
        return {name: value for name, value in vars(self).items() if name != "_batches"}

    def close(self) -> None:
        """Let go of the file in hand."""
        if hasattr(self, "_batches"):
            self._batches.close()

    def _run(self) -> Generator[Batch, None, None]:
        self.mode = "image"
        yield from self._batched(self._pictures())
        self.mode, numbers = "video", count(self.ni)
        for place, video in enumerate(self.video_flag):
            if video:
                self.count = place
                yield from self._batched(self._frames(place, numbers))

    def _batched(self, rows: Iterator[tuple[int, str, np.ndarray, str]]) -> Iterator[Batch]:
        while few := list(islice(rows, self.bs)):
            numbers, paths, pictures, lines = map(list, zip(*few, strict=True))
            self.numbers = numbers
            yield paths, pictures, lines

    def _pictures(self) -> Iterator[tuple[int, str, np.ndarray, str]]:
        for place, (item, path, video) in enumerate(zip(self.items, self.files, self.video_flag, strict=True)):
            if video:
                continue
            self.count = place
            try:
                picture = as_picture(fetched(item))
            except (OSError, TypeError, ImportError) as error:
                self.faults.meet(path, named(path, error))
            else:
                yield place, path, picture, f"image {place + 1}/{self.nf} {path}: "

    def _frames(self, place: int, numbers: Iterator[int]) -> Iterator[tuple[int, str, np.ndarray, str]]:
        path = self.files[place]
        try:
            clip = VideoFile(path)
            clip.faults = self.faults
            clip.open()
            self.fps, frames = clip.fps, clip.stated // self.vid_stride or "?"
            for frame, shot in enumerate(clip.forward(self.vid_stride - 1, self.vid_stride), 1):
                self.frame = frame
                line = f"video {place + 1}/{self.nf} (frame {self.frame}/{frames}) {path}: "
                yield next(numbers), path, shot.picture, line
        except SourceError as error:
            self.faults.meet(path, named(path, error))


def as_items(source: Any, faults: Faults, batch: int, stride: int) -> Any:
    """Wrap files and pictures as a loader; streams, screens and tensors are left to the host."""
    if isinstance(source, str | Path | int):
        return source if elsewhere(source) else Items(Listed(str(source)).files, faults, batch, stride)
    if isinstance(source, LOADERS):
        return source
    if isinstance(source, np.ndarray) or hasattr(source, "convert"):
        source = [source]
    return Items(source, faults, batch, stride) if isinstance(source, list | tuple) else source


def replaced(loader: Any, faults: Faults) -> Any:
    """Put our loader in the place of the host's for files that it fetched."""
    if type(loader) is not LoadImagesAndVideos:
        return loader
    if loader.cap:
        loader.cap.release()
    return Items(loader.files, faults, loader.bs, loader.vid_stride)


def elsewhere(source: str | Path | int) -> bool:
    """Whether a source is a camera, a stream, a screen or an address, not files at hand."""
    text = str(source).lower()
    screen = text == "screen" or text.startswith("screen ") and not Path(str(source)).exists()
    return screen or text.isnumeric() or text.startswith(STREAMED) or text.endswith(".streams")


def fetched(item: Any) -> Any:
    """A picture from an address, as the host fetches it; anything else as it is."""
    is_address = isinstance(item, str) and item.lower().startswith(("http://", "https://"))
    return autocast_list([item])[0] if is_address else item


def name_of(item: Any, place: int) -> str:
    """The path of a file, or the name that results of a picture in memory are saved under, as the host has it."""
    if isinstance(item, str | Path):
        return str(item)
    return getattr(item, "filename", "") or f"image{place}.jpg"


def is_video(file: str | Path) -> bool:
    """Whether a file is a video by its name."""
    return Path(file).suffix[1:].lower() in VID_FORMATS
