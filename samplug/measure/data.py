"""What `data=` names, opened: pictures or videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samplug.measure.coco import open_coco
from samplug.measure.folders import open_pictures, open_videos
from samplug.measure.pictures import Picture
from samplug.measure.reading import DataError
from samplug.measure.settings import KINDS
from samplug.measure.videos import Video
from samplug.measure.yolo_data import open_yolo


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: pictures, videos, or both."""

    pictures: Sequence[Picture] = ()
    videos: Sequence[Video] = ()


def open_data(
    data: str | Path, *, source: str | Path | None = None, split: str = "val", classes: Sequence[int] | None = None
) -> Data:
    """Open a data set that lies in files.

    Args:
        data: See `samplug.measure.settings.LAYOUTS`.
        source: Where the pictures of a COCO file are.
        split: Which part of a data set that has several.
        classes: The classes that count, in YOLO's and COCO's data sets; None for all.

    Raises:
        DataError: nothing of these kinds is there.
    """
    path = Path(data)
    if path.suffix == ".json":
        return Data(pictures=open_coco(path, source, classes))
    described = [path / "data.yaml", *sorted(path.glob("*.yaml"))] if path.is_dir() else []
    yaml = next((file for file in described if file.is_file()), None)
    if yaml or not path.is_dir():
        if path.suffix not in ("", ".yaml", ".yml"):
            raise DataError(f"data={data} is of no known kind: give {KINDS}.")
        return Data(pictures=open_yolo(str(yaml or data), split, classes))
    videos = open_videos(path, split)
    if videos is not None:
        return Data(videos=videos)
    pictures = open_pictures(path, split)
    if pictures is None:
        raise DataError(f"{path} holds no data set: give {KINDS} (`samplug val help` tells their layouts).")
    return Data(pictures=pictures)
