"""What a result holds beside Ultralytics' fields stays with its rows; drawings and labels say each thing once."""

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, film, follow, predictor_of
from ultralytics.data.utils import verify_image_label
from ultralytics.utils.plotting import Annotator

from samplug import SAM2Predictor
from samplug.predict.video.camera import SAM2CameraPredictor

PROMPTS = {7: {"bboxes": BOX}, 3: {"bboxes": OTHER}, 12: {"points": [60, 60]}}
EVERY = (0, 1, 2)
ROWS = {
    "[0]": (lambda r: r[0], (0,)),
    "[-1]": (lambda r: r[-1], (2,)),
    "[:1]": (lambda r: r[:1], (0,)),
    "[1:]": (lambda r: r[1:], (1, 2)),
    "[::2]": (lambda r: r[::2], (0, 2)),
    "[:0]": (lambda r: r[:0], ()),
    "[[2, 0]]": (lambda r: r[[2, 0]], (2, 0)),
    "[bools]": (lambda r: r[torch.tensor([True, False, True])], (0, 2)),
    "[array]": (lambda r: r[np.array([1])], (1,)),
    "[uint8 tensor]": (lambda r: r[torch.tensor([0, 1, 1], dtype=torch.uint8)], (1, 2)),
    "[uint8 array]": (lambda r: r[np.array([0, 2, 2], np.uint8)], (0, 2, 2)),
    "[column]": (lambda r: r[torch.tensor([[2], [0]])], (2, 0)),
    "[tensor]": (lambda r: r[torch.tensor([1, 2])], (1, 2)),
    "cpu": (lambda r: r.cpu(), EVERY),
    "numpy": (lambda r: r.numpy(), EVERY),
    "to device": (lambda r: r.to("cpu"), EVERY),
    "to float64": (lambda r: r.to(torch.float64), EVERY),
    "new": (lambda r: r.new(), EVERY),
    "copy": (copy.copy, EVERY),
    "deepcopy": (copy.deepcopy, EVERY),
    "pickle": (lambda r: pickle.loads(pickle.dumps(r)), EVERY),
    "numpy and back": (lambda r: r.numpy().to("cpu"), EVERY),
    "[1:] of numpy": (lambda r: r.numpy()[1:], (1, 2)),
    "twice": (lambda r: r[1:].cpu()[-1], (2,)),
}


@pytest.fixture(scope="module")
def followed(network):
    return list(follow(network, film()[:2], {"vid_stride": 1}, prompts={0: PROMPTS}, keep_lost=True))[1]


@pytest.fixture(scope="module")
def segmented(network):
    predictor = SAM2Predictor(overrides={"imgsz": 128, "verbose": False, "save": False, "logits": True})
    predictor.setup_model(network, verbose=False)
    return predictor(film()[0], bboxes=[BOX, OTHER, [10, 10, 50, 50]])[0]


@pytest.mark.parametrize("operation", ROWS)
@pytest.mark.parametrize("name", ["obj_ids", "presence", "iou", "logits", "frame", "prompt_index"])
def test_a_field_stays_with_its_rows(followed, segmented, name, operation):
    result = segmented if name == "prompt_index" else followed
    apply, rows = ROWS[operation]
    before, after = getattr(result, name), getattr(apply(result), name)
    if name == "frame":
        assert after == before == 1
    elif name == "obj_ids":
        assert after == tuple(before[row] for row in rows)
    else:
        assert np.allclose(np.asarray(after), np.asarray(before)[list(rows)]) and len(after) == len(rows)


def test_rows_by_an_index_of_several_columns_are_refused(followed):
    for index in (torch.zeros(3, 3, dtype=torch.bool), np.array([[0, 1]])):
        with pytest.raises(IndexError, match="Expected one number, or True, a row"):
            followed[index]


def test_numpy_gives_arrays_and_a_dtype_is_taken(followed):
    assert all(isinstance(getattr(followed.numpy(), name), np.ndarray) for name in ("presence", "iou", "logits"))
    assert followed.to(torch.float64).iou.dtype == torch.float64


def test_a_result_filled_anew_drops_what_belonged_to_other_rows(followed):
    made = followed.new()
    made.update(boxes=followed.boxes.data[:2].clone(), masks=followed.masks.data[:2])
    assert not hasattr(made, "iou") and made.frame == 1
    made = followed.new()
    made.update(boxes=followed.boxes.data.clone(), masks=followed.masks.data)
    assert made.obj_ids == followed.obj_ids


# Drawings and the log -------------------------------------------------------------------------------------------------


def labels(result, monkeypatch, **options):
    drawn = []
    monkeypatch.setattr(Annotator, "box_label", lambda self, box, label="", **_: drawn.append(label))
    result.plot(**options)
    return drawn


@pytest.mark.parametrize("conf", [True, False])
def test_a_tracks_label_holds_its_id_once(followed, monkeypatch, conf):
    scores = [f" {score:.2f}" if conf else "" for score in followed.boxes.conf.tolist()]
    shown = [row for row, mask in enumerate(followed.masks.data) if mask.any()]
    expected = [f"id:{followed.obj_ids[row]}{scores[row]}" for row in reversed(shown)]
    assert labels(followed, monkeypatch, conf=conf) == expected


def test_a_class_that_has_a_name_is_on_the_label_beside_the_id(network, monkeypatch):
    prompts = {7: {"bboxes": BOX, "cls": 2, "names": {2: "cup"}}, 3: {"bboxes": OTHER}}
    (result,) = follow(network, film()[:1], prompts={0: prompts})
    assert {label.rpartition(" ")[0] for label in labels(result, monkeypatch)} == {"id:7 cup", "id:3"}
    assert result.verbose() == "1 cup, 1 object, "


def emptied(result, row):
    made = copy.deepcopy(result)
    made.masks.data, made.boxes.data = made.masks.data.clone(), made.boxes.data.clone()
    made.masks.data[row] = False
    made.boxes.data[row, :4] = 0
    return made


def test_an_empty_answer_draws_and_crops_nothing(followed, segmented, monkeypatch, tmp_path):
    for result in (followed, segmented):
        empty, kept = emptied(result, 1), result[[0, 2]]
        assert np.array_equal(empty.plot(), kept.plot())
        assert labels(empty, monkeypatch) == labels(kept, monkeypatch)
        monkeypatch.undo()
        assert len(empty) == 3
    emptied(segmented, 1)[1].save_crop(tmp_path)
    assert not list(tmp_path.rglob("*.jpg"))
    assert np.array_equal(emptied(segmented, 0)[0].numpy().plot(), segmented.orig_img)


def test_objects_without_names_are_counted_together_in_the_log(followed, segmented):
    assert followed.verbose() == segmented.verbose() == "3 objects, "
    assert followed[:0].verbose() == "(no detections), "


# Label files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["call", "overrides"])
def test_labels_without_ids_are_what_yolo_trains_on(network, tmp_path, given):
    image = film()[0]
    own = {"save_ids": False}
    predictor = predictor_of(network, **(own if given == "overrides" else {}))
    said = own if given == "call" else {}
    (result,) = predictor([image], bboxes=[[30, 20, 70, 60]], obj_ids=[7], cls=[0], names={0: "cup"}, **said)
    assert result.boxes.id.tolist() == [7]
    with_ids = copy.copy(result)
    with_ids.save_ids = True
    for name, each in {"ids": with_ids, "none": result, "sliced": result[:1].cpu()}.items():
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image)
        each.save_txt(tmp_path / f"labels/{name}.txt")
        files = str(tmp_path / f"images/{name}.png"), str(tmp_path / f"labels/{name}.txt")
        corrupt = verify_image_label((*files, "", False, 1, 0, 0, False))[8]
        assert bool(corrupt) == (name == "ids")


# The camera -----------------------------------------------------------------------------------------------------------


def test_the_speed_of_a_step_is_known(network):
    camera = SAM2CameraPredictor(overrides={"imgsz": 128, "verbose": False})
    camera.setup_model(network, verbose=False)
    camera.step(film()[0], {1: {"bboxes": BOX}})
    result = camera.step(film()[1])
    assert set(result.speed) == {"preprocess", "inference", "postprocess"}
    assert all(0 < took < 60_000 for took in result.speed.values())
    camera.add_new_prompts(1, points=[50, 40])
    assert camera.results[0].speed == result.speed == result[:1].speed
