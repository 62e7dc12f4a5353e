"""What the video predictor runs over, as a loader of Ultralytics: clips one after the other, a frame at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.data.loaders import LOADERS, LoadImagesAndVideos, LoadPilAndNumpy, SourceTypes
from ultralytics.data.utils import IMG_FORMATS

from samplug.host import LOGGER
from samplug.predict.clips import Clip, Course, Live, Pictures, Shot, VideoFile, natural
from samplug.predict.faults import Faults, SourceError
from samplug.predict.items import Listed, elsewhere, is_video

Batch = tuple[list[str], list[np.ndarray], list[str]]
STRICT = Faults("raise")


class Clips(LoadImagesAndVideos):
    """A loader of videos of every kind, which Ultralytics' loop takes for one of its own.

    A batch is one frame. Its path is the clip's, so that a folder of pictures is saved as one video; `shot.file` is the
    picture's own. The loop may hold a copy of the loader made with each batch, so that whatever belongs to a frame
    is an attribute.

    Attributes:
        clips: the videos.
        count: how many of them are finished, which is the place of the one in hand.
        shot: the frame in hand.
        backwards: whether it is walked backwards.
        frame: the frame's number counted from 1, as in the names of saved files.
        frames: the number of frames where it is known or claimed, else 0.
        fps: frames per second of the clip in hand.
        faults: where videos and frames are noted that cannot be read, and are left out.
        given_up: the places of videos that are not gone on with.
    """

    def __init__(self, clips: Sequence[Clip], faults: Faults = STRICT) -> None:  # the base class would open files
        self.clips, self.faults, self.given_up = list(clips), faults, set[int]()
        for clip in self.clips:
            clip.faults = faults
        if not self.clips:
            raise FileNotFoundError("The source holds no picture and no video.")
        self.files = [clip.path for clip in self.clips]
        self.nf, self.ni, self.bs = len(self.clips), 0, 1
        self.video_flag = [True] * self.nf
        self.mode, self.cap = "video", None
        self.count = self.frame = self.frames = 0
        self.fps = self.clips[0].fps
        self.shot: Shot | None = None
        self.backwards = False
        self.course: Callable[[int, str], Course] = lambda index, path: Course()
        self.source_type = SourceTypes()

    def __iter__(self) -> Clips:
        self._batches = self._run()
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def __len__(self) -> int:
        return self.nf

    @property
    def clip(self) -> Clip:
        """The video in hand."""
        return self.clips[self.count]

    def close(self) -> None:
        """Let go of the file in hand."""
        if hasattr(self, "_batches"):
            self._batches.close()

    def _run(self) -> Generator[Batch, None, None]:
        for place, clip in enumerate(self.clips):
            self.count = place
            try:
                clip.open()
                yield from self._walk(place, clip)
            except SourceError as error:
                self.faults.meet(clip.path, error)

    def _walk(self, place: int, clip: Clip) -> Iterator[Batch]:
        self.fps, self.frames = clip.fps, clip.length or clip.stated
        course, begun = self.course(place, clip.path), False
        for backwards, shot in course.shots(clip):
            begun = True
            if place in self.given_up:
                break
            self.backwards, self.shot, self.frame = backwards, shot, shot.number + 1
            of = self.frames if self.frames >= self.frame else "?"
            line = f"video {place + 1}/{self.nf} (frame {self.frame}/{of}) {clip.path}: "
            yield [clip.path], [shot.picture], [line]
        if not begun and course.origin:
            raise SourceError(f"There is no frame {course.origin}, where start= or vid_stride= begin (counted from 0).")


def as_clips(source: Any, faults: Faults = STRICT) -> Any:
    """Wrap files, pictures in memory, lists and iterators as a loader; streams and screens are left to the host."""
    if isinstance(source, str | Path | int):
        return source if elsewhere(source) else Clips(of_files(Listed(str(source)).files), faults)
    if isinstance(source, LOADERS):
        return source
    if isinstance(source, np.ndarray | Tensor):
        return Clips([Pictures(list(source) if source.ndim == 4 else [source], "frames")], faults)
    if hasattr(source, "convert"):
        return Clips([Pictures([source], getattr(source, "filename", "") or "frames")], faults)
    if isinstance(source, list | tuple):
        return Clips(of_list(source), faults)
    if isinstance(source, Iterable):
        return Clips([Live(source, "frames")], faults)
    raise TypeError(f"{type(source).__name__} is no source: give a path, a stream, pictures or an iterator of them.")


def of_list(items: Sequence[Any]) -> list[Clip]:
    """Frames and videos in the order given; folders, globs and lists in a file are listed as the host lists them."""
    if not items:
        return []
    if not all(isinstance(item, str | Path) for item in items):
        videos = [VideoFile(str(item)) for item in items if names_video(item)]
        pictures = [item for item in items if not names_video(item)]
        return beside([Pictures(pictures, "frames")], videos)
    if all(suffix(item) in IMG_FORMATS for item in items):
        return [Pictures(items, str(Path(items[0]).parent))]
    return of_files([file for item in items for file in files_of(item)])


def files_of(item: str | Path) -> list[str]:
    """The files that an item of a list names; what names none comes as it is, to be left out under its name."""
    if names_many(item):
        with suppress(OSError, ValueError):  # nothing in it, or no text
            return Listed(str(item)).files
    return [str(item) if elsewhere(item) else str(Path(item).absolute())]


def names_many(item: str | Path) -> bool:
    """Whether an item is a folder, a glob or a file that lists others."""
    return "*" in str(item) or suffix(item) in ("txt", "csv") or os.path.isdir(item)


def names_video(item: Any) -> bool:
    """Whether an item of a list is the path of a video."""
    return isinstance(item, str | Path) and is_video(item)


def replaced(loader: Any, faults: Faults = STRICT) -> Any:
    """Put our loader in the place of the host's for files that it fetched, or arrays; streams and screens keep it."""
    if isinstance(loader, LoadPilAndNumpy):
        return Clips([Pictures(loader.im0, "frames")], faults)
    if not isinstance(loader, LoadImagesAndVideos) or isinstance(loader, Clips):
        return loader
    if loader.cap:
        loader.cap.release()
    return Clips(of_files(loader.files), faults)


def of_files(files: Sequence[str]) -> list[Clip]:
    """The pictures of each folder as one video, in natural order, then every video file."""
    folders: dict[str, list[str]] = {}
    for file in files:
        if not is_video(file):
            folders.setdefault(str(Path(file).parent), []).append(file)
    pictures = [Pictures(sorted(few, key=natural), folder) for folder, few in folders.items()]
    return beside(pictures, [VideoFile(file) for file in files if is_video(file)])


def beside(pictures: list[Pictures], videos: list[VideoFile]) -> list[Clip]:
    """Pictures and then videos; where there are both, the log says what becomes of the pictures."""
    for one in pictures if videos else ():
        LOGGER.info(f"{one.path}: its pictures lie beside videos and count as one more video (frames: {one.length}).")
    return [*pictures, *videos]


def suffix(path: Any) -> str:
    """The ending of a file's name, in lower case and without its dot."""
    return Path(path).suffix[1:].lower()


def moves(source: Any) -> bool:
    """Whether a source is a video or a stream, or holds at least one, so that prompts on it are meant to be followed.

    Pictures alone, in lists, folders and tensors, are not: they are frames only for whom asks for tracking.
    """
    if isinstance(source, LOADERS):
        return getattr(source, "mode", "image") != "image" or any(getattr(source, "video_flag", ()))
    if isinstance(source, list | tuple):
        return any(isinstance(item, str | Path) and holds_video(item) for item in source)
    if not isinstance(source, str | Path | int):
        return isinstance(source, Iterator)
    if not elsewhere(source):
        return holds_video(str(source))
    text = str(source).lower()
    return not text.startswith(("http://", "https://")) or suffix(text.partition("?")[0]) not in IMG_FORMATS


def holds_video(path: str | Path) -> bool:
    """Whether a path is a video by its name, or a folder, glob or list in a file that names at least one."""
    return any(map(is_video, files_of(path))) if names_many(path) else is_video(path)
