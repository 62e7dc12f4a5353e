"""Options with values that they do not take, and names that nearly are options: refused at once, by name."""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from support.images import draw, nested

from samplug import (
    SAM,
    SAM2CameraPredictor,
    SAM2DynamicInteractivePredictor,
    SAM2Predictor,
    SAM2VideoPredictor,
    arguments,
    values,
)
from samplug.annotate.settings import Settings as AnnotateSettings
from samplug.arguments import HOST_VALUES, OWN
from samplug.benchmark.settings import Settings as BenchmarkSettings
from samplug.train.settings import TrainSettings
from samplug.val import settings as val_settings
from samplug.val.settings import Settings as ValSettings
from samplug.values import Choice, Range

IMAGE = draw(96, 128, 1)
BOX = [30, 20, 70, 60]
NAN = float("nan")
FAR = 10**9
DEEP = reduce(lambda inside, _: [inside], range(5000), [0.5, 0.5])
NO_VALUES = [  # tensors that numpy cannot have
    torch.tensor([[0.5, 0.5]]).to_sparse(),
    torch.tensor([[0.5, 0.5]], device="meta"),
    nested(torch.rand(1, 2), torch.rand(3, 2)),
]
WRONG = {  # for each kind of argument, values that none of it takes
    Range: ("high", [1], {}, NAN, float("inf"), np.float32("nan"), np.array([0.5, 0.5]), object(), DEEP),
    Choice: ("nonsense", [1], {}, 7.5, np.array([1, 2]), NAN),
}
MORE = {  # and of single arguments
    "points_stride": (0, -1, 2.5, 100_000, True),
    "points_batch_size": (0, 0.5),
    "point_grids": ([], "x", 5, [[]], [np.zeros((0, 2))], [np.zeros((3, 3))], [np.array([[2, 2]])], [[[0.5, NAN]]])
    + ([np.array([[-1, 0.5]])], np.zeros((3, 2)), [["a", "b"]], [None], DEEP, *([each] for each in NO_VALUES)),
    "crop_n_layers": (-1, 1.5, 7, 10),
    "crop_overlap_ratio": (-0.1, 1.1),
    "crop_nms_thresh": (-0.1, 1.1),
    "tile": (0, 16, 64.5),
    "stability_score_offset": (-1,),
    "threads": (0, -1, 1.5, 100_000, FAR),
    "policy": (5, object(), [], "movement", b"motion"),
    "max_objects": (0, -3, 1.5),
    "start": (-1, 0.5),
    "iou_match": (0, 1.5),
    "imgsz": (0, -64, 10**6, 10**400, DEEP, NAN, "x", [], [64, 64, 64], [64, NAN], [0, 64], 64.5, {}),
    "classes": (2**70, 10**400, DEEP, "a", ["a"], [0, NAN], 1.5, [[0]], NAN, {}),
    "conf": (-0.1, 1.1, NAN, "high", [0.5]),
    "iou": (-0.1, 1.1, NAN, "high"),
    "batch": (0, -1, NAN, "many", 1.5),
    "vid_stride": (0, -1, NAN, "x", 1.5),
    "save_format": (5, ["coco", 5], {"coco": 1}, True, IMAGE, object()),
    "prompter": (5, True, [], "", "\0", {"model": 5}, {"conf": 0.5}, IMAGE),
    "project": ("a\0b",),
    "name": ("\0",),
}
KNOWN = {**OWN, **HOST_VALUES}
CASES = [
    (name, value)
    for name, argument in KNOWN.items()
    for value in (*WRONG.get(type(argument.accepts), ()), *MORE.get(name, ()))
]


def shown(value):
    text = "deep" if value is DEEP else "no values" if isinstance(value, torch.Tensor) else str(value)
    return f"{type(value).__name__}:{text[:20]}".replace("\0", "NUL")


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(str(nano_file))


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}-{shown(value)}" for name, value in CASES])
def test_a_value_that_an_option_does_not_take_is_refused_by_name(model, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        model.predict(IMAGE, verbose=False, **{"imgsz": 128, "points_stride": 2, name: value})


OTHER_DOORS = {
    "embed": lambda option: SAM().embed(IMAGE, **option),
    "a predictor": lambda option: SAM2Predictor(overrides={**option, "model": "samplug-nano.pt"}),
    "a camera": lambda option: SAM2CameraPredictor(overrides=option),
    "an interactive one": lambda option: SAM2DynamicInteractivePredictor(overrides=option),
}


@pytest.mark.parametrize("option", [{"threads": 10**5}, {"compile": "x"}, {"bf16": 5}, {"fill_holes": -5}, {"conf": 2}])
@pytest.mark.parametrize("door", OTHER_DOORS)
def test_no_door_takes_a_value_that_predict_refuses(door, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}=.*: give"):
        OTHER_DOORS[door](option)


@pytest.mark.parametrize(
    "option", [{"conf_thres": "high"}, {"point_grids": []}, {"points_stride": 10**5}, {"crop_n_layers": -1}]
)
def test_generate_refuses_what_predict_refuses(option):
    predictor = SAM2Predictor(overrides={"model": "samplug-nano.pt", "imgsz": 64, "verbose": False})
    predictor.set_image(IMAGE)
    with pytest.raises(ValueError, match=next(iter(option))):
        predictor.generate(predictor.im, **option)


@pytest.mark.parametrize("classes", [{0}, (0, 2**53 - 1), range(2)])
def test_classes_come_in_any_collection(model, classes):
    assert len(model.predict(IMAGE, bboxes=[BOX], classes=classes, imgsz=128, verbose=False)[0]) == 1


@pytest.mark.parametrize("policy", [object, dict, lambda: None, type("Half", (), {"observe": print}), len, lambda x: x])
def test_a_class_that_is_no_policy_is_refused(model, policy):
    with pytest.raises(ValueError, match="policy=.*: give "):
        model.track([IMAGE, IMAGE], bboxes=[BOX], policy=policy, imgsz=128, verbose=False)


def test_a_grid_is_needed_for_each_layer_of_crops(model):
    grid = np.array([[0.5, 0.5]])
    with pytest.raises(ValueError, match="point_grids: got 1 for crop_n_layers=1. Expected 2"):
        model.predict(IMAGE, point_grids=[grid], crop_n_layers=1, imgsz=128, verbose=False)
    for grids in ([grid, grid], np.stack([grid, grid]), [grid.tolist()] * 3):
        assert len(model.predict(IMAGE, point_grids=grids, crop_n_layers=1, imgsz=128, verbose=False)) == 1


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8])
def test_numbers_of_numpy_are_numbers(number):
    arguments.check({"points_stride": number(4), "conf_thres": np.float32(0.5), "threads": number(1)})
    arguments.check_host({"imgsz": [number(64), 64], "classes": np.array([1, 2]), "batch": number(2)}, ())


NEAR = {
    "point": "points", "label": "labels", "bbox": "bboxes", "mask": "masks", "prompt": "prompts", "tiles": "tile",
    "obj_id": "obj_ids", "conf_thresh": "conf_thres", "stability_score": "stability_score_thresh", "img_sz": "imgsz",
    "policies": "policy", "thread": "threads", "min_areas": "min_area", "fill_hole": "fill_holes", "devices": "device",
    "on_errors": "on_error", "nonoverlap": "non_overlap", "point_grid": "point_grids", "vidstride": "vid_stride",
}  # fmt: skip


@pytest.mark.parametrize(("near", "meant"), NEAR.items())
@pytest.mark.parametrize("verb", ["predict", "track", "embed", "predictor"])
def test_a_near_miss_is_answered_with_the_name_that_was_meant(model, verb, near, meant):
    with pytest.raises(TypeError, match=f"'{near}' is not an argument of predict. Did you mean .*{meant}") as caught:
        if verb == "predictor":
            SAM2VideoPredictor(overrides={near: 3})
        else:
            getattr(model, verb)(IMAGE, **{near: 3})
    assert len(str(caught.value)) < 200


def test_a_name_that_is_near_nothing_is_answered_in_one_line(model):
    with pytest.raises(TypeError, match="'qqqq' is not an argument of predict. `yolo sam help` lists them."):
        model.predict(IMAGE, qqqq=1)


@pytest.mark.parametrize("device", ["tpu", "tpu:0", "intel:gpu", "intel"])
@pytest.mark.parametrize("verb", ["predict", "track"])
def test_a_device_of_exported_networks_is_refused(model, verb, device):
    with pytest.raises(ValueError, match=f"device={device} is none of torch's"):
        getattr(model, verb)(IMAGE, device=device, points=[[5, 5]])


@pytest.mark.parametrize("device", [0, "0", 1, [0], [0, 1], "0,1", "cuda", "cuda:0"])
@pytest.mark.parametrize("verb", ["predict", "track", "val", "embed", "benchmark"])
def test_a_gpu_that_is_not_there_is_refused_everywhere(model, verb, device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="(?i)cuda"):
        if verb == "val":
            model.val(data="scenes", pictures=1, clips=0, device=device)
        elif verb == "benchmark":
            model.benchmark(device=device, parts="encoder", peers="none", save=False, verbose=False)
        else:
            getattr(model, verb)(IMAGE, device=device)


# Settings of commands -------------------------------------------------------------------------------------------------

SETTINGS = {"annotate": AnnotateSettings, "benchmark": BenchmarkSettings, "val": ValSettings, "train": TrainSettings}
GIVEN = {"annotate": {}, "benchmark": {}, "val": {"data": "scenes"}, "train": {"data": "data.yaml"}}
ELSEWHERE = {  # settings that their command reads itself, or that are whatever `predict` takes
    "annotate": {"device"},
    "benchmark": {"device"},
    "val": set(),
    "train": {"data", "source", "split", "val_data", "freeze", "anchor", "device", "save_dir", "resume"},
}
NO_SETTING = {  # for each kind of setting, values that none of it takes
    values.PATH: (5, "", "a\0b", ["a"], {}, NAN),
    values.IMGSZ: MORE["imgsz"],
    values.CLASSES: MORE["classes"],
    values.PROMPTER: (5, True, [], "", "\0", {"model": 5}, {"conf": 0.5}, IMAGE),
}
SINGLE = {
    ("annotate", "source"): ({}, [5], "\0", IMAGE, object()),
    ("annotate", "class_names"): ("car", 5, ["a"], {"a": 5}, {1: "a"}),
    ("annotate", "format"): (5, "nope", ["coco", 5], {"yolo": 1}, object()),
    ("annotate", "part"): ("0/0", "x", 5, "2/1"),
    ("annotate", "workers"): ("x", NAN, 100_000, "4..2", -1),
    ("benchmark", "threads"): (100_000,),
    ("benchmark", "neighbour"): (100_000,),
    ("benchmark", "imgsz"): (0, -5, 10**6),
    ("benchmark", "parts"): (5, "nope", [None]),
    ("benchmark", "peers"): (5, "nope", [None]),
    ("benchmark", "prompts"): (0, "x", [1.5], [NAN]),
    ("benchmark", "objects"): (0, "x", [1.5], [NAN]),
    ("val", "ask"): (5, {}, [], "touch", [5], IMAGE),
    ("val", "side"): (0, 1, 10**6),
}
WRONG_SETTINGS = [
    (command, name, value)
    for command, kind in SETTINGS.items()
    for name, argument in arguments.arguments_of(kind).items()
    for value in (
        *WRONG.get(type(argument.accepts), ()),
        *NO_SETTING.get(argument.accepts, ()),
        *SINGLE.get((command, name), ()),
    )
]


def read_settings(command, **given):
    kind, given = SETTINGS[command], {**GIVEN[command], **given}
    return val_settings.read(given) if kind is ValSettings else kind.read(given)


@pytest.mark.parametrize("command", SETTINGS)
def test_every_setting_says_which_values_it_takes(command):
    read_settings(command)
    told = {name for name, argument in arguments.arguments_of(SETTINGS[command]).items() if argument.accepts}
    checked = {name for where, name in SINGLE if where == command}
    assert arguments.arguments_of(SETTINGS[command]).keys() == told | checked | ELSEWHERE[command]
    assert not told & ELSEWHERE[command]


@pytest.mark.parametrize(
    ("command", "name", "value"), WRONG_SETTINGS, ids=[f"{c}-{n}-{shown(v)}" for c, n, v in WRONG_SETTINGS]
)
def test_a_value_that_a_setting_does_not_take_is_refused_by_name(command, name, value):
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        read_settings(command, **{name: value})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("path", ["2024", Path("a/b"), "ü 木.pt"])
def test_every_name_of_a_file_is_taken(path):
    for command, name in (("annotate", "out"), ("annotate", "model"), ("benchmark", "project"), ("val", "source")):
        read_settings(command, **{name: path})
    read_settings("annotate", source=[path, str(path)])
