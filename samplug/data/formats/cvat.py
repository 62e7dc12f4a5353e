"""CVAT's xml for images (1.1): a mask as run lengths, row by row inside its box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, iterparse, tostring
from xml.sax.saxutils import escape

import numpy as np

from samplug.data.arrays import polygon_mask
from samplug.data.formats.base import Named, Writer, image_name, join
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.errors import DataError
from samplug.masks.rle import rle_decode, rle_encode, rle_size

ID = "track_id"  # the attribute that holds an object's id: CVAT has no tracks of masks
HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
<version>1.1</version>
<meta><task><size>{}</size><labels>{}</labels></task></meta>
"""
LABEL = (
    "<label><name>{}</name><type>mask</type><attributes><attribute>"
    f"<name>{ID}</name><mutable>False</mutable><input_type>text</input_type><default_value/><values/>"
    "</attribute></attributes></label>"
)


class CvatWriter(Writer):
    """cvat.xml; frames of videos are images of the names that COCO's file has for them."""

    place = "cvat.xml"

    def _open(self) -> None:
        self._part, self._count = self.part(), 0

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an image; objects without pixels are left out."""
        height, width = record.size
        image = element("image", id=self._count, name=image_name(record), width=width, height=height)
        self._count += 1
        for _, each in objects:
            if each.area:
                row = element("mask", label=each.name, source="auto", occluded=0, z_order=0, **cvat_mask(each.mask))
                if each.id is not None:
                    row.append(element("attribute", str(each.id), name=ID))
                image.append(row)
        self._part.write(tostring(image, "unicode") + "\n")

    def close(self) -> None:
        """Write the labels and then the images."""
        labels = "".join(LABEL.format(escape(name)) for name in self.classes)
        with self.target.open("w", encoding="utf-8") as whole:
            whole.write(HEAD.format(self._count, labels))
            join(self._part, whole)
            whole.write("</annotations>\n")


def element(tag: str, text: str | None = None, **attributes: Any) -> Element:
    """An element of xml."""
    made = Element(tag, {name: str(value) for name, value in attributes.items()})
    made.text = text
    return made


def cvat_mask(mask: np.ndarray) -> dict[str, Any]:
    """The attributes of a mask (H, W) bool that is not empty: its box, and the runs in it, off first."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    runs = rle_encode(inside.T, compressed=False)["counts"]  # COCO's go down the columns
    height, width = inside.shape
    return {"rle": ", ".join(map(str, runs)), "left": left, "top": top, "width": width, "height": height}


def read_cvat(file: Path) -> Iterator[ImageRecord]:
    """The images of a file: masks, polygons and boxes; classes are numbered as the labels, then as they come."""
    numbers: dict[str, int] = {}
    found = False
    try:
        with file.open("rb") as stream:
            for _, node in iterparse(stream):
                if node.tag == "label" and node.find("name") is not None:
                    numbers.setdefault(node.findtext("name", ""), len(numbers))
                elif node.tag == "image":
                    found = True
                    yield read_image(node, numbers)
                    node.clear()
    except ParseError as error:
        raise DataError(f"{file} is not xml: {error}.") from error
    if not found:
        raise DataError(f"{file} has no image. Expected an export as `CVAT for images 1.1`.")


def read_image(node: Element, numbers: dict[str, int]) -> ImageRecord:
    """An image and its objects; frames of ours are known by their ids."""
    given = node.attrib
    size = rle_size({"size": [int(given["height"]), int(given["width"])]})
    objects = []
    for shape in node:
        if shape.tag not in ("mask", "polygon", "box"):
            continue
        name = shape.attrib["label"]
        number = numbers.setdefault(name, len(numbers))
        ids = [each.text for each in shape.iter("attribute") if each.get("name") == ID and each.text]
        track = int(ids[0] or 0) if ids else None
        if shape.tag == "box":
            corners = [float(shape.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")]
            objects.append(ObjectRecord.of_box(corners, number, name, id=track))
        else:
            objects.append(ObjectRecord.of_mask(mask_of(shape.tag, shape.attrib, size), number, name, id=track))
    return ImageRecord(given["name"], size, None, tuple(objects))


def mask_of(kind: str, given: Mapping[str, str], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) of a mask or polygon."""
    if kind == "polygon":
        points = [[float(value) for value in point.split(",")] for point in given["points"].split(";")]
        return polygon_mask([np.array(points)], size)
    left, top, width, height = (int(given[name]) for name in ("left", "top", "width", "height"))
    if min(left, top) < 0:
        raise ValueError("a mask outside of its image")
    runs = [int(run) for run in given["rle"].split(",")]
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = rle_decode({"size": [width, height], "counts": runs}).T
    return mask
