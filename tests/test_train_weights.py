"""The network that comes with samplug: the file that was tested, small, and good on plain objects."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest
import torch

from samplug.checkpoints import bundled_path, load_model
from samplug.nn.types import PromptBatch
from samplug.train.asking import BOX, CLICK, best_mask, normalised
from samplug.train.batches import Batch, gather
from samplug.train.check import central_clicks, iou, look, masks_of
from samplug.train.prompting import boxes_around
from samplug.train.scenes import Scene

SHA256 = "1ac0014e49340edb4bad1de4cce5354eecd32d24891da10fb9edf98c5e42e199"


@pytest.fixture(scope="module")
def model():
    return load_model(bundled_path())


def plain_objects(size: int) -> Scene:
    """A red ellipse and a light rectangle on a dull green background."""
    image, masks = np.full((size, size, 3), (96, 140, 92), np.uint8), []
    for draw, colour in ((_ellipse, (190, 50, 40)), (_rectangle, (225, 215, 190))):
        mask = np.zeros((size, size), np.uint8)
        draw(mask, size / 256)
        image[mask > 0] = colour
        masks.append(mask > 0)
    return Scene(image, np.stack(masks), np.full(2, -1))


def _ellipse(mask: np.ndarray, scale: float) -> None:
    centre, axes = (round(90 * scale), round(150 * scale)), (round(60 * scale), round(38 * scale))
    cv2.ellipse(mask, centre, axes, 25, 0, 360, 1, -1)


def _rectangle(mask: np.ndarray, scale: float) -> None:
    cv2.rectangle(mask, (round(165 * scale), round(40 * scale)), (round(230 * scale), round(120 * scale)), 1, -1)


def test_the_file_is_the_one_whose_figures_are_in_its_card():
    assert hashlib.sha256(bundled_path().read_bytes()).hexdigest() == SHA256
    card = json.loads(bundled_path().with_suffix(".json").read_text())
    assert card == {"sha256": SHA256, **torch.load(bundled_path(), weights_only=True)["card"]}
    assert {"network", "legs", "data", "command", "metrics", "licence"} <= set(card)


def test_the_file_is_at_most_12_megabytes_in_half_precision():
    assert bundled_path().stat().st_size <= 12_000_000
    tensors = torch.load(bundled_path(), weights_only=True)["model"].values()
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}


def prompts_of(batch: Batch, kind: str) -> PromptBatch:
    return central_clicks(batch) if kind == CLICK else PromptBatch(batch.owner, boxes=boxes_around(batch.masks[0]))


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("kind", [CLICK, BOX])
def test_a_click_or_a_box_on_a_plain_object_gives_that_object(model, kind, size):
    batch = gather([plain_objects(size)], 2)
    with torch.no_grad():
        answer = model.answer(model.encode(normalised(model, batch.images[0])), prompts_of(batch, kind), multimask=True)
    assert iou(masks_of(best_mask(answer.logits, answer.iou), batch), batch.masks[0]).min() > 0.7


def test_a_box_gives_that_object_when_one_mask_is_asked_for(model):
    batch = gather([plain_objects(256)], 2)
    with torch.no_grad():
        answer = model.answer(model.encode(normalised(model, batch.images[0])), prompts_of(batch, BOX))
    assert iou(masks_of(answer.logits[:, 0], batch), batch.masks[0]).min() > 0.7


def test_the_masks_of_two_clicks_are_different(model):
    """A network that does not hear its prompt gives one mask for all; the first minutes of training sit there."""
    batch = gather([plain_objects(256)], 2)
    points = torch.tensor([[[90.0, 150.0]], [[200.0, 80.0]]])
    prompts = PromptBatch(batch.owner, points=points, labels=torch.ones(2, 1))
    with torch.no_grad():
        logits = model.answer(model.encode(normalised(model, batch.images[0])), prompts).logits[:, 0]
    assert iou(logits[:1] > 0, logits[1:] > 0).item() < 0.1


def test_easy_scenes_are_mostly_right(model):
    found = look(model, 256, level=0.0, count=16)
    assert found["click"] > 0.6
    assert found["box"] > 0.6
