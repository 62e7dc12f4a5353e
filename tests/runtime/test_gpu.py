"""What has to hold on a GPU; each body runs on a CPU too, where it is tried out before a GPU comes."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

from functools import partial

import numpy as np
import pytest
import torch
from support.checkpoint_files import TOY_VIT
from support.scarce import (
    DEVICES,
    GPU,
    gpu_or_fake,
    little_memory,
    no_waiting,
    placed,
    prompts_in,
    rows_in,
    said_of_memory,
)
from support.videos import BOXES, Cameras, film

from samplug import SAM, SAM2CameraPredictor, SAM2DynamicInteractivePredictor, SAM2Predictor, SAM2VideoPredictor
from samplug.benchmark.weights import decisive, random_state
from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.masks.iou import paired_mask_iou
from samplug.nn.structs import PromptBatch
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.tracking import Tracker, steps

pytestmark = pytest.mark.gpu

SIZE = 128
CLICKS = [[20, 20], [60, 50], [90, 30], [40, 70]]
QUIET = {"imgsz": SIZE, "verbose": False, "save": False}
FORMS = [
    *(pytest.param("cpu", form, id=f"cpu-{name}") for name, form in {"float32": {}, "bf16": {"bf16": True}}.items()),
    pytest.param("cpu", {"compile": True}, id="cpu-compile", marks=pytest.mark.slow),
    *(
        pytest.param("cuda", form, id=f"cuda-{next(iter(form), 'float32')}", marks=GPU.marks)
        for form in ({}, {"bf16": True}, {"half": True}, {"compile": True}, {"compile": True, "bf16": True})
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A SAM and a SAM 2 in files, whose objects are there in every precision."""
    folder, made = tmp_path_factory.mktemp("networks"), {}
    for name, config in {"sam": TOY_VIT, "sam2": {"variant": "samplug-nano"}}.items():
        network = build(config)
        network.load_state_dict(decisive(random_state(network.state_dict())))
        made[name] = folder / f"{name}.pt"
        save_model(made[name], network, config, dtype=torch.float32)
    return made


# Every predictor in every form


def images_by_prompts(files, images, **how):
    return SAM(files["sam2"]).predict(list(images), points=CLICKS, **QUIET, **how)


def images_by_prompts_of_sam(files, images, **how):
    return SAM(files["sam"]).predict(list(images), points=[[60, 60], [90, 90]], **{**QUIET, **how, "imgsz": 64})


def everything(files, images, **how):
    found = {"conf_thres": 0.0, "stability_score_thresh": 0.0, "iou": 1.0, "points_stride": 3}
    return SAM(files["sam2"]).predict(images[0], outlines="grid", **found, **QUIET, **how)


def a_video(files, images, **how):
    predictor = SAM2VideoPredictor(overrides={"model": files["sam2"], **QUIET, **how})
    return list(predictor(source=film()[:3], points=CLICKS, keep_lost=True, non_overlap=False, stream=True))


def a_camera(files, images, **how):
    camera = SAM2CameraPredictor(overrides={"model": files["sam2"], "keep_lost": True, **QUIET, **how})
    first, *others = film()[:3]
    return [camera.step(first, {7: {"points": CLICKS[0]}}), *map(camera.step, others)]


def shown_and_found(files, images, **how):
    predictor = SAM2DynamicInteractivePredictor(overrides={"model": files["sam2"], "keep_lost": True, **QUIET, **how})
    predictor(images[0], bboxes=BOXES, obj_ids=[7, 3], update_memory=True)
    return [*predictor(images[1]), *predictor(list(images[1:]))]


PREDICTORS = [images_by_prompts, images_by_prompts_of_sam, everything, a_video, a_camera, shown_and_found]


@pytest.fixture(scope="module")
def on_a_cpu(files, images):
    """The results of a predictor in float32 on a CPU, each once."""
    made = {}
    return lambda run: made.setdefault(run, run(files, images, device="cpu"))


@pytest.mark.parametrize(("device", "form"), FORMS)
@pytest.mark.parametrize("run", PREDICTORS, ids=lambda run: run.__name__)
def test_every_predictor_gives_the_masks_of_a_cpu_and_leaves_them_where_it_runs(
    files, images, on_a_cpu, monkeypatch, run, device, form
):
    if device == "cpu":  # there the parts are traced, and run as they are
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    results, expected = run(files, images, device=device, **form), on_a_cpu(run)
    assert [len(result) for result in results] == [len(result) for result in expected]
    for result, right in zip(results, expected, strict=True):
        assert result.masks.data.device.type == result.boxes.data.device.type == device
        assert isinstance(result.numpy().masks.data, np.ndarray) and result.cpu().boxes.data.device.type == "cpu"
        assert len(result) and right.masks.data.any()
        overlap = paired_mask_iou(result.masks.data.cpu(), right.masks.data, empty=1.0)
        assert overlap.median() > (0.8 if form.get("bf16") or form.get("half") else 0.95)


# Many at once


@pytest.mark.parametrize("device", DEVICES)
def test_a_list_of_arrays_is_encoded_at_once_on_a_gpu_and_gives_what_each_gives_alone(
    files, images, device, capture_log
):
    model = SAM(files["sam2"])
    sizes = encoded(model.model)
    together = model.predict(list(images), points=CLICKS[:2], device=device, logits=True, **QUIET)
    assert sizes == ([3] if device == "cuda" else [1, 1, 1])
    for image, result in zip(images, together, strict=True):
        (alone,) = model.predict(image, points=CLICKS[:2], device=device, logits=True, **QUIET)
        assert torch.allclose(alone.logits, result.logits, atol=1e-2)


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", 2), ("cuda", 16), ("cuda:1", 16), ("mps", 16)], ids=lambda value: str(value)
)
def test_a_gpu_encodes_what_came_together_and_a_cpu_what_was_asked_for(device, expected):
    batch = AdaptiveBatch.of_images(torch.device(device), asked=2, given=16)
    assert (batch.size, batch.what) == (expected, "image")
    assert AdaptiveBatch.of_images(torch.device(device), asked=32, given=16).size == 32


@pytest.mark.parametrize("device", DEVICES)
def test_frames_of_streams_and_their_objects_run_together_on_a_gpu(files, device):
    predictor = SAM2VideoPredictor(overrides={"model": files["sam2"], "device": device, "keep_lost": True, **QUIET})
    predictor.setup_model(verbose=False)
    frames, encodings, decodings = film(), encoded(predictor.fp32_model), decoded(predictor.fp32_model)
    streams = Cameras(*(frames[i : i + 3] for i in range(3)))
    results = list(predictor(source=streams, stream=True, points=CLICKS))
    assert len(results) == 9 and all(len(result) == len(CLICKS) for result in results)
    together = device == "cuda"
    assert set(encodings) == ({3} if together else {1})
    assert set(decodings[3 * len(CLICKS) :]) == ({len(CLICKS)} if together else {1})  # after the prompts


def encoded(network):
    """How many images each run of the encoder has."""
    sizes = []
    network.image_encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    return sizes


def decoded(network):
    """How many prompts each run of the decoder has."""
    sizes = []
    decoder = network.sam_mask_decoder
    decoder.register_forward_pre_hook(lambda _, *given: sizes.append(prompts_in(*given)), with_kwargs=True)
    return sizes


# A full GPU


def ready(kind, network, **how):
    predictor = kind(overrides={**QUIET, "logits": True, **how})
    predictor.setup_model(network, verbose=False)
    return predictor


def many_images(network, images, **how):
    return ready(SAM2Predictor, network, batch=8, **how)([images[0]] * 8, points=CLICKS)


def many_prompts(network, images, **how):
    return ready(SAM2Predictor, network, **how)(images[0], points=CLICKS * 16)


def many_objects(network, images, **how):
    predictor = ready(SAM2VideoPredictor, network, keep_lost=True, non_overlap=False, **how)
    return list(predictor(source=film()[:3], points=CLICKS * 4, stream=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("run", "part", "count", "most", "what"),
    [
        (many_images, "image_encoder", rows_in, 4, "4 images at once, not 8"),
        (many_prompts, "sam_mask_decoder", prompts_in, 32, "32 prompts at once, not 64"),
        (many_objects, "memory_encoder.fuser", rows_in, 8, "8 objects at once, not 16"),
    ],
    ids=["images", "prompts", "objects"],
)
def test_where_memory_runs_out_half_as_many_give_the_same(
    files, images, monkeypatch, capture_log, run, part, count, most, what, device
):
    monkeypatch.setattr(steps, "runs_batched", lambda features: True)
    network = load_model(files["sam2"])
    how = {"device": device, **({"imgsz": 512} if device == "cuda" else {})}  # large enough to be seen
    whole = run(network, images, **how)
    with little_memory(device, network.get_submodule(part), count, most, lambda: run(network, images, **how)):
        parts = run(network, images, **how)
    said = said_of_memory(capture_log)
    assert said and (device == "cuda" or said == [f"The GPU's memory is full: going on with {what}."])
    assert len(parts) == len(whole)
    assert all(torch.allclose(a.logits, b.logits, atol=1e-2) for a, b in zip(parts, whole, strict=True))


# Nothing waits


@pytest.fixture
def on_gpu():
    """Makes a network on a GPU, or without values on a device of that name."""
    with torch.device("meta"):
        networks = {"sam": build(TOY_VIT), "sam2": build({"variant": "samplug-nano"})}
    with gpu_or_fake(), torch.inference_mode():
        yield lambda name: placed(networks[name])


def prompt_batch(*kinds, count=3):
    columns = {
        "points": lambda: torch.rand(count, 2, 2, device="cuda") * SIZE,
        "labels": lambda: torch.ones(count, 2, dtype=torch.int64, device="cuda"),
        "boxes": lambda: torch.rand(count, 4, device="cuda") * SIZE,
        "masks": lambda: torch.rand(count, 1, 16, 16, device="cuda"),
    }
    index = torch.zeros(count, dtype=torch.int64, device="cuda")
    return PromptBatch(index, **{kind: columns[kind]() for kind in kinds})


KINDS = (["points", "labels"], ["boxes"], ["points", "labels", "boxes", "masks"])


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_from_an_image_to_logits_nothing_waits_for_the_gpu(on_gpu, name):
    model, pixels = on_gpu(name), torch.zeros(1, 3, 64, 64, device="cuda")
    prompts = [prompt_batch(*kinds) for kinds in KINDS]
    model.answer(model.encode(pixels), prompts[0])  # makes tables that stay
    with no_waiting():
        features = model.encode(pixels)
        answers = [model.answer(features, each, multimask=True) for each in prompts]
    assert all(answer.logits.device.type == "cuda" and len(answer) == 3 for answer in answers)


def test_from_frame_to_frame_of_a_video_nothing_waits_for_the_gpu(on_gpu):
    model = on_gpu("sam2")
    tracker = Tracker(model)
    pixels = torch.zeros(1, 3, 64, 64, device="cuda")

    def step(number):
        tracker.start_frame(number, model.encode_image(pixels))
        for obj_id in range(2) if number == 0 else ():
            tracker.prompt(obj_id, prompt_batch("points", "labels", count=1))
        return tracker.step().output

    step(0)
    with no_waiting():
        output = step(1)
    assert len(output) == 2 and output.logits.device.type == "cuda"
