"""The network that comes with samplug: the file that was tested, small, and good on plain objects."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.checkpoint_files import digest

from samplug.checkpoints.load import bundled_path, load_model
from samplug.data.clicks import next_click
from samplug.data.synthetic.dataset import drawn_images
from samplug.data.synthetic.scenes import Scene
from samplug.masks.boxes import outer_boxes
from samplug.masks.iou import paired_mask_iou
from samplug.nn.structs import PromptBatch
from samplug.train.data.batches import Batch
from samplug.train.data.drawn_batches import gather
from samplug.train.losses.prompts import best_mask, one_click
from samplug.transforms import normalise
from samplug.val.images import ImageProtocol, evaluate_images

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
    return Scene(image, np.stack(masks))


def _ellipse(mask: np.ndarray, scale: float) -> None:
    centre, axes = (round(90 * scale), round(150 * scale)), (round(60 * scale), round(38 * scale))
    cv2.ellipse(mask, centre, axes, 25, 0, 360, 1, -1)


def _rectangle(mask: np.ndarray, scale: float) -> None:
    cv2.rectangle(mask, (round(165 * scale), round(40 * scale)), (round(230 * scale), round(120 * scale)), 1, -1)


def test_the_file_is_the_one_whose_figures_are_in_its_card():
    assert digest(bundled_path()) == SHA256
    card = json.loads(bundled_path().with_suffix(".json").read_text())
    assert card == {"sha256": SHA256, **torch.load(bundled_path(), weights_only=True)["card"]}
    assert {"network", "legs", "data", "command", "metrics", "licence"} <= set(card)


def test_the_file_is_at_most_12_megabytes_in_half_precision():
    assert bundled_path().stat().st_size <= 12_000_000
    tensors = torch.load(bundled_path(), weights_only=True)["model"].values()
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}


def prompts_of(batch: Batch, kind: str) -> PromptBatch:
    if kind == "box":
        return PromptBatch(batch.image_index, boxes=outer_boxes(batch.masks[0]))
    clicks = [next_click(None, mask) for mask in batch.masks[0].numpy()]
    return one_click(batch.image_index, torch.tensor([(click.x, click.y) for click in clicks], dtype=torch.float32))


def masks_of(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Masks (N, H, W) at the image's size of logits (N, h, w)."""
    size = batch.masks.shape[-2:]
    return F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0] > 0


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("kind", ["click", "box"])
def test_a_click_or_a_box_on_a_plain_object_gives_that_object(model, kind, size):
    batch = gather([plain_objects(size)], 2)
    with torch.no_grad():
        answer = model.answer(model.encode(normalise(batch.images[0])), prompts_of(batch, kind), multimask=True)
    assert paired_mask_iou(masks_of(best_mask(answer.logits, answer.iou), batch), batch.masks[0]).min() > 0.7


def test_a_box_gives_that_object_when_one_mask_is_asked_for(model):
    batch = gather([plain_objects(256)], 2)
    with torch.no_grad():
        answer = model.answer(model.encode(normalise(batch.images[0])), prompts_of(batch, "box"))
    assert paired_mask_iou(masks_of(answer.logits[:, 0], batch), batch.masks[0]).min() > 0.7


def test_the_masks_of_two_clicks_are_different(model):
    """A network that ignores its prompt gives one mask for all; the first minutes of training sit there."""
    batch = gather([plain_objects(256)], 2)
    points = torch.tensor([[[90.0, 150.0]], [[200.0, 80.0]]])
    prompts = PromptBatch(batch.image_index, points=points, labels=torch.ones(2, 1))
    with torch.no_grad():
        logits = model.answer(model.encode(normalise(batch.images[0])), prompts).logits[:, 0]
    assert paired_mask_iou(logits[:1] > 0, logits[1:] > 0).item() < 0.1


def test_easy_scenes_are_mostly_right(model):
    found = evaluate_images(model, drawn_images(16, level=0.0), (256, 256), ImageProtocol(clicks=1, objects=3)).means()
    assert found["click1"] > 0.6
    assert found["box"] > 0.6
