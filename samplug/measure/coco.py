"""COCO json: polygons and run lengths of the objects of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samplug.measure.lazy import Lazy
from samplug.measure.pictures import Picture
from samplug.measure.reading import DataError, polygon_mask, read_picture, same_size
from samplug.rle import rle_decode
from samplug.view import Size

Entry = tuple[Path, list[Any]]


def open_coco(file: Path, folder: str | Path | None = None, classes: Sequence[int] | None = None) -> Lazy[Picture]:
    """The pictures of a COCO file that have objects; crowds are left out.

    Args:
        file: The json file.
        folder: Where its pictures are; None: in the file's folder, the one above, or a folder `images` or of the
            file's split (`val2017` for `instances_val2017.json`) in one of these.
        classes: Ids of the categories that count; None for all.

    Raises:
        DataError: the file, or a picture, cannot be found or read.
    """
    content = _content(file)
    places = [Path(folder)] if folder else _places(file)
    shapes: dict[int, list[Any]] = {}
    for one in content["annotations"]:
        wanted = classes is None or one.get("category_id") in classes
        if wanted and not one.get("iscrowd") and one.get("segmentation"):
            shapes.setdefault(one["image_id"], []).append(one["segmentation"])
    entries = [
        (_found(image["file_name"], places), shapes[image["id"]])
        for image in content["images"]
        if image["id"] in shapes
    ]
    if not entries:
        raise DataError(
            f"{file} has no object with a segmentation" + (f" of the classes {classes}." if classes else ".")
        )
    return Lazy(entries, _picture)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as json: {error}") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{file} is no COCO file: it needs the lists images and annotations.")
    return content


def _places(file: Path) -> list[Path]:
    split = file.stem.rpartition("_")[2]
    return [
        base / name for base in (file.parent, file.parent.parent) for name in ("", "images", split, f"images/{split}")
    ]


def _found(name: str, places: Sequence[Path]) -> Path:
    paths = [place / name for place in places]
    for path in paths:
        if path.is_file():
            return path
    tried = ", ".join(str(place) for place in places)
    raise DataError(f"The picture {name} is in none of {tried}: say where the pictures are, source=FOLDER.")


def _picture(entry: Entry) -> Picture:
    path, shapes = entry
    image = read_picture(path)
    masks = [shape_mask(shape, (image.shape[0], image.shape[1])) for shape in shapes]
    for mask in masks:
        same_size(path, mask, image)
    return Picture(path.name, image, np.stack(masks))


def shape_mask(shape: Any, size: Size) -> np.ndarray:
    """The mask (H, W) of a COCO segmentation: a list of polygons that belong together, or run lengths."""
    if isinstance(shape, dict):
        return rle_decode(shape)
    return polygon_mask([np.reshape(part, (-1, 2)) for part in shape], size)
