"""What the image predictors run over: images and frames of videos, each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.data.loaders import LOADERS, LoadImagesAndVideos, LoadTensor

from samplug import host
from samplug.errors import SourceError
from samplug.sources.base_loader import (
    FRAMES_COUNT,
    Batch,
    SourceLoader,
    is_address,
    is_file_address,
    is_live,
    is_video,
    list_files,
    without_query,
)
from samplug.sources.errors import INPUT_ERRORS, ErrorPolicy
from samplug.sources.image import read_image
from samplug.sources.pixels import tensor_in_0_1
from samplug.sources.video import video_file


class ImageLoader(SourceLoader):
    """A loader of images and videos.

    The index of a skipped image stays unused. Videos are read to their last frame, whatever their header says, and no
    batch holds frames of two. `batch` images or frames it holds, None: one, and images in memory all together, as in
    Ultralytics.
    """

    def __init__(self, items: Sequence[Any], errors: ErrorPolicy, batch: int | None = None, stride: int = 1) -> None:
        self.items = list(items)
        names = [name_of(item, i) for i, item in enumerate(self.items)]
        super().__init__(names, [is_video(item) for item in self.items], errors)
        if batch is None:
            batch = 1 if any(isinstance(item, str | Path) for item in self.items) else len(self.items)
        self.bs, self.vid_stride = max(1, int(batch)), stride
        self.indices: list[int] = []  # of the batch's images among all; of frames, since the first video began
        errors.single_image = self.nf == self.ni == 1

    def hold(self, images: Sequence[np.ndarray]) -> None:
        """Give the images that were read from files again, whatever becomes of the files."""
        read = zip(self.items, images, strict=True)
        self.items = [image if isinstance(item, str | Path) else item for item, image in read]

    def batches(self) -> Iterator[Batch]:
        """The images, then the frames of each video."""
        self.mode = "image"
        yield from self._batched(self._images())
        self.mode, indices = "video", count(self.ni)
        for place, video in enumerate(self.video_flag):
            if video:
                self.count = place
                yield from self._batched(self._frames(place, indices))

    def _batched(self, rows: Iterator[tuple[int, str, np.ndarray, str]]) -> Iterator[Batch]:
        while few := list(islice(rows, self.bs)):
            self.indices, paths, images, lines = map(list, zip(*few, strict=True))
            yield paths, images, lines

    def _images(self) -> Iterator[tuple[int, str, np.ndarray, str]]:
        for place, (item, path, video) in enumerate(zip(self.items, self.files, self.video_flag, strict=True)):
            if video:
                continue
            self.count = place
            try:
                image = read_image(item)
            except INPUT_ERRORS as error:
                self.errors.handle(path, error)
            else:
                yield place, path, image, f"image {place + 1}/{self.nf} {path}: "

    def _frames(self, place: int, indices: Iterator[int]) -> Iterator[tuple[int, str, np.ndarray, str]]:
        path = self.files[place]
        video = video_file(str(self.items[place]))
        video.errors = self.errors
        try:
            video.open()
            host.say_once(FRAMES_COUNT)
            self.fps, frames = video.fps, video.stated or "?"
            for frame in video.forward(self.vid_stride - 1, self.vid_stride):
                self.frame = frame.number
                line = f"video {place + 1}/{self.nf} (frame {self.frame}/{frames}) {path}: "
                yield next(indices), path, frame.image, line
        except SourceError as error:
            self.errors.handle(path, error)
        finally:
            video.close()


def image_loader_of(source: Any, errors: ErrorPolicy, batch: int | None, stride: int) -> Any:
    """Wrap files, images and Ultralytics' loader of downloaded files; streams, screens and tensors stay as they are."""
    if isinstance(source, str) and is_file_address(source):  # Ultralytics keeps files by name, of whatever server
        return ImageLoader([source], errors, batch, stride)
    if isinstance(source, str | Path | int):
        return source if is_live(source) else ImageLoader(list_files(str(source)), errors, batch, stride)
    if type(source) is LoadImagesAndVideos:
        if source.cap:
            source.cap.release()
        return ImageLoader(source.files, errors, source.bs, source.vid_stride)
    if isinstance(source, (*LOADERS, LoadTensor)):
        return source
    if isinstance(source, np.ndarray) or hasattr(source, "convert"):
        source = [source]
    if isinstance(source, list | tuple):
        return ImageLoader(source, errors, batch, stride)
    if isinstance(source, Tensor):
        return tensor_in_0_1(source)
    raise TypeError(
        f"source is {type(source).__name__}. Expected a path, a stream, an image or a list of some, each of which is "
        "segmented alone; iterators are tracked: give prompts, and no track=False."
    )


def name_of(item: Any, place: int) -> str:
    """The path of a file, or the name that results of an image in memory are saved under, as the host has it."""
    if isinstance(item, str | Path):
        return without_query(str(item)) if is_address(item) else str(item)
    return getattr(item, "filename", "") or f"image{place}.jpg"
