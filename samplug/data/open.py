"""Open what `data=` names: images or videos with their true masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from samplug.data.coco import open_coco, open_sa1b, open_sav
from samplug.data.folders import open_images, open_videos
from samplug.data.help import KINDS
from samplug.data.samples import AnnotatedImage, AnnotatedVideo, Lazy
from samplug.data.yolo import open_yolo
from samplug.errors import DataError, MissingSplitError

COCO_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}  # as files name them
MAX_NAME = 255  # letters; systems take no longer ones


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: images, videos, or both, and the names of its classes by number."""

    images: Lazy[AnnotatedImage] = field(default_factory=Lazy)
    videos: Lazy[AnnotatedVideo] = field(default_factory=Lazy)
    names: Mapping[int, str] = field(default_factory=dict)


def open_data(
    data: str | Path, *, source: str | Path | None = None, split: str = "val", classes: Sequence[int] | None = None,
    strict: bool = False,
) -> Data:  # fmt: skip
    """Open a data set of files.

    Args:
        data: see `samplug.data.help.LAYOUTS`.
        source: where the images are, of a COCO file or of a folder of masks.
        split: which part of a data set that has several.
        classes: the classes that count, in YOLO's and COCO's data sets; None for all.
        strict: refuse files that cannot be read and objects with a box alone, which else are left out.

    Raises:
        DataError: no data set of these kinds is there.
        MissingSplitError: it has no such split.
    """
    path = Path(data)
    if len(path.name) > MAX_NAME:
        raise DataError(f"data={data!s:.80}… is too long for a name.")
    descriptions = [path / "data.yaml", *sorted(path.glob("*.yaml"))] if path.is_dir() else []
    yaml = next((file for file in descriptions if file.is_file()), None)
    coco = path if path.suffix == ".json" else None if yaml else _coco_file(path, split)
    if coco is not None:
        images, names = open_coco(coco, source, classes, strict)
        return Data(images=images, names=names)
    if yaml or not path.is_dir():
        if path.suffix not in ("", ".yaml", ".yml"):
            raise DataError(f"data={data} is not a known kind of data set. Expected {KINDS}.")
        images, names = open_yolo(str(yaml or data), split, classes, strict)
        return Data(images=images, names=names)
    videos = open_videos(path, split) or open_sav(path)
    if videos is not None:
        return Data(videos=videos)
    found = open_images(path, split, source) or open_sa1b(path)
    if found is None:
        raise DataError(f"{path} holds no data set. Expected {KINDS} (`samplug val help` shows the layouts).")
    return Data(images=found)


def _coco_file(folder: Path, split: str) -> Path | None:
    """The COCO file of a split in a folder, as COCO's own and Roboflow's have it; None where there is none at all."""
    found: dict[str, Path] = {}
    for name, aliases in COCO_SPLITS.items():
        for alias in aliases:
            own = folder / alias / "_annotations.coco.json"
            for file in (own, *sorted(folder.glob(f"annotations/*{alias}*.json"))):
                if file.is_file():
                    found.setdefault(name, file)
    if found and split not in found:
        raise MissingSplitError(f"{folder} has no split={split}; it has {', '.join(found)}.")
    return found.get(split)
