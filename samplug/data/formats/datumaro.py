"""Datumaro's json, which Datumaro, CVAT and Geti read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from samplug.data.coco import segmentation_mask
from samplug.data.formats.base import JsonWriter, Named, image_name
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.masks.rle import rle_size

IMAGE = 2  # Datumaro's number of this type of media


class DatumaroWriter(JsonWriter):
    """datumaro.json; the id of an object in its video and its score are attributes."""

    place = "datumaro.json"
    lists = ("items",)

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an item."""
        name, labels = image_name(record), {number: i for i, number in enumerate(self.classes.values())}
        rows = []
        for i, (number, each) in enumerate(objects):
            attributes = {"score": each.iou} if each.id is None else {"score": each.iou, "track_id": each.id}
            place = {"id": i, "type": "mask", "attributes": attributes, "group": i + 1, "z_order": 0}
            rows.append({**place, "label_id": labels[number], "rle": each.rle})
        image = {"path": name, "size": list(record.size)}
        stem, frame = str(PurePosixPath(name).with_suffix("")), {} if record.frame is None else {"frame": record.frame}
        self.append("items", {"id": stem, "annotations": rows, "attr": frame, "image": image})

    def head(self) -> dict[str, Any]:
        """The classes, in order."""
        labels = [{"name": name, "parent": "", "attributes": []} for name in self.classes]
        categories = {"label": {"labels": labels, "attributes": []}}
        return {"dm_format_version": "1.0", "media_type": IMAGE, "infos": {}, "categories": categories}


def read_datumaro(content: dict[str, Any]) -> Iterator[ImageRecord]:
    """The images of the items: masks, polygons and boxes."""
    names = dict(enumerate(label["name"] for label in content["categories"]["label"]["labels"]))
    for item in content["items"]:
        size = rle_size(item["image"])
        rows = [row for row in item["annotations"] if row["type"] in ("mask", "polygon", "bbox")]
        objects = [read_shape(row, names[row["label_id"]], size) for row in rows if row.get("label_id") is not None]
        yield ImageRecord(item["image"]["path"], size, None, tuple(objects))


def read_shape(row: dict[str, Any], name: str, size: tuple[int, int]) -> ObjectRecord:
    """The object of a mask, polygon or box."""
    number, attributes = row["label_id"], row.get("attributes", {})
    if row["type"] == "bbox":
        x, y, width, height = row["bbox"]
        return ObjectRecord.of_box((x, y, x + width, y + height), number, name)
    mask = segmentation_mask(row["rle"] if row["type"] == "mask" else [row["points"]], size)
    return ObjectRecord.of_mask(mask, number, name, attributes.get("score", 1.0), id=attributes.get("track_id"))
