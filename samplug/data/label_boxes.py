"""Boxes of labels that exist, by image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from samplug.data.coco import segmentation_mask
from samplug.data.formats.records import Box, ImageRecord
from samplug.data.image_file import refuse_malformed
from samplug.errors import DataError, one_line
from samplug.transforms import Size

Found = tuple[np.ndarray, list[int]]  # boxes (N, 4) xyxy in pixels, their classes
BOX_NUMBERS = 5  # class, x, y, width, height
CORNERS = 3  # of an outline, at least
OUTSIDE = 0.01  # by which outlines may leave their image, as Ultralytics has it


@dataclass(frozen=True, eq=False)
class LabelBoxes:
    """The boxes of images.

    `boxes_of` finds those of an image (H, W) by its name below the job's folder and its path, none where it has no
    label. It raises DataError where a label cannot be read.
    """

    boxes_of: Callable[[str, str, Size], Found]
    names: Mapping[int, str] | None  # of classes, by number

    @staticmethod
    def of_coco(file: Path, content: dict[str, Any]) -> LabelBoxes:
        """Boxes of a COCO json, else those around its segmentations; crowds are left out.

        Classes are numbered as the categories are listed.
        """
        with refuse_malformed(f"{file} cannot be read as COCO's labels"):
            categories = content.get("categories", [])
            numbers = {category["id"]: i for i, category in enumerate(categories)}
            files = {image["id"]: str(image["file_name"]) for image in content["images"]}
            rows: dict[str, list[tuple[Box | dict, int]]] = {name: [] for name in files.values()}
            for annotation in content["annotations"]:
                if not annotation.get("iscrowd") and (annotation.get("bbox") or annotation.get("segmentation")):
                    row = coco_box(annotation), coco_class(annotation, numbers)
                    rows[files[annotation["image_id"]]].append(row)
            names = {i: str(category["name"]) for i, category in enumerate(categories)}
            stated = {str(image["file_name"]): (image.get("height"), image.get("width")) for image in content["images"]}
        sizes = {name: size for name, size in stated.items() if all(size)}
        return LabelBoxes(partial(_find, rows, sizes), names or None)

    @staticmethod
    def of_records(records: Iterable[ImageRecord]) -> LabelBoxes:
        """Boxes of labels of another format, with the classes in their order there."""
        found: dict[str, list[tuple[Box, str]]] = {}
        numbers: dict[str, int] = {}
        for record in records:
            found.setdefault(record.source, []).extend((each.box, each.name) for each in record.objects)
            numbers = {each.name: each.cls for each in record.objects} | numbers
        names = sorted(numbers, key=lambda name: (numbers[name], name))
        order = {name: i for i, name in enumerate(names)}
        rows = {source: [(box, order[name]) for box, name in boxes] for source, boxes in found.items()}
        return LabelBoxes(partial(_find, rows, {}), dict(enumerate(names)) or None)

    @staticmethod
    def of_yolo(path: Path) -> LabelBoxes:
        """Boxes of YOLO's text files, of outlines those around them, from a folder of labels or a data.yaml.

        The label of an image lies at its name in the folder; for a data.yaml where Ultralytics looks, in `labels/`
        instead of `images/`. Names come from a data.yaml in the folder or above it.
        """
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{path} is neither a folder of labels nor a data.yaml.")
        descriptions = [path] if path.is_file() else [path / "data.yaml", path.parent / "data.yaml"]
        yaml = next((file for file in descriptions if file.is_file()), None)

        def find(name: str, image: str, size: Size) -> Found:
            file = (path / name).with_suffix(".txt") if path.is_dir() else beside(image)
            if path.is_dir() and not file.is_file() and not has_namesake(name, image):
                file = path / f"{Path(name).stem}.txt"
            return read_yolo(file, size) if file.is_file() else (np.zeros((0, 4)), [])

        return LabelBoxes(find, None if yaml is None else yaml_names(yaml) or None)


def _find(
    rows: Mapping[str, Sequence[tuple[Box | dict, int]]], sizes: Mapping[str, Size], name: str, path: str, size: Size
) -> Found:
    """The boxes of an image in rows of a box, or of run lengths, and a class, by name."""
    key = name if name in rows or has_namesake(name, path) else Path(path).name
    stated, found = sizes.get(key), rows.get(key, ())
    if stated not in (None, size):
        raise DataError(f"{path}: its labels were drawn on an image of (height, width) {stated}. Expected {size}.")
    with refuse_malformed(f"A label of {path} cannot be read"):
        boxes = [box_around(box, size) if isinstance(box, dict) else box for box, _ in found]
    return clip_boxes(np.array(boxes, np.float64).reshape(-1, 4), [number for _, number in found], size)


def has_namesake(name: str, path: str) -> bool:
    """Whether an image, by its name below the job's folder and its path, has one of its file name in that folder.

    Labels under a file name alone are that one's; else those of images in folders may stand under it too.
    """
    bare = Path(name).name
    return bare != name and os.path.isfile(path.removesuffix(name) + bare)


def coco_box(annotation: Mapping[str, Any]) -> Box | dict:
    """The xyxy of an annotation of COCO or, where it has run lengths alone, those."""
    if annotation.get("bbox"):
        x, y, width, height = map(float, annotation["bbox"])
        return x, y, x + width, y + height
    shape = annotation["segmentation"]
    if isinstance(shape, dict):
        return shape
    corners = np.concatenate([np.reshape(part, (-1, 2)).astype(float) for part in shape])
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return left, top, right, bottom


def coco_class(annotation: Mapping[str, Any], numbers: Mapping[Any, int]) -> int:
    """The class of an annotation of COCO; 0 where no categories are listed."""
    category = annotation.get("category_id")
    if numbers and category not in numbers:
        raise DataError(
            f"The annotation {annotation.get('id')} has category_id={category}, which is not listed. Expected one of "
            f"{', '.join(map(str, numbers)):.80}."
        )
    return numbers.get(category, 0)


def box_around(run_lengths: dict, size: Size) -> Box:
    """The xyxy around the mask of run lengths on an image (H, W)."""
    x, y, width, height = cv2.boundingRect(segmentation_mask(run_lengths, size).astype(np.uint8))
    return float(x), float(y), float(x + width), float(y + height)


def beside(image: str) -> Path:
    """Where Ultralytics looks for the label of an image."""
    before, folder, after = image.rpartition("/images/")
    return Path(f"{before}/labels/{after}" if folder else image).with_suffix(".txt")


def read_yaml(file: Path) -> dict[str, Any]:
    """What a data.yaml holds.

    Raises:
        DataError: it is none.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} is not a data set's YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no data.yaml. Expected path, train and val.")
    return content


def yaml_names(file: Path) -> dict[int, str]:
    """The class names of a data.yaml."""
    names = read_yaml(file).get("names") or {}
    with refuse_malformed(f"{file}: names={names!r:.80}. Expected a list of names, or names by number"):
        numbered = enumerate(names) if isinstance(names, list) else names.items()
        return {int(number): str(name) for number, name in numbered}


def read_yolo(file: Path, size: Size) -> Found:
    """Boxes (N, 4) in pixels and classes of a label: lines of boxes or of outlines."""
    boxes, classes = [], []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), np.float64)
            classes.append(class_of(values[0]))
            boxes.append(box_of(values))
        except (ValueError, IndexError) as error:
            shown = line[:60].decode(errors="replace")
            raise DataError(f"{file}, line {number}: {shown!r} is neither a box nor an outline ({error}).") from error
    scaled = np.array(boxes, np.float64).reshape(-1, 4) * (*size[::-1], *size[::-1])
    return clip_boxes(scaled, classes, size)


def class_of(value: float) -> int:
    """The number of a class."""
    if not (0 <= value < 1 << 31 and value == int(value)):
        raise ValueError(f"the class {value:g} is no whole number from 0")
    return int(value)


def box_of(values: np.ndarray) -> Sequence[float]:
    """The xyxy of the numbers of a line, 0 to 1."""
    places = values[1:]
    if not ((places >= -OUTSIDE) & (places <= 1 + OUTSIDE)).all():
        raise ValueError("its places are no shares of the image, 0 to 1")
    if len(values) == BOX_NUMBERS:
        x, y, width, height = places
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 1 + 2 * CORNERS:
        raise ValueError("too few numbers")
    outline = places.reshape(-1, 2)
    return *outline.min(0), *outline.max(0)


def clip_boxes(boxes: np.ndarray, classes: Sequence[int], size: Size) -> Found:
    """The boxes inside an image (H, W), less those of which nothing is left, with their classes."""
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise DataError("a label has a box whose left, top, right and bottom are no finite numbers in order.")
    clipped = boxes.clip(0, (*size[::-1], *size[::-1]))
    kept = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(1)).tolist()
    return clipped[kept], [classes[row] for row in kept]
