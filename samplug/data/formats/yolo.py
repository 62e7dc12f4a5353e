"""YOLO segmentation labels, ready for training: images/, labels/ and data.yaml."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

import cv2
import yaml

from samplug.data.formats.base import Named, Writer, file_for, image_name
from samplug.data.formats.records import ImageRecord
from samplug.data.outlines import yolo_rows
from samplug.errors import DataError


class YoloWriter(Writer):
    """Outlines from which Ultralytics draws the same masks; a line for each separate part of an object.

    images/ holds links to the images, and what is in no file of its own, such as frames, where `image_of` gives it.
    """

    place = "labels"
    places_beside = ("images", "data.yaml")

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write a text file, empty where nothing was found."""
        rows = [row for number, each in objects for row in yolo_rows(each.mask, number)]
        file_for(record, self.target, ".txt").write_text("".join(f"{row}\n" for row in rows), "utf-8")
        place, file = self.folder / "images" / image_name(record), self.file_of(record.source)
        if record.frame is None and os.path.isfile(file):
            link(file, place)
        elif self.image_of is not None and (image := self.image_of(record)) is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(place), image):
                raise OSError(f"{place} cannot be written.")

    def close(self) -> None:
        """Write data.yaml; numbers without a class get a name, as Ultralytics wants all from 0."""
        names = {number: name for name, number in self.classes.items()}
        names = {number: names.get(number, f"class{number}") for number in range(max(names, default=-1) + 1)}
        (self.folder / "images").mkdir(exist_ok=True)
        content = {"train": "images", "val": "images", "names": names}  # beside this file
        (self.folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")


def link(image: str, place: Path) -> None:
    """Link to an image, or copy it where the system has no links.

    Raises:
        DataError: there is another file, which no run before has made: it stays.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and os.path.samefile(image, place):  # linked by a run before, or the image itself
        return
    if place.is_file() and not place.is_symlink() and not filecmp.cmp(image, place):
        raise DataError(f"{place} is another file than {image}, and would be lost. Expected labels in another folder.")
    place.unlink(missing_ok=True)  # of a run before
    try:
        os.symlink(os.path.abspath(image), place)
    except (OSError, NotImplementedError):
        shutil.copy2(image, place)
