"""Boxes of labels that exist: whose they are, and what they say of another image or class."""

import json

import cv2
import numpy as np
import pytest

from samplug.data.label_boxes import LabelBoxes
from samplug.errors import DataError
from samplug.masks.rle import rle_encode

SIZE = (60, 80)
CATEGORIES = [{"id": 3, "name": "car"}, {"id": 9, "name": "dog"}]
IMAGES = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "x/a.jpg"}]


def coco(annotations, images=IMAGES, categories=CATEGORIES):
    content = {"images": images, "categories": categories}
    rows = [{"id": i, "image_id": 1, "category_id": 9, **each} for i, each in enumerate(annotations)]
    return LabelBoxes.of_coco("c.json", {**content, "annotations": rows})


@pytest.fixture
def folder(tmp_path):
    """Images of one name in several folders."""
    for name in ("a.jpg", "x/a.jpg", "y/a.jpg", "y/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((*SIZE, 3), np.uint8))
    return tmp_path


def test_an_image_has_no_labels_of_another_of_its_name(folder):
    labels = coco([{"bbox": [10, 10, 20, 20]}])
    for name, count in (("a.jpg", 1), ("x/a.jpg", 0), ("y/a.jpg", 0)):
        assert len(labels.boxes_of(name, str(folder / name), SIZE)[0]) == count
    alone = coco([{"bbox": [10, 10, 20, 20]}], [{"id": 1, "file_name": "b.jpg"}])
    assert len(alone.boxes_of("y/b.jpg", str(folder / "y/b.jpg"), SIZE)[0]) == 1  # labels of a flat folder


def test_an_image_has_no_yolo_label_of_another_of_its_name(folder):
    (folder / "labels").mkdir()
    for name in "ab":
        (folder / "labels" / f"{name}.txt").write_text("0 .5 .5 .2 .2\n")
    labels = LabelBoxes.of_yolo(folder / "labels")
    for name, count in (("a.jpg", 1), ("x/a.jpg", 0), ("y/a.jpg", 0), ("y/b.jpg", 1)):
        assert len(labels.boxes_of(name, str(folder / name), SIZE)[0]) == count


def test_a_class_that_is_not_listed_is_refused():
    with pytest.raises(DataError, match=r"category_id=77, which is not listed. Expected one of 3, 9"):
        coco([{"bbox": [1, 1, 5, 5], "category_id": 77}])
    assert coco([{"bbox": [1, 1, 5, 5], "category_id": 77}], categories=[]).boxes_of("a.jpg", "a.jpg", SIZE)[1] == [0]


@pytest.mark.parametrize("side", ["height", "width"])
def test_labels_of_an_image_of_another_size_are_refused(side):
    image = {"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}
    annotations = [{"bbox": [10, 10, 30, 30]}]
    assert len(coco(annotations, [image]).boxes_of("a.jpg", "a.jpg", SIZE)[0]) == 1
    with pytest.raises(DataError, match="drawn on an image of"):
        coco(annotations, [{**image, side: 999}]).boxes_of("a.jpg", "a.jpg", SIZE)


def test_a_segmentation_without_a_box_has_the_box_around_it():
    mask = np.zeros(SIZE, bool)
    mask[20:40, 10:50] = True
    run_lengths = json.loads(json.dumps(rle_encode(mask)))
    outline = [[10, 20, 50, 20, 50, 40], [12, 22, 20, 40, 10, 30]]
    for shape in (outline, run_lengths):
        boxes, classes = coco([{"segmentation": shape}]).boxes_of("a.jpg", "a.jpg", SIZE)
        assert boxes.tolist() == [[10, 20, 50, 40]] and classes == [1]
    with pytest.raises(DataError, match="run lengths of the size"):
        coco([{"segmentation": run_lengths}]).boxes_of("a.jpg", "a.jpg", (30, 40))
