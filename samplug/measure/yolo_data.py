"""YOLO segmentation data sets, found and read by Ultralytics: data.yaml, pictures, polygons in text files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from samplug.measure.lazy import Lazy
from samplug.measure.pictures import Picture
from samplug.measure.reading import DataError, polygon_mask, read_picture


def open_yolo(data: str, split: str = "val", classes: Sequence[int] | None = None) -> Lazy[Picture]:
    """The pictures of a split that have objects.

    Args:
        data: A yaml file, or the name of one that Ultralytics knows and downloads (`coco8-seg.yaml`).
        split: Key of the yaml: `val`, `test` or `train`.
        classes: The classes that count; None for all.

    Raises:
        DataError: what Ultralytics says against the file, or it has boxes alone.
    """
    try:
        found = check_det_dataset(data)
        if not found.get(split):
            there = ", ".join(name for name in ("train", "val", "test") if found.get(name))
            raise DataError(f"there is no split={split}; it has {there}.")
        dataset = YOLODataset(
            img_path=found[split],
            data=found,
            task="segment",
            augment=False,
            cache=False,
            classes=classes,
            prefix=f"{split}: ",
        )
    except (
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
    ) as error:  # whatever the host says
        raise DataError(f"data={data}: {' '.join(str(error).split())}") from error
    labels = [label for label in dataset.labels if len(label["cls"])]
    if not labels:
        raise DataError(f"split={split} of {data} has no object" + (f" of the classes {classes}." if classes else "."))
    if not all(len(label["segments"]) for label in labels):
        raise DataError(f"{data} has boxes, and no outlines: measuring masks needs a data set for segmentation.")
    return Lazy(labels, _picture)


def _picture(label: dict[str, Any]) -> Picture:
    image = read_picture(label["im_file"])
    height, width = image.shape[:2]
    outlines = [np.asarray(outline) * (width, height) for outline in label["segments"]]
    masks = [polygon_mask([outline], (height, width)) for outline in outlines]
    return Picture(Path(label["im_file"]).name, image, np.stack(masks))
