"""Bad input is refused before the first step: the message names it, nothing is written, the network stays as it is."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from support.checkpoint_files import same
from support.datasets import BLOCK, as_coco, as_davis, as_index, as_yolo, index_of, save_image, save_index

from samplug.checkpoints.load import load_model
from samplug.errors import DataError
from samplug.train.data import feature_cache


def without_masks(folder):
    as_index(folder, BLOCK)
    save_index(folder / "masks" / "a.png", index_of())
    return folder


def without_an_image(folder):
    as_yolo(folder, BLOCK)
    save_image(folder / "images" / "b.jpg", 1)
    (folder / "labels" / "b.txt").write_text("0 .1 .1 .2 .2 .1 .3")
    (folder / "images" / "b.jpg").write_bytes(b"")
    return folder / "data.yaml"


def without_any_image(folder):
    as_yolo(folder, BLOCK)
    shutil.rmtree(folder / "images")
    return folder / "data.yaml"


def without_an_image_of_coco(folder):
    file = as_coco(folder, BLOCK)
    (folder / "images" / "a.jpg").unlink()
    return file


def boxes_of_yolo(folder):
    as_yolo(folder, BLOCK)
    (folder / "labels" / "a.txt").write_text("0 .5 .5 .2 .2")
    return folder / "data.yaml"


def boxes_of_coco(folder):
    file = as_coco(folder, BLOCK)
    content = json.loads(file.read_text())
    content["annotations"] = [{"id": 77, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "segmentation": []}]
    file.write_text(json.dumps(content))
    return file


REFUSED = {
    "no masks": (without_masks, {}, "no object to learn from that is visible"),
    "an image is empty": (without_an_image, {}, r"b\.jpg"),
    "images are missing": (without_any_image, {}, "images"),
    "an image of COCO is missing": (without_an_image_of_coco, {}, r"a\.jpg"),
    "YOLO labels are boxes": (
        boxes_of_yolo,
        {},
        "a box. Expected an outline|Please supply a segment dataset",
    ),  # who sees it first
    "COCO labels are boxes": (boxes_of_coco, {}, "has no object with a segmentation"),
    "one image and nothing to measure on": (lambda folder: as_index(folder, BLOCK), {}, "val_data="),
    "videos for a network without memory": (lambda folder: as_davis(folder, BLOCK), {}, "which need SAM 2"),
    "there is nothing": (lambda folder: folder / "gone.yaml", {}, r"gone\.yaml"),
}


@pytest.mark.host
@pytest.mark.parametrize("what", REFUSED)
def test_bad_data_are_refused_by_name_and_nothing_is_lost(trainer, toy_file, tmp_path, what):
    make, how, message = REFUSED[what]
    (tmp_path / "data").mkdir()
    run = trainer(data=str(make(tmp_path / "data")), **how)
    with pytest.raises(DataError, match=message):
        run.train()
    assert not (tmp_path / "run").exists() and same(run.untouched, load_model(toy_file))


def test_a_class_that_is_only_measured_is_said_and_the_run_goes_on(trainer, tmp_path, capture_log):
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        file = as_coco(tmp_path / name, BLOCK)
        content = json.loads(file.read_text())
        content["annotations"][0]["category_id"] = number
        content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        file.write_text(json.dumps(content))
        save_image(tmp_path / name / "images" / "a.jpg", number)
    run = trainer(data=str(tmp_path / "a" / "a.json"), val_data=str(tmp_path / "b" / "a.json"), epochs=1)
    assert run.train().epochs == 1
    assert any("measured and not learned from: dog" in line for line in capture_log)


def test_without_space_for_features_a_run_is_refused_before_an_image_is_encoded(trainer, tmp_path, monkeypatch):
    disk = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(feature_cache, "shutil", disk)
    run = trainer(features="disk")
    with pytest.raises(DataError, match=r"features=disk needs .* GB in .*features=off"):
        run.train()
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_track_is_told_what_learns_memory(trainer):
    with pytest.raises(DataError, match="learn=memory needs SAM 2"):
        trainer(learn="memory").train()


def test_masks_too_small_for_the_input_are_named_with_its_size(trainer, tmp_path):
    index = np.zeros((48, 64), np.uint8)
    index[10, 10] = 1
    as_index(tmp_path / "data", BLOCK)
    save_index(tmp_path / "data" / "masks" / "a.png", index)
    with pytest.raises(DataError, match=r"no object to learn from that is visible in an input of \(64, 64\)"):
        trainer(data=str(tmp_path / "data")).train()
