"""The plan of a job: its images and videos in shards, each of which is annotated and committed as one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple

from samplug.annotate.records import naming_damage
from samplug.data.label_boxes import read_yaml
from samplug.errors import DataError, JobError
from samplug.files.atomic import atomic_write
from samplug.sources.base_loader import is_image, is_video, list_files
from samplug.sources.video import natural_key

ID_CHARACTERS = 16
JOB, PLAN = "job.json", "plan.jsonl"  # the files in a job's folder
LABELS_OF_VIDEOS = ("mots", "sa")  # formats that have a file for each image or video, named like it
LABELS_BY_NAME = ("yolo", "png", *LABELS_OF_VIDEOS)  # those have one for each image, and a folder for each video


class Source(NamedTuple):
    """An image or video: its name in the job, its path, and its size and time of change when it was planned.

    Of a folder of frames they are all sizes together, and a number that follows from the names, sizes and times.
    """

    name: str
    path: str
    size: int
    mtime_ns: int

    @property
    def identity(self) -> tuple[str, int, int]:
        """What changes when the file is another one."""
        return self.name, self.size, self.mtime_ns


def digest(content: Any) -> str:
    """Hexadecimal digits that follow from plain values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:ID_CHARACTERS]


@dataclass(frozen=True)
class Shard:
    """Sources that are annotated together: some images, or one video."""

    sources: tuple[Source, ...]

    @cached_property
    def id(self) -> str:
        """A name that follows from the sources: two processes give one shard the same."""
        return digest([source.identity for source in self.sources])

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return kind_of(self.sources[0].name) == "video"


def find_sources(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], before: str = "", frames: bool = False
) -> tuple[str, list[Source]]:
    """The images and videos of folders and their subfolders, globs, lists, data.yaml files, in natural order.

    Args:
        source: as `source=` takes it.
        before: the folder that names were relative to when the job was begun.
        frames: the images of a folder are the frames of one video, whose name is the folder's with a slash behind it.

    Returns:
        The folder that names are relative to, and the sources.

    Raises:
        JobError: there are none.
    """
    items = [str(source)] if isinstance(source, str | os.PathLike) else [str(item) for item in source]
    try:
        paths = [*dict.fromkeys(file for item in items for file in files_of(item))]
    except (OSError, ValueError) as error:
        raise JobError(f"source={source!s:.300}: {error}") from error
    if frames:
        paths = [*dict.fromkeys(path if kind_of(path) == "video" else os.path.dirname(path) for path in paths)]
    if not paths:
        raise JobError(f"source={source} holds no image and no video.")
    if len(items) == 1 and os.path.isdir(items[0]) and not frames:
        root = os.path.abspath(items[0])
    else:
        root = os.path.commonpath(map(os.path.dirname, paths))
    root = root_of_job(root, before) if before else root
    if not root:
        raise JobError(f"source={source} is not below {before}, where the job was begun. Use another out=.")
    return root, [planned(path, root) for path in paths]


def root_of_job(root: str, before: str) -> str:
    """The folder that names stay relative to in a job that was begun at another; "" where that does not hold it.

    A link to the folder is the same one. A folder that was moved is not: another may have come to its place.
    """
    if Path(root).is_relative_to(before):
        return before
    return root if os.path.isdir(before) and os.path.samefile(root, before) else ""


def files_of(item: str) -> Iterator[str]:
    """The absolute paths of the images and videos that a part of a source names."""
    if os.path.isdir(item):
        yield from walk(os.path.abspath(item))
    elif item.endswith((".yaml", ".yml")):
        yield from (file for folder in folders_of(Path(item)) for file in files_of(folder))
    else:
        yield from map(os.path.abspath, list_files(item))


def folders_of(file: Path) -> list[str]:
    """The folders and lists of images that a data.yaml names, of all its splits."""
    content = read_yaml(file)
    named = [content.get(split) or [] for split in ("train", "val", "test")]
    entries = [entry for few in named for entry in (few if isinstance(few, list) else [few])]
    if not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{file} names no folders. Expected train, val and test, each a folder or a list of them.")
    return [str(file.absolute().parent / str(content.get("path") or "") / entry) for entry in entries]


def walk(folder: str) -> Iterator[str]:
    """Image and video files of a folder, then of its subfolders; not hidden ones, links to folders, and jobs."""
    names, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == PLAN:
                return
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif kind_of(entry.name):
                names.append(entry.name)
    above = os.path.join(folder, "")
    yield from (above + name for name in sorted(names, key=natural_key))
    for name in sorted(folders, key=natural_key):
        yield from walk(above + name)


def kind_of(name: str) -> str:
    """What a file is by its name: image, video, or nothing of interest; a folder of frames is a video."""
    return "video" if name.endswith("/") else kind_of_suffix(name[name.rfind(".") :]) if "." in name else ""


@cache
def kind_of_suffix(suffix: str) -> str:
    """The same of a suffix: a folder of a million names has few."""
    return "image" if is_image(f"a{suffix}") else "video" if is_video(f"a{suffix}") else ""


def planned(path: str, root: str) -> Source:
    """A file by its path below the root; one that is not there is planned too, and fails when its turn comes."""
    name = path[len(root) :].lstrip(os.sep).replace(os.sep, "/")
    try:
        found = os.stat(path)
    except OSError:
        return Source(name, path, 0, 0)
    if not S_ISDIR(found.st_mode):
        return Source(name, path, found.st_size, found.st_mtime_ns)
    with os.scandir(path) as entries:
        files = [(each.name, each.stat()) for each in entries if kind_of(each.name) == "image" and each.is_file()]
    frames = sorted((frame, file.st_size, file.st_mtime_ns) for frame, file in files)
    return Source(f"{name}/", path, sum(size for _, size, _ in frames), int(digest(frames), 16))


def check_names(sources: Sequence[Source], formats: Collection[str]) -> None:
    """Refuse sources of one name but for the suffix, where their labels would be one file.

    Raises:
        JobError: there are two.
    """
    names: dict[tuple[str, str], str] = {}
    for source in sources if not {*formats}.isdisjoint(LABELS_BY_NAME) else ():
        key = os.path.splitext(source.name)[0], kind_of(source.name) if {*formats}.isdisjoint(LABELS_OF_VIDEOS) else ""
        if names.setdefault(key, source.name) != source.name:
            raise JobError(
                f"{names[key]} and {source.name} would have their labels in one file. Rename one of them, or give "
                "format=coco, or another that has one file for all."
            )


def shards_of(sources: Sequence[Source], size: int) -> list[Shard]:
    """Images in shards of some size, then each video."""
    videos = [source for source in sources if kind_of(source.name) == "video"]
    images = sources if not videos else [source for source in sources if kind_of(source.name) != "video"]
    chunks = [Shard(tuple(images[i : i + size])) for i in range(0, len(images), size)]
    return [*chunks, *(Shard((video,)) for video in videos)]


def update_plan(before: Sequence[Shard], sources: Sequence[Source], size: int) -> tuple[list[Shard], list[Shard]]:
    """Bring a plan up to date with the sources that are there.

    A shard stays as long as none of its sources has changed: what is new comes into shards of its own. Sources that
    have vanished stay in the plan.

    Returns:
        The shards, and those that were dropped because a source of theirs has changed.
    """
    there = {source.name: source for source in sources} if before else {}
    kept: list[Shard] = []
    dropped: list[Shard] = []
    for shard in before:
        unchanged = all(there.get(one.name, one)[2:] == one[2:] for one in shard.sources)
        (kept if unchanged else dropped).append(shard)
    names = {source.name for shard in kept for source in shard.sources}
    return [*kept, *shards_of([source for source in sources if source.name not in names], size)], dropped


def read_plan(file: Path, root: str) -> list[Shard]:
    """The shards in a file, of sources below a folder; none where there is no file."""
    if not file.exists():
        return []
    above = os.path.join(root, "")
    with naming_damage(file), file.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        shards = [Shard(tuple(Source(name, above + name, *more) for name, *more in row)) for row in rows]
        if not all(shard.sources for shard in shards):
            raise ValueError("a shard without a source")
        return shards


def write_plan(file: Path, shards: Sequence[Shard]) -> None:
    """Write a line for each shard."""
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for shard in shards:
            stream.write(json.dumps([source.identity for source in shard.sources]) + "\n")
