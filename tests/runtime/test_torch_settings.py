"""What the caller has set in torch around us does not change a mask, and is as it was afterwards."""

from contextlib import contextmanager

import pytest
import torch
from support.images import draw

from samplug import SAM, SAM2CameraPredictor, SAM2DynamicInteractivePredictor, SAM2Predictor, SAM2VideoPredictor

IMAGE = draw(96, 128, 1)
BOX = [30, 20, 70, 60]
OVERRIDES = {"imgsz": 128, "verbose": False, "save": False}


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


AROUND = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
}


def camera(file):
    predictor = SAM2CameraPredictor(overrides={**OVERRIDES, "model": file})
    predictor.step(IMAGE, {7: {"bboxes": [BOX]}})
    return predictor.step(IMAGE)


def interactive(file):
    predictor = SAM2DynamicInteractivePredictor(overrides={**OVERRIDES, "model": file})
    predictor(IMAGE, bboxes=[BOX], obj_ids=[7], update_memory=True)
    return predictor(IMAGE)[0]


def set_image(file):
    predictor = SAM2Predictor(overrides={**OVERRIDES, "model": file})
    predictor.set_image(IMAGE)
    return predictor(bboxes=[BOX])[0]


def corrected(file):
    predictor = SAM2VideoPredictor(overrides={**OVERRIDES, "model": file})
    stream = predictor([IMAGE, IMAGE], bboxes=[BOX], stream=True)
    next(stream)
    predictor.add_new_prompts(0, points=[40, 30], frame_idx=None)
    return next(stream)


WAYS = {
    "predict": lambda file: SAM(file).predict(IMAGE, bboxes=[BOX], **OVERRIDES)[0],
    "everything": lambda file: SAM(file).predict(IMAGE, points_stride=4, conf_thres=-1, **OVERRIDES)[0],
    "track": lambda file: SAM(file).track([IMAGE] * 2, bboxes=[BOX], **OVERRIDES)[1],
    "set_image": set_image,
    "camera": camera,
    "interactive": interactive,
    "corrected": corrected,
}


@pytest.fixture(scope="module")
def expected(nano_file):
    return {name: way(str(nano_file)).masks.data for name, way in WAYS.items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("around", AROUND)
def test_masks_are_the_same_under_whatever_the_caller_has_set(nano_file, expected, around, way):
    before = torch.get_default_dtype(), torch.get_default_device()
    with AROUND[around]():
        result = WAYS[way](str(nano_file))
    assert torch.equal(torch.as_tensor(result.masks.data).cpu(), expected[way])
    assert (torch.get_default_dtype(), torch.get_default_device()) == before


def in_every_form(result):
    return result.to_rle(), result.to_coco(), repr(result.to_polygons()), result.plot().tobytes()


@pytest.mark.parametrize("around", AROUND)
def test_results_are_what_they_are_under_whatever_the_caller_has_set(nano_file, tmp_path, around):
    result = SAM(str(nano_file)).predict(IMAGE, bboxes=[BOX], **OVERRIDES)[0]
    expected = in_every_form(result)
    with AROUND[around]():
        assert in_every_form(result) == expected
        result.save_txt(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text()


@pytest.mark.parametrize("around", AROUND)
def test_between_two_results_the_callers_settings_hold(network, around):
    predictor = SAM2Predictor(overrides=OVERRIDES)
    predictor.setup_model(network, verbose=False)
    with AROUND[around]():
        settings = torch.get_default_dtype(), torch.get_default_device(), torch.is_autocast_enabled("cpu")
        for _ in predictor([IMAGE] * 2, bboxes=[BOX], stream=True):
            assert settings == (
                torch.get_default_dtype(),
                torch.get_default_device(),
                torch.is_autocast_enabled("cpu"),
            )


@pytest.mark.parametrize("around", AROUND)
def test_a_network_loaded_under_them_can_be_trained(nano_file, around):
    with AROUND[around]():
        model = SAM(str(nano_file))
    model.model.encode(torch.zeros(1, 3, 128, 128)).image.sum().backward()
    assert {each.dtype for each in model.model.parameters()} == {torch.float32}
