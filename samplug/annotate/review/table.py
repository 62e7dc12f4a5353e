"""The review list: the masks that most likely are wrong, first."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samplug.annotate.filters import reason_to_drop
from samplug.annotate.settings import Settings
from samplug.data.formats.records import Box, ImageRecord, ObjectRecord
from samplug.files.atomic import atomic_write

SIGNS = ("iou", "stability", "presence", "agreement", "area", "parts")  # columns that are fields of a record
REVIEW_COLUMNS = ("risk", "source", "frame", "object", "class", *SIGNS, "border", "conflict", "jump", "dropped")
BORDER_RISK = 0.1  # of a mask that touches the image's border
PARTS_RISK = 0.1  # of a mask of several parts
CONFLICT_RISK = 0.3  # of two objects of different classes in one place
JUMP_RISK = 0.3  # of an object whose area is nothing like that of the frame before


@dataclass(frozen=True)
class Row:
    """A mask of the review list."""

    risk: float  # from 0; the larger, the sooner it should be looked at
    place: int  # in the job, from 0
    image: ImageRecord  # without its objects
    object: ObjectRecord
    columns: dict[str, Any]


def write_review(records: Iterable[ImageRecord], settings: Settings, file: Path) -> list[Row]:
    """Write the riskiest masks as CSV, as many as `review` says; returns them."""
    most = max(settings.review, settings.sheet)
    rows = heapq.nlargest(most, review_rows(records, settings), key=lambda row: (row.risk, -row.place))
    with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, REVIEW_COLUMNS)
        writer.writeheader()
        writer.writerows(row.columns for row in rows[: settings.review])
    return rows


def review_rows(records: Iterable[ImageRecord], settings: Settings) -> Iterator[Row]:
    """A row for every object."""
    place, before = 0, ImageRecord("")
    for record in records:
        image = record.with_objects(())
        for i, each in enumerate(record.objects):
            more = {"conflict": conflict_of(each, record), "jump": jump_of(each, before, record)}
            risk = round(risk_of(each, record.size) + CONFLICT_RISK * more["conflict"] + JUMP_RISK * more["jump"], 4)
            names = {"risk": risk, "source": record.source, "frame": record.frame, "object": i, "class": each.name}
            flags = {"border": int(touches_border(each, record.size)), "dropped": reason_to_drop(each, settings)}
            signs = {name: getattr(each, name) for name in SIGNS}
            yield Row(risk, place, image, each, {**names, **signs, **flags, **more})
            place += 1
        before = record


def risk_of(each: ObjectRecord, size: tuple[int, int]) -> float:
    """1 less the worst sign, 1 of an empty mask, and a little for a mask in parts or that may be cut off."""
    signs = [value for value in (each.iou, each.stability, each.agreement) if value is not None]
    if each.presence is not None:
        signs.append(1 / (1 + math.exp(-max(each.presence, -50.0))))
    more = BORDER_RISK * touches_border(each, size) + PARTS_RISK * (each.parts > 1)
    return 1 - (min(signs) if each.area else 0.0) + more


def touches_border(each: ObjectRecord, size: tuple[int, int]) -> bool:
    """Whether a mask reaches the image's border."""
    left, top, right, bottom = each.box
    return bool(each.area) and (left <= 0 or top <= 0 or right >= size[1] or bottom >= size[0])


def conflict_of(each: ObjectRecord, record: ImageRecord) -> float:
    """The highest IoU of the box with that of an object of another class on the image."""
    others = [other.box for other in record.objects if other.name != each.name and other.area]
    return round(max((iou_of(each.box, box) for box in others), default=0.0), 4)


def iou_of(box: Box, other: Box) -> float:
    """The IoU of two boxes xyxy; plain numbers, as there are millions of pairs."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return shared / (areas - shared) if shared else 0.0


def jump_of(each: ObjectRecord, before: ImageRecord, record: ImageRecord) -> float:
    """How much of the area changed since the frame before, of a video: 0 nothing, 1 all of it."""
    if record.frame is None or before.source != record.source:
        return 0.0
    areas = [other.area for other in before.objects if other.id == each.id]
    return round(1 - min(areas[0], each.area) / max(areas[0], each.area, 1), 4) if areas else 0.0
