"""Ids of any size: a result, its files and what is made of it hold them to the last digit, or they are refused."""

import json

import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, film

from samplug import SAM, PromptError, SAM2CameraPredictor, SAM2DynamicInteractivePredictor

MOST = 2**53 - 1
LARGE = [2**24 + 1, -(2**24) - 1, MOST]
THIRD = [10, 10, 60, 60]
BOXES = [BOX, OTHER, THIRD]
SAID = {"imgsz": 128, "verbose": False}


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture(scope="module")
def result(model):
    return model.predict(film()[0], bboxes=BOXES, obj_ids=LARGE, **SAID)[0]


def ids_of(result):
    return [int(each) for each in result.boxes.id.tolist()]


def labels_of(result, path, **said):
    """The last number of each line of a label file."""
    result.save_txt(path, **said)
    lines = path.read_text().splitlines()
    path.unlink()
    return [int(line.split()[-1]) for line in lines]


@pytest.mark.host
def test_a_result_holds_large_ids_exactly_whatever_becomes_of_it(result):
    assert ids_of(result) == LARGE and result.boxes.data.dtype == torch.float64
    for other in (result.cpu(), result.numpy(), result.to("cpu"), result[[0, 1, 2]]):
        assert ids_of(other) == LARGE
    assert ids_of(result[1]) == LARGE[1:2] and ids_of(result[1:]) == LARGE[1:]
    assert [row["track_id"] for row in result.summary()] == LARGE
    assert [row["track_id"] for row in json.loads(result.to_json())] == LARGE
    assert result.verbose() == "3 objects, "


@pytest.mark.host
def test_boxes_scores_and_masks_are_those_of_small_ids(model, result):
    small = model.predict(film()[0], bboxes=BOXES, obj_ids=[1, 2, 3], **SAID)[0]
    assert small.boxes.data.dtype == torch.float32 and ids_of(small) == [1, 2, 3]
    columns = [0, 1, 2, 3, 5, 6]
    assert torch.equal(small.boxes.data[:, columns], result.boxes.data[:, columns].float())
    assert torch.equal(small.masks.data, result.masks.data)
    assert np.array_equal(small.plot(labels=False), result.plot(labels=False))
    assert result.plot(color_mode="instance").shape == film()[0].shape


@pytest.mark.host
@pytest.mark.parametrize("ids", [LARGE, [7, 999_999, 1_000_000], [7, 8, 9]], ids=["large", "seven digits", "small"])
def test_label_files_hold_every_digit(model, tmp_path, ids):
    result = model.predict(film()[0], bboxes=BOXES, obj_ids=ids, **SAID)[0]
    for save_conf in (False, True):
        assert labels_of(result, tmp_path / "a.txt", save_conf=save_conf) == ids
    assert labels_of(result.cpu(), tmp_path / "a.txt") == ids
    assert labels_of(result[1:], tmp_path / "a.txt") == ids[1:]


@pytest.mark.host
def test_the_rest_of_a_line_is_as_ultralytics_writes_it(model, result, tmp_path):
    small = model.predict(film()[0], bboxes=BOXES, obj_ids=[1, 2, 3], **SAID)[0]
    for one, name in ((result, "large"), (small, "small")):
        one.save_txt(tmp_path / name, save_conf=True)
    large, small = ((tmp_path / name).read_text().splitlines() for name in ("large", "small"))
    assert [line.rpartition(" ")[0] for line in large] == [line.rpartition(" ")[0] for line in small]


@pytest.mark.host
def test_lines_that_ultralytics_leaves_out_take_no_id_with_them(result, tmp_path):
    without, masks = result.cpu(), result.masks.data.clone()
    masks[1] = False  # no outline
    without.update(masks=masks)
    written = labels_of(without, tmp_path / "a.txt")
    assert written in ([LARGE[0], LARGE[2]], LARGE)  # old releases write a line without a point
    without.update(boxes=torch.zeros(0, 7), masks=masks[:0])
    without.save_txt(tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


@pytest.mark.host
def test_a_video_keeps_large_ids_also_by_frame_and_in_its_files(model, tmp_path):
    prompts = {0: {LARGE[0]: {"bboxes": BOX}}, 1: {MOST: {"bboxes": OTHER}}}
    said = {"stream": True, "save": True, "save_txt": True, "project": str(tmp_path), "name": "out", **SAID}
    results = list(model.track(film()[:3], prompts=prompts, **said))
    assert [result.obj_ids for result in results] == [(LARGE[0],), (LARGE[0], MOST), (LARGE[0], MOST)]
    assert [tuple(ids_of(result)) for result in results] == [result.obj_ids for result in results]
    assert results[-1].names[int(results[-1].boxes.cls[1])] == str(MOST)
    lines = [line for path in (tmp_path / "out" / "labels").iterdir() for line in path.read_text().splitlines()]
    assert {int(line.split()[-1]) for line in lines} == {LARGE[0], MOST}


@pytest.mark.host
def test_ultralytics_trackers_take_such_results(nano_file):
    pytest.importorskip("lap")
    said = {"track": False, "stream": True, "tracker": "bytetrack.yaml", "conf": 0.01, **SAID}
    results = list(SAM(nano_file).track(film()[:2], bboxes=BOXES, obj_ids=LARGE, **said))
    assert all(result.boxes.is_track and max(ids_of(result)) <= 6 for result in results)  # ids of the tracker's own


def test_ids_in_tensors_and_of_results_are_read_exactly(model, result):
    frame = film()[1]
    for prompts in (
        {"prompts": result},
        {"bboxes": BOXES, "obj_ids": result.boxes.id},
        {"bboxes": BOXES, "obj_ids": torch.tensor(LARGE)},
        {"bboxes": BOXES, "obj_ids": np.array(LARGE, np.float64)},
    ):
        assert ids_of(model.predict(frame, **prompts, **SAID)[0]) == LARGE


def test_an_object_that_was_shown_is_found_under_its_large_id(nano_file):
    finder = SAM2DynamicInteractivePredictor(overrides={"model": str(nano_file), **SAID})
    finder(film()[0], bboxes=BOXES, obj_ids=LARGE, update_memory=True)
    finder.options["keep_lost"] = True
    assert ids_of(finder(film()[1])[0]) == LARGE


def test_a_large_class_is_exact_too(model):
    result = model.predict(film()[0], bboxes=[BOX], cls=[2**24 + 1], names={2**24 + 1: "cup"}, **SAID)[0]
    assert result.names[int(result.boxes.cls[0])] == "cup"


@pytest.mark.parametrize("beyond", [2**53, -(2**53), 2**53 + 1, 2**60, 1e300])
def test_an_id_that_no_result_can_hold_is_refused(model, nano_file, beyond):
    for ids in ([1, beyond], np.array([1, beyond])):
        with pytest.raises(PromptError, match=r"obj_ids: .*whole numbers from -\(2\^53 - 1\) to 2\^53 - 1"):
            model.predict(film()[0], bboxes=[BOX, OTHER], obj_ids=ids, **SAID)
    number = int(beyond)
    with pytest.raises(PromptError, match="obj_id: "):
        list(model.track(film()[:2], prompts={0: {number: {"bboxes": BOX}}}, stream=True, **SAID))
    camera = SAM2CameraPredictor(overrides={"model": str(nano_file), **SAID})
    camera.step(film()[0], {1: {"bboxes": BOX}})
    with pytest.raises(PromptError, match="obj_id: "):
        camera.add_new_prompts(number, points=[40, 40], frame_idx=None)
    assert camera.step(film()[1]).obj_ids == (1,)
