"""What the video predictor runs over: videos one after the other, a frame at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.data.loaders import LOADERS, LoadImagesAndVideos, LoadPilAndNumpy
from ultralytics.data.utils import IMG_FORMATS

from samplug import host
from samplug.errors import SourceError
from samplug.host import LOGGER
from samplug.runtime.progress import JobProgress, TimeLeft
from samplug.sources.base_loader import (
    FRAMES_COUNT,
    LISTS,
    Batch,
    SourceLoader,
    is_address,
    is_file_address,
    is_image_address,
    is_live,
    is_video,
    list_files,
    suffix,
)
from samplug.sources.errors import ErrorPolicy
from samplug.sources.video import (
    FrameOrder,
    FrameStream,
    ImageSequence,
    Video,
    VideoFile,
    VideoFrame,
    natural_key,
    video_file,
)

MANY_FRAMES = 1000  # as many images in a list are to Ultralytics
NO_FRAMES = (bytes, bytearray, Mapping, Set, io.IOBase)  # what can be iterated, and yields no images
RAISE = ErrorPolicy("raise")


class VideoLoader(SourceLoader):
    """A loader of videos of every kind.

    A batch is one frame. Its path is the video's, so that a folder of images is saved as one video; `video_frame.file`
    is the image's own. `count` is the index of the current video.
    """

    def __init__(self, videos: Sequence[Video], errors: ErrorPolicy = RAISE) -> None:
        super().__init__([video.path for video in videos], [is_long(video) for video in videos], errors)
        self.mode, self.videos, self.ni = "video", list(videos), 0
        for video in self.videos:
            video.errors = errors
        self.fps = self.videos[0].fps
        self.video_frame: VideoFrame | None = None  # the current one
        self.backwards = False  # whether the video is read backwards
        self.both_ways = False  # whether this frame is run, either way, before all are given out in the order of time
        self.again = False  # whether it is one of those that come again in that order
        self.first_number = 0  # of the first video's frames, unless it goes on with another
        self.skipped = set[int]()  # the indices of videos that are not continued
        self.frame_order: Callable[[int, str], FrameOrder] = lambda index, path: FrameOrder()  # those that are run

    @property
    def video(self) -> Video:
        """The current video."""
        return self.videos[self.count]

    def batches(self) -> Iterator[Batch]:
        """The frames of each video."""
        for index, video in enumerate(self.videos):
            self.count = index
            try:
                video.open()
                yield from self._frames(index, video)
            except SourceError as error:
                self.errors.handle(video.path, error)
            finally:
                video.close()

    def close(self) -> None:
        """Close the videos, also what a correction of an earlier frame has opened again."""
        super().close()
        for video in self.videos:
            video.close()

    def _frames(self, index: int, video: Video) -> Iterator[Batch]:
        first = 0 if index else self.first_number
        host.say_once(FRAMES_COUNT)
        self.fps, self.frames = video.fps, first + (video.length or video.stated)
        order, time_left, left = self.frame_order(index, video.path), TimeLeft(), ""
        self.both_ways, self.again = order.reverse == "both", False
        frames = self._in_order(order, video) if self.both_ways else order.frames(video)
        for backwards, frame in frames:
            if index in self.skipped:
                break
            frame = replace(frame, number=first + frame.number) if first else frame
            self.backwards, self.video_frame, self.frame = backwards, frame, frame.number
            total = self.frames if self.frames > self.frame else "?"
            line = f"video {index + 1}/{self.nf} (frame {self.frame}/{total}{left}) {video.path}: "
            yield [video.path], [frame.image], [line]
            ahead = self.frame if backwards else self.frames - self.frame
            left = "" if total == "?" else time_left.after_frame(ahead / order.stride)

    def _in_order(self, order: FrameOrder, video: Video) -> Iterator[tuple[bool, VideoFrame]]:
        """Yield (whether backwards, frame), both ways and then once more in the order of time."""
        LOGGER.info(f"{video.path}: both ways are run first, then come the results in the order of time.")
        length = (video.length or video.stated) // order.stride
        with JobProgress({"frame": length}, "reverse=False and reverse=True give each result at once.", True) as job:
            for item in order.frames(video):
                with job.timed("frame"):
                    yield item
        self.both_ways, self.again = False, True
        video.errors = NotedErrors()
        yield from ((False, frame) for frame in video.forward(order.origin % order.stride, order.stride))


class NotedErrors(ErrorPolicy):
    """Passes over frames that were skipped, and noted, when they were read before."""

    def handle(self, name: str, error: Exception) -> None:
        """Do nothing."""


def is_long(video: Video) -> bool:
    """Whether Ultralytics is to warn of results that are kept for all of its frames."""
    return video.length is None or video.length > MANY_FRAMES


def video_loader_of(source: Any, errors: ErrorPolicy = RAISE) -> Any:
    """Wrap files, images, lists, iterators and Ultralytics' loaders of these; streams and screens stay as they are."""
    if isinstance(source, str) and is_file_address(source):  # Ultralytics keeps files by name, of whatever server
        return VideoLoader(videos_of_files([source]), errors)
    if isinstance(source, str | Path | int):
        return source if is_live(source) else VideoLoader(videos_of_files(list_files(str(source))), errors)
    if isinstance(source, LoadPilAndNumpy):
        return VideoLoader([ImageSequence(source.im0, "frames")], errors)
    if isinstance(source, LoadImagesAndVideos) and not isinstance(source, VideoLoader):
        if source.cap:
            source.cap.release()
        return VideoLoader(videos_of_files(source.files), errors)
    if isinstance(source, LOADERS):
        return source
    if isinstance(source, Tensor):
        check_channels(source)
    if isinstance(source, np.ndarray | Tensor):
        return VideoLoader([ImageSequence(list(source) if source.ndim == 4 else [source], "frames")], errors)
    if hasattr(source, "convert"):
        return VideoLoader([ImageSequence([source], getattr(source, "filename", "") or "frames")], errors)
    if isinstance(source, list | tuple):
        return VideoLoader(videos_of_list(source), errors)
    if isinstance(source, Iterable) and not isinstance(source, NO_FRAMES):
        return VideoLoader([FrameStream(source, "frames")], errors)
    raise TypeError(f"source is {type(source).__name__}. Expected a path, a stream, images or an iterator of them.")


def check_channels(frames: Tensor) -> None:
    """Refuse a tensor that is not one of frames, as for single images: a fourth channel may be anything. ValueError."""
    if frames.ndim not in (3, 4) or frames.shape[-3] not in (1, 3):
        shape = tuple(frames.shape)
        raise ValueError(f"the tensor has the shape {shape}. Expected (F, 3, H, W) RGB: channels come first.")


def videos_of_list(items: Sequence[Any]) -> list[Video]:
    """Frames and videos in the order given; folders, globs and lists in a file are listed as Ultralytics lists them."""
    if not items:
        return []
    if not all(isinstance(item, str | Path) for item in items):
        videos = [video_file(str(item)) for item in items if is_video(item)]
        images = [item for item in items if not is_video(item)]
        return images_and_videos([ImageSequence(images, "frames")], videos)
    if all(suffix(item) in IMG_FORMATS for item in items):
        return [ImageSequence(items, folder_of(items[0]))]
    return videos_of_files([file for item in items for file in files_of_item(item)])


def files_of_item(item: str | Path) -> list[str]:
    """The files that an item of a list names; one that names none comes as it is, to be skipped under its name."""
    if names_several(item):
        with suppress(OSError, ValueError):  # nothing in it, or no text
            return list_files(str(item))
    return [str(item) if is_live(item) else str(Path(item).absolute())]


def names_several(item: str | Path) -> bool:
    """Whether an item is a folder, a glob or a file that lists others."""
    glob = "*" in str(item) and not os.path.isfile(item)
    return glob or suffix(item) in LISTS or os.path.isdir(item)


def video_of(path: str) -> Video:
    """The video of a file, or of the images in a folder, in natural order."""
    if not os.path.isdir(path):
        return video_file(path)
    files = [file for file in list_files(path) if not is_video(file)]
    return ImageSequence(sorted(files, key=natural_key), path)


def videos_of_files(files: Sequence[str]) -> list[Video]:
    """The images of each folder as one video, in natural order, then every video file."""
    folders: dict[str, list[str]] = {}
    for file in files:
        if not is_video(file):
            folders.setdefault(folder_of(file), []).append(file)
    images = [ImageSequence(sorted(few, key=natural_key), folder) for folder, few in folders.items()]
    return images_and_videos(images, [video_file(file) for file in files if is_video(file)])


def folder_of(file: str | Path) -> str:
    """The folder of a file, also of one on the web."""
    return str(file).rpartition("/")[0] if is_address(file) else str(Path(file).parent)


def images_and_videos(images: list[ImageSequence], videos: list[VideoFile]) -> list[Video]:
    """Images and then videos; where there are both, the log says that the images are a video."""
    for one in images if videos else ():
        LOGGER.info(f"{one.path}: its images lie beside videos and count as one more video (frames: {one.length}).")
    return [*images, *videos]


def has_video(source: Any) -> bool:
    """Whether a source is a video or a stream, or holds at least one, so that prompts on it are to be tracked.

    Images alone, in lists, folders and tensors, are not: they are frames only if tracking is asked for.
    """
    if isinstance(source, LOADERS):
        return getattr(source, "mode", "image") != "image" or any(getattr(source, "video_flag", ()))
    if isinstance(source, list | tuple):
        return any(isinstance(item, str | Path) and path_has_video(item) for item in source)
    if not isinstance(source, str | Path | int):
        return isinstance(source, Iterator)
    return not is_image_address(source) if is_live(source) else path_has_video(str(source))


def path_has_video(path: str | Path) -> bool:
    """Whether a path is a video by its name, or a folder, glob or list in a file that names at least one."""
    return any(map(is_video, files_of_item(path))) if names_several(path) else is_video(path)
