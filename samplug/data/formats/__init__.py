"""Formats of labels, written and read: a file each, and a line here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from samplug.data.formats.base import Writer
from samplug.data.formats.coco import CocoWriter, LvisWriter
from samplug.data.formats.cvat import CvatWriter, read_cvat
from samplug.data.formats.datumaro import DatumaroWriter, read_datumaro
from samplug.data.formats.label_studio import LabelStudioWriter, read_label_studio
from samplug.data.formats.png import PngWriter
from samplug.data.formats.records import ImageRecord
from samplug.data.formats.table import ParquetWriter
from samplug.data.formats.videos import BurstWriter, MotsWriter, SaWriter, VisWriter
from samplug.data.formats.yolo import YoloWriter
from samplug.data.image_file import MALFORMED
from samplug.errors import DataError

WRITERS: dict[str, type[Writer]] = {
    "yolo": YoloWriter,
    "coco": CocoWriter,
    "png": PngWriter,
    "lvis": LvisWriter,
    "ytvis": VisWriter,
    "burst": BurstWriter,
    "mots": MotsWriter,
    "sa": SaWriter,
    "cvat": CvatWriter,
    "labelstudio": LabelStudioWriter,
    "datumaro": DatumaroWriter,
    "parquet": ParquetWriter,
}


def places_of(formats: Iterable[str]) -> list[str]:
    """The names of the files and folders that labels in some formats take, below the folder they are written to."""
    return [*dict.fromkeys(place for name in formats for place in (WRITERS[name].place, *WRITERS[name].places_beside))]


def read_labels(path: Path, content: Any = None) -> Iterator[ImageRecord] | None:
    """The images of labels that exist: CVAT's xml, Label Studio's or Datumaro's json; None if they are none of these.

    Args:
        path: the file.
        content: of a json, where it was read before.

    Raises:
        DataError: while they are read: they are damaged.
    """
    if path.suffix == ".xml":
        return _checked(path, read_cvat(path))
    if path.suffix != ".json":
        return None
    content = json.loads(path.read_text(encoding="utf-8")) if content is None else content
    if isinstance(content, list) and all(isinstance(task, dict) and "data" in task for task in content):
        return _checked(path, read_label_studio(content))
    is_datumaro = isinstance(content, dict) and {"items", "categories"} <= content.keys()
    return _checked(path, read_datumaro(content)) if is_datumaro else None


def _checked(path: Path, records: Iterator[ImageRecord]) -> Iterator[ImageRecord]:
    """The records; whatever a damaged file raises becomes an error that names it."""
    try:
        yield from records
    except MALFORMED as error:
        damage = str(error) if isinstance(error, DataError) else f"{path} cannot be read as labels: {error!r:.200}."
        raise DataError(damage) from error
