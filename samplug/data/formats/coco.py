"""COCO json, and LVIS: run lengths, written as a stream."""

from __future__ import annotations

from collections import Counter
from typing import Any

from samplug.data.formats.base import JsonWriter, Named, image_name
from samplug.data.formats.records import ImageRecord, ObjectRecord

FREQUENCIES = ((10, "r"), (100, "c"))  # LVIS: rare, common; more images are frequent


class CocoWriter(JsonWriter):
    """annotations.json; frames of videos are images with the keys `video` and `frame`, objects with `track_id`."""

    place = "annotations.json"
    lists: tuple[str, ...] = ("images", "annotations")

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an image and its objects."""
        image = self.append("images", self.image_entry(record))
        for number, each in objects:
            self.append("annotations", {"image_id": image, **coco_object(number, each)})

    def image_entry(self, record: ImageRecord) -> dict[str, Any]:
        """What is said of an image."""
        height, width = record.size
        of_video = {} if record.frame is None else {"video": record.source, "frame": record.frame}
        return {"file_name": image_name(record), "height": height, "width": width, **of_video}

    def head(self) -> dict[str, Any]:
        """The categories, numbered from 1."""
        return {"categories": [{"id": number + 1, "name": name} for name, number in self.classes.items()]}


class LvisWriter(CocoWriter):
    """lvis.json. Nobody looked for the classes that were not found, so none is listed as absent."""

    place = "lvis.json"

    def _open(self) -> None:
        super()._open()
        self._images, self._instances = Counter[int](), Counter[int]()  # by class number

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an image and its objects."""
        super().add(record, objects)
        self._instances.update(number for number, _ in objects)
        self._images.update({number for number, _ in objects})

    def image_entry(self, record: ImageRecord) -> dict[str, Any]:
        """What is said of an image; detectron2 takes the file from the last two parts of `coco_url`."""
        entry = super().image_entry(record)
        absent: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        return {**entry, "coco_url": f"images/{entry['file_name']}", **absent}

    def head(self) -> dict[str, Any]:
        """The categories, with how often they were found."""
        categories = super().head()["categories"]
        for entry in categories:
            images, instances = self._images[entry["id"] - 1], self._instances[entry["id"] - 1]
            frequency = next((letter for most, letter in FREQUENCIES if images <= most), "f")
            entry |= {"synset": f"{entry['name']}.n.01", "synonyms": [entry["name"]], "def": "", "frequency": frequency}
            entry |= {"image_count": images, "instance_count": instances}
        return {"categories": categories}


def coco_object(number: int, each: ObjectRecord) -> dict[str, Any]:
    """COCO's annotation of an object, less its image."""
    left, top, right, bottom = each.box
    entry = {
        "category_id": number + 1,
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "area": each.area,
        "segmentation": each.rle,
        "iscrowd": 0,
        "score": each.iou,
    }
    return entry if each.id is None else {**entry, "track_id": each.id}
