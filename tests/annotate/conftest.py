"""A folder of drawn images, labels that say where objects are, and jobs over them."""

import json

import cv2
import numpy as np
import pytest
from support.checkpoint_files import digest
from support.images import draw

from samplug import annotate


@pytest.fixture
def folder(tmp_path):
    """Seven images, two of them in a subfolder, and the boxes of their objects in a COCO file beside the folder."""
    names = [f"image{i}.png" for i in range(5)] + ["more/image1.png", "more/image10.png"]
    images, boxes = [], []
    for i, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw(60 + 4 * i, 80, i))
        images.append({"id": i, "file_name": name, "width": 80, "height": 60 + 4 * i})
        for j in range(i % 3):  # some have none
            box = [5 + 20 * j, 10, 30, 30]
            boxes.append({"id": len(boxes), "image_id": i, "category_id": 7 * j + 1, "bbox": box})
    categories = [{"id": 1, "name": "cat"}, {"id": 8, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path / "images"


@pytest.fixture
def job(folder, nano_file, tmp_path):
    """Runs a job over the folder."""

    def run(out="out", **given):
        options = {"prompter": str(tmp_path / "boxes.json"), "model": str(nano_file), "imgsz": 64, "verbose": False}
        options |= {"shard": 2, "batch": 2, "source": str(folder), "max_failures": 1.0, "workers": 0}
        return annotate(out=str(tmp_path / out), **{**options, **given})

    return run


@pytest.fixture
def contents():
    """What a job's records hold, by file."""
    return lambda job: {path.name: digest(path) for path in (job.out / "records").rglob("*.gz")}


@pytest.fixture
def read_png():
    return lambda path: np.asarray(__import__("PIL.Image", fromlist=["open"]).open(path))
