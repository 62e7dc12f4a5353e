"""What lies beside the images of a data set is untrusted too: caches, programs, sizes."""

import json

import numpy as np
import pytest
import torch
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


def test_a_yolo_whose_file_runs_code_is_no_prompter(tmp_path):
    YOLO("yolo11n.yaml").save(tmp_path / "a.pt")
    assert load_detector(str(tmp_path / "a.pt")).task == "detect"
    content = torch.load(tmp_path / "a.pt", weights_only=False)
    torch.save({**content, "date": Trap(tmp_path / "sprung")}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="references types outside"):
        load_detector(str(tmp_path / "b.pt"))
    assert not (tmp_path / "sprung").exists()
