"""The functions for CVAT, called as its agent and nuclio call them; a stand-in where its SDK is not installed."""

import base64
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from support.images import draw

from samplug.data.formats.cvat import cvat_mask
from samplug.masks.rle import rle_decode

FOLDER = Path(__file__).parents[2] / "examples" / "cvat"


def encode_mask(mask):
    """CVAT's: the runs inside the box, off first, and then the box, its last pixels included."""
    made = cvat_mask(np.asarray(mask, bool))
    right, bottom = made["left"] + made["width"] - 1, made["top"] + made["height"] - 1
    return [*map(float, made["rle"].split(",")), made["left"], made["top"], right, bottom]


def decode_mask(points, image_width, image_height):
    *runs, left, top, right, bottom = map(int, points)
    mask = np.zeros((image_height, image_width), bool)
    size = [right - left + 1, bottom - top + 1]
    mask[top : bottom + 1, left : right + 1] = rle_decode({"size": size, "counts": runs}).T
    return mask


@pytest.fixture(params=["stand-in", "cvat_sdk"])
def sdk(request, monkeypatch):
    """CVAT's SDK, and what stands in for it."""
    if request.param == "cvat_sdk":
        pytest.importorskip("cvat_sdk.auto_annotation")
        return sys.modules["cvat_sdk"]
    names = ("DetectionFunctionSpec", "InteractionFunctionSpec", "TrackingFunctionSpec")
    made = dict.fromkeys((*names, "InteractionResultShape", "TrackableShape"), SimpleNamespace)
    functions = ModuleType("cvat_sdk.auto_annotation")
    vars(functions).update(
        made,
        label_spec=lambda name, number, type: SimpleNamespace(name=name, id=number, type=type),
        mask=lambda number, points: SimpleNamespace(label_id=number, type="mask", points=points),
        polygon=lambda number, points: SimpleNamespace(label_id=number, type="polygon", points=points),
    )
    masks = ModuleType("cvat_sdk.masks")
    masks.encode_mask, masks.decode_mask = encode_mask, decode_mask
    package = ModuleType("cvat_sdk")
    package.auto_annotation, package.masks = functions, masks
    for module in (package, functions, masks):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return package


@pytest.fixture
def load(sdk):
    """Import an example as CVAT does, by its file."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{Path(name).stem}", FOLDER / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def image():
    return Image.fromarray(draw(80, 120, 1)[..., ::-1])


@pytest.mark.parametrize("polygons", [False, True])
def test_a_detection_is_a_shape_of_its_class(load, sdk, nano_file, monkeypatch, polygons):
    function = load("detection.py").create(str(nano_file), "yolo11n.yaml")
    truth = function.sam.predict(image(), bboxes=[[30, 20, 70, 60]], cls=[0], imgsz=64, verbose=False)[0]
    given = []
    function.detector.predict = lambda picture, conf, verbose: given.append(conf) or [truth]
    context = SimpleNamespace(frame_name="a", conf_threshold=0.5, conv_mask_to_poly=polygons)
    shapes = function.detect(context, image())
    assert given == [0.5] and shapes and {shape.label_id for shape in shapes} == {0}
    assert all(str(shape.type) == ("polygon" if polygons else "mask") for shape in shapes)


def test_clicks_and_a_box_become_the_mask_that_predict_gives(load, sdk, nano_file):
    function = load("interaction.py").create(str(nano_file))
    features = function.preprocess_image(None, image())
    prompts = SimpleNamespace(pos_points=[(50, 40)], neg_points=[(100, 10)], bounding_box=(30, 20, 70, 60))
    (shape,) = function.detect(None, features, prompts)
    truth = function.sam.predict(
        image(), points=[[[50, 40], [100, 10]]], labels=[[1, 0]], bboxes=[[30, 20, 70, 60]], verbose=False
    )[0]
    found = sdk.masks.decode_mask(shape.points, image_width=120, image_height=80)
    assert np.array_equal(found, truth.masks.data[0].bool().numpy())


def test_a_mask_is_followed_with_the_memory_of_a_camera(load, sdk):
    function = load("tracking.py").create("samplug-nano.pt")
    truth, frames = [], []
    for i in range(3):  # a disc moves over grey
        frame, disc = np.full((96, 128, 3), 110, np.uint8), np.zeros((96, 128), np.uint8)
        for image, colour in ((frame, (40, 190, 70)), (disc, 1)):
            cv2.circle(image, (40 + 5 * i, 48), 20, colour, -1)
        frames.append(function.preprocess_image(None, Image.fromarray(frame[..., ::-1])))
        assert np.array_equal(frames[-1], frame)
        truth.append(disc.astype(bool))
    shape = SimpleNamespace(type="mask", points=sdk.masks.encode_mask(truth[0]))
    states = [function.init_tracking_state(None, frames[0], shape) for _ in range(2)]  # two objects know of no other
    for state in states:
        for frame, disc in zip(frames[1:], truth[1:], strict=True):
            points = function.track(None, frame, state).points
            mask = sdk.masks.decode_mask(points, image_width=128, image_height=96)
            assert (mask & disc).sum() / (mask | disc).sum() > 0.8
    assert function.track(None, np.zeros_like(frames[0]), states[0]) is None


def test_nuclio_answers_a_request_with_rows_of_0_and_255(load, nano_file, monkeypatch):
    monkeypatch.setenv("SAMPLUG_MODEL", str(nano_file))
    module = load("nuclio/main.py")
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    module.init_context(context)
    data = base64.b64encode(cv2.imencode(".png", draw(80, 120, 1))[1].tobytes()).decode()
    body = {"image": data, "pos_points": [[50, 40]], "neg_points": [], "obj_bbox": [[30, 20], [70, 60]]}
    answer = module.handler(context, SimpleNamespace(body=body))
    mask = np.array(json.loads(answer.body)["mask"])
    truth = context.user_data.model.predict(
        draw(80, 120, 1), points=[[50, 40]], bboxes=[[30, 20, 70, 60]], verbose=False
    )
    assert answer.status_code == 200 and np.array_equal(mask, 255 * truth[0].masks.data[0].int().numpy())
