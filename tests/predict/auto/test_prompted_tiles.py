"""Prompts on large images in tiles: answered at full resolution around each, brought back whole and in order."""

import cv2
import numpy as np
import pytest
import torch

from samplug import SAM, PromptError, SAM2Predictor
from samplug.errors import EmbeddingError
from samplug.predict.auto import prompted_tiles
from samplug.predict.auto.prompted_tiles import at_image, best_window, extent, in_window
from samplug.predict.auto.tiles import tile_windows
from samplug.prompts.objects import Prompts
from samplug.transforms import ImageTransform

SHAPE = (1100, 1500)
SMALL = [(120, 130, 16), (700, 500, 20), (380, 384, 18), (1400, 1010, 22), (760, 120, 14)]  # x, y, radius
LARGE = (1020, 640, 260)


def disc(x, y, radius, shape):
    return cv2.circle(np.zeros(shape, np.uint8), (x, y), radius, 1, -1).astype(bool)


def box_of(x, y, radius):
    return [x - radius, y - radius, x + radius, y + radius]


@pytest.fixture(scope="module")
def large():
    """An image of small discs and one that is larger than a tile (1100, 1500, 3)."""
    rng = np.random.default_rng(3)
    image = np.full((*SHAPE, 3), (200, 210, 190), np.float32)
    for i, one in enumerate([LARGE, *SMALL]):
        image[disc(*one, SHAPE)] = 30 * i, 200 - 25 * i, 60 + 20 * i
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def ious(result, discs):
    masks = result.masks.data.numpy()
    truths = [disc(*one, SHAPE) for one in discs]
    return [float((mask & truth).sum() / (mask | truth).sum()) for mask, truth in zip(masks, truths, strict=True)]


@pytest.fixture(scope="module")
def bundled():
    return SAM()


@pytest.mark.parametrize("kind", ["bboxes", "points"])
def test_small_objects_of_a_large_image_are_segmented_as_in_an_image_of_their_own(bundled, large, kind):
    prompts = (
        {"bboxes": [box_of(*one) for one in SMALL]} if kind == "bboxes" else {"points": [one[:2] for one in SMALL]}
    )
    said = {**prompts, "imgsz": 256, "verbose": False}
    whole, tiled = (ious(bundled.predict(large, **said, **more)[0], SMALL) for more in ({}, {"tile": 256}))
    assert min(tiled) > 0.85 and min(tiled) > max(whole)


def test_an_object_larger_than_a_tile_comes_out_whole(bundled, large):
    discs = [SMALL[0], LARGE, SMALL[3]]
    result = bundled.predict(large, bboxes=[box_of(*one) for one in discs], tile=256, imgsz=256, verbose=False)[0]
    assert min(ious(result, discs)) > 0.85 and result.boxes.cls.tolist() == [0, 1, 2]


def predictor_of(network, **overrides):
    made = SAM2Predictor(overrides={"imgsz": 64, "verbose": False, "save": False, **overrides})
    made.setup_model(network, verbose=False)
    return made


MASK = disc(100, 80, 30, (240, 320))
KINDS = {
    "points": {"points": [[[20, 30], [60, 70]], [[200, 120]]], "labels": [[1, 0], [1]]},
    "boxes": {"bboxes": [[20, 30, 120, 140], [100, 60, 300, 200]]},
    "both": {"bboxes": [[20, 30, 120, 140], None], "points": [[[40, 50]], [[200, 100]]]},
    "masks": {"masks": [MASK, MASK.T[:240, :240]]},
    "all": {"points": [[40, 40], [200, 120]], "multimask": "all"},
    "best": {"points": [[40, 40], [200, 120]], "multimask": "best"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_tile_that_holds_all_answers_as_the_image_itself(network, images, kind):
    worker = predictor_of(network)
    whole, tiled = (worker(images[0], **KINDS[kind], **more)[0] for more in ({}, {"tile": 400}))
    assert torch.equal(whole.masks.data, tiled.masks.data) and torch.equal(whole.boxes.data, tiled.boxes.data)
    assert whole.prompt_index.tolist() == tiled.prompt_index.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [32, 64, 100])
def test_every_prompt_has_its_rows_in_order_whatever_the_tiles(network, images, kind, tile):
    worker = predictor_of(network)
    whole, tiled = (worker(images[0], **KINDS[kind], **more)[0] for more in ({}, {"tile": tile, "overlap": 8}))
    assert tiled.masks.data.shape == whole.masks.data.shape
    assert tiled.prompt_index.tolist() == whole.prompt_index.tolist()
    assert tiled.boxes.cls.tolist() == whole.boxes.cls.tolist()


def test_only_tiles_with_a_prompt_are_encoded_and_each_once(bundled, large, monkeypatch):
    sizes = []
    encode = bundled.model.encode
    monkeypatch.setattr(bundled.model, "encode", lambda im: sizes.append(len(im)) or encode(im))
    boxes = [box_of(*one) for one in (SMALL[0], SMALL[1], (150, 150, 10))]
    bundled.predict(large, bboxes=boxes, tile=256, imgsz=256, verbose=False)
    assert sizes == [1, 1]


def test_several_images_of_any_size_have_their_own_tiles(network, images):
    worker = predictor_of(network, batch=3)
    wishes = [{"bboxes": [20, 30, 60, 60]}, None, {"points": [[9, 9], [30, 40]]}]
    results = worker(list(images), prompts=wishes, tile=64)
    assert [len(result) for result in results] == [1, 0, 2]
    for result, image, wish in zip(results, images, wishes, strict=True):
        assert result.masks.data.shape[1:] == image.shape[:2]
        if wish:
            alone = predictor_of(network)(image, prompts=wish, tile=64)[0]
            assert torch.equal(alone.masks.data, result.masks.data)


def test_an_answer_can_be_fed_back(network, images):
    worker = predictor_of(network)
    logits = worker(images[0], points=[[60, 80]], logits=True)[0].logits
    whole, tiled = (worker(images[0], points=[[60, 80]], masks=logits, **more)[0] for more in ({}, {"tile": 400}))
    assert (whole.masks.data == tiled.masks.data).float().mean() > 0.95


@pytest.mark.parametrize(
    ("more", "error", "hint"),
    [
        ({"overlap": 64}, ValueError, "no less than tile"),
        ({"logits": True, "strict": True}, PromptError, "logits"),
    ],
)
def test_what_tiles_cannot_do_is_said(network, images, more, error, hint):
    with pytest.raises(error, match=hint):
        predictor_of(network)(images[0], points=[[60, 80]], tile=64, **more)


def test_an_embedding_is_of_the_whole_image(network, images):
    embedding = predictor_of(network).embed(images[0])
    with pytest.raises(EmbeddingError, match="tile=64"):
        predictor_of(network)(images[0], points=[[60, 80]], embedding=embedding, tile=64)


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        ([5, 5, 20, 20], (0, 0, 100, 100)),
        ([0, 0, 0, 0], (0, 0, 100, 100)),
        ([299, 199, 299, 199], (200, 100, 300, 200)),
        ([120, 20, 130, 40], (67, 0, 167, 100)),
        ([10, 10, 120, 20], None),
    ],
)
def test_the_tile_with_the_widest_margin_is_chosen(around, expected):
    windows = [window.box for window in tile_windows((200, 300), 100, 0.25)]
    chosen = best_window(around, windows, (200, 300))
    assert (None if chosen is None else windows[chosen]) == expected


def test_prompts_move_into_a_window_with_all_their_parts():
    mask = disc(50, 40, 10, (200, 300))
    (prompt,) = Prompts.read(points=[[[45, 50], [60, 44]]], bboxes=[[40, 30, 61, 51]], masks=[mask]).objects
    assert extent(prompt) == [40, 30, 61, 51]
    inside = in_window(prompt, (30, 20, 130, 120))
    assert inside.points.tolist() == [[15, 30], [30, 24]] and inside.box.tolist() == [10, 10, 31, 31]
    assert ((inside.mask > 0).numpy() == mask[20:120, 30:130]).all()


def test_masks_of_another_size_are_brought_to_the_images_first():
    transform = ImageTransform((200, 300), (64, 64))
    half = disc(75, 50, 20, (100, 150))
    (prompt,) = Prompts.read(masks=[half]).objects
    whole = at_image(prompt, transform).mask
    assert whole.shape == (200, 300) and set(whole.unique().tolist()) == {-10.0, 10.0}
    truth = disc(150, 100, 40, (200, 300))
    assert ((whole > 0).numpy() & truth).sum() / ((whole > 0).numpy() | truth).sum() > 0.95


def test_an_answer_that_a_border_cuts_off_is_asked_again_in_a_larger_tile(bundled, large, monkeypatch):
    seen = []
    encode = bundled.model.encode
    monkeypatch.setattr(bundled.model, "encode", lambda im: seen.append(len(im)) or encode(im))
    monkeypatch.setattr(prompted_tiles, "may_continue", lambda box, window, size: window[2] - window[0] < size[1])
    bundled.predict(large, points=[SMALL[1][:2]], tile=256, imgsz=256, verbose=False)
    assert len(seen) == 4  # 256, 512, 1024 and the whole
