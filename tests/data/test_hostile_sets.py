"""What lies beside the images of a data set is untrusted too: caches, programs, sizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.datasets import coco, yolo  # noqa: F401
from ultralytics import YOLO

from samplug.data.open import open_data
from samplug.errors import CheckpointError, DataError
from samplug.predict.detector import load_detector

# ruff: noqa: F811 (a test's argument is the fixture that was imported)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def masks_of(data):
    return [each.masks for each in open_data(data).images]


def test_a_cache_of_labels_that_runs_code_is_read_again_from_the_labels(yolo, tmp_path):
    expected = masks_of(yolo)
    (cache,) = tmp_path.rglob("*.cache")
    with cache.open("wb") as file:
        np.save(file, np.array({"hash": Trap(tmp_path / "sprung")}, dtype=object))
    assert all(np.array_equal(*pair) for pair in zip(masks_of(yolo), expected, strict=True))
    assert not (tmp_path / "sprung").exists()


def test_a_sound_cache_of_labels_is_used(yolo, tmp_path, monkeypatch):
    from ultralytics.data.dataset import YOLODataset

    expected = masks_of(yolo)
    monkeypatch.setattr(YOLODataset, "cache_labels", lambda *_: pytest.fail("the labels are read again"))
    assert all(np.array_equal(*pair) for pair in zip(masks_of(yolo), expected, strict=True))


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [400_000, 400_000], "counts": [400_000**2]},
        {"size": [1, 2], "counts": [2]},
        {"size": 3, "counts": [2]},
        {"counts": [2]},
        {"size": [40, 60], "counts": "\u0000"},
        [[1, 2, 3]],
        [[1, 2, float("nan"), 4, 5, 6]],
        [["a", "b"]],
        [None],
        5,
    ],
)
def test_a_segmentation_that_cannot_be_is_told(coco, shape):
    content = json.loads(coco.read_text())
    content["annotations"] = [{**content["annotations"][0], "segmentation": shape}]
    coco.write_text(json.dumps(content))
    with pytest.raises(DataError, match="segmentation"):
        masks_of(coco)


@pytest.mark.parametrize(
    "change", [{"annotations": 3}, {"annotations": [3]}, {"annotations": [{"segmentation": [1]}]}, {"images": [{}]}]
)
def test_a_coco_file_that_lacks_a_part_is_told(coco, change):
    coco.write_text(json.dumps({**json.loads(coco.read_text()), **change}))
    with pytest.raises(DataError, match="COCO|segmentation"):
        masks_of(coco)


def changed(file, **parts):
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))
    return file


def test_two_images_of_one_id_and_outlines_of_another_size_are_refused(coco):
    image = {"id": 7, "file_name": "a.jpg"}
    with pytest.raises(DataError, match="1 ids belong to several images, the first is 7"):
        open_data(changed(coco, images=[image, image]))
    height, width = masks_of(changed(coco, images=[image]))[0].shape[1:]
    assert len(masks_of(changed(coco, images=[{**image, "height": height, "width": width}]))) == 1
    with pytest.raises(DataError, match="drawn on an image of"):
        masks_of(changed(coco, images=[{**image, "height": 10 * height, "width": 10 * width}]))


def test_annotations_of_no_image_are_told_and_refused_where_the_set_is_learned_from(coco, capture_log):
    annotations = json.loads(coco.read_text())["annotations"]
    changed(coco, annotations=[*annotations, {**annotations[0], "image_id": 99}])
    assert len(masks_of(coco)) == 1
    assert any(
        "1 annotations are of images that it does not list, the first of the id 99" in line for line in capture_log
    )
    with pytest.raises(DataError, match="does not list"):
        open_data(coco, strict=True)


@pytest.mark.parametrize(
    "label", ["0 .1 .1 .5", "0 10 10 50 10 50 50", "0 nan .1 .5 .1 .5 .5", "a b c", "7 .1 .1 .5 .1 .5 .5"]
)
def test_images_whose_labels_cannot_be_read_are_named(yolo, capture_log, label):
    (yolo / "labels" / "val" / "b.txt").write_text(label)
    assert len(masks_of(yolo)) == 1
    (line,) = [line for line in capture_log if "left out" in line]
    assert line.endswith("its label cannot be read: b.png.")


def test_a_yolo_whose_file_runs_code_is_no_prompter(tmp_path):
    YOLO("yolo11n.yaml").save(tmp_path / "a.pt")
    assert load_detector(str(tmp_path / "a.pt")).task == "detect"
    content = torch.load(tmp_path / "a.pt", weights_only=False)
    torch.save({**content, "date": Trap(tmp_path / "sprung")}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="references types outside"):
        load_detector(str(tmp_path / "b.pt"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "names, message",
    [
        ("{1: a, 2: b}", "2-class dataset requires class indices 0-1, but you have invalid class indices 1-2"),
        *((empty, "names is empty. Expected the names of the classes") for empty in ("{}", "[]", "")),
        ("{-1: a}", "it has no 0. Expected names from 0 on."),
    ],
)
@pytest.mark.host
def test_names_that_do_not_count_from_0_are_told_in_one_line(yolo, names, message):
    (yolo / "data.yaml").write_text(f"path: {yolo}\ntrain: images/val\nval: images/val\nnames: {names}\n")
    with pytest.raises(DataError) as caught:
        open_data(yolo)
    assert str(caught.value).startswith(f"data={yolo / 'data.yaml'}: {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, reason", [(b"broken", "it is not an image, damaged or cut short"), (b"<html>", "it is a web page")]
)
def test_an_image_that_is_none_is_told_and_nothing_is_installed_for_it(yolo, capture_log, content, reason):
    before = Image.open
    (yolo / "images" / "val" / "c.jpg").write_bytes(content)
    assert len(masks_of(yolo)) == 1
    with pytest.raises(DataError, match=rf"c\.jpg: {reason}.*\(labels .*c\.txt\)\.$"):
        open_data(yolo, strict=True)
    lines = "\n".join(capture_log)
    assert reason in lines and "left out, as the image or its label cannot be read: c.jpg." in lines
    assert not any(word in lines for word in ("requirement", "AutoUpdate", "heif"))
    assert Image.open is before
