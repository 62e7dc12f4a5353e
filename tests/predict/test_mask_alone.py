"""A mask as the only prompt of an image: the object comes back, also from a network that has not learnt it."""

import cv2
import numpy as np
import pytest
import torch

from samplug import SAM, SAM2Predictor
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.load import load_model, save_model
from samplug.data.synthetic.dataset import drawn_images
from samplug.predict.prediction import SURE_IOU, segment_prompts
from samplug.prompts.objects import Prompts, prompt_batches
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.transforms import ImageTransform

SIZE = (64, 64)
MASK = cv2.circle(np.zeros(SIZE, np.uint8), (30, 28), 14, 1, -1).astype(bool)


@pytest.fixture(scope="module")
def bundled():
    return SAM()


def mean_iou(masks, truths):
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(masks, truths, strict=True)]))


@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (240, 520)])
def test_the_bundled_model_gives_objects_of_drawn_scenes_back(bundled, shape, capture_log):
    ious = []
    for scene in drawn_images(5, level=0.8):
        image = cv2.resize(scene.image[..., ::-1], shape[::-1])
        truths = [cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=0) > 0 for mask in scene.masks[:6]]
        truths = [mask for mask in truths if mask.any()]
        result = bundled.predict(image, masks=np.stack(truths), verbose=False)[0]
        ious.append(mean_iou(result.masks.data.numpy(), truths))
        assert (result.boxes.conf == 1).all()
    assert np.mean(ious) > 0.85


def test_rows_that_it_answers_itself_are_its_own(bundled, images):
    """A click, a box or a hint beside the mask: the network answers."""
    mask = cv2.circle(np.zeros((240, 320), np.uint8), (100, 90), 30, 1, -1).astype(bool)
    said = {"verbose": False, "logits": True}
    for beside in ({"points": [[100, 90]]}, {"bboxes": [[70, 60, 130, 120]]}):
        result = bundled.predict(images[0], masks=mask, **beside, **said)[0]
        assert result.boxes.conf[0] != 1
    mixed = bundled.predict(images[0], masks=[mask, mask], points=[[], [[100, 90]]], **said)[0]
    alone = bundled.predict(images[0], masks=mask, points=[[[100, 90]]], **said)[0]
    assert mixed.boxes.conf[0] == 1 and torch.equal(mixed.logits[1], alone.logits[0])


@pytest.mark.parametrize("multimask", [False, "best", "all"])
def test_every_form_of_answer_has_the_mask(bundled, images, multimask):
    mask = cv2.circle(np.zeros((240, 320), np.uint8), (100, 90), 30, 1, -1).astype(bool)
    result = bundled.predict(images[0], masks=mask, multimask=multimask, verbose=False)[0]
    assert len(result) == (3 if multimask == "all" else 1)
    assert mean_iou(result.masks.data.numpy(), [mask] * len(result)) > 0.9


def test_an_empty_mask_says_that_nothing_is_there(bundled, images):
    assert not bundled.predict(images[0], masks=np.zeros((240, 320), bool), verbose=False)[0].masks.data.any()


def answers(model):
    """What the predictor and the network itself make of a mask, and the predicted IoU."""
    transform, prompts = ImageTransform(SIZE, SIZE), Prompts.read(masks=[MASK], shape=SIZE)
    with torch.inference_mode():
        features = model.encode(torch.randn(1, 3, *SIZE))
        ((_, batch),) = prompt_batches([prompts], [transform])
        own = model.answer(features, batch)
        made = segment_prompts(model, features, [transform], [prompts], False, AdaptiveBatch(8, "prompt"))
    return made.masks[0], own.logits[0, 0], float(own.iou)


def small(variant, **changes):
    """A network of a variant's kind that is unsure of everything."""
    small_trunk = {"embed_dim": 32, "stages": [1, 2, 5, 2], "global_att_blocks": [5, 7], "window_spec": [8, 4, 8, 4]}
    size = {"image_size": 64, "d_model": 64, "mem_dim": 16, "memory_layers": 1, "memory_feedforward": 64}
    model = randomise(build({"variant": variant, **small_trunk, **size, **changes})).eval()
    model.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data -= 20
    return model


@pytest.mark.parametrize("variant", ["sam2_t", "sam2.1_t", "sam2.1_l", "samplug-nano"])
def test_released_networks_answer_by_themselves_however_unsure(variant):
    made, own, iou = answers(small(variant))
    assert iou < SURE_IOU and torch.equal(made, own) == (variant != "samplug-nano")


def test_a_sure_network_is_believed_and_the_config_of_a_file_decides(tmp_path):
    model = small("samplug-nano")
    model.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data += 40
    made, own, iou = answers(model)
    assert iou > SURE_IOU and torch.equal(made, own)
    model = small("samplug-nano", mask_prompts=True)  # trained further, on masks
    save_model(tmp_path / "a.pt", model, model.config)
    made, own, iou = answers(load_model(tmp_path / "a.pt"))
    assert iou < SURE_IOU and torch.equal(made, own)


def test_only_the_bundled_network_has_not_learnt_it():
    rows = {name: getattr(row, "mask_prompts", True) for name, row in VARIANTS.items()}
    assert [name for name, learnt in rows.items() if not learnt] == ["samplug-nano"]


def test_copies_in_other_forms_know_it_too(nano_file, images):
    mask = cv2.circle(np.zeros((240, 320), np.uint8), (100, 90), 30, 1, -1).astype(bool)
    worker = SAM2Predictor(overrides={"save": False, "verbose": False})
    for form in ({}, {"bf16": True}, {"channels_last": True}):
        result = worker(images[0], masks=mask, **form)[0]
        assert result.boxes.conf[0] == 1 and mean_iou(result.masks.data.numpy(), [mask]) > 0.9
