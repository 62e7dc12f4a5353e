"""Everything's outlines: smooth by default, at the image's own size; on the network's grid on request."""

import cv2
import numpy as np
import pytest
import torch
from support.images import draw

from samplug import SAM, SAM2Predictor
from samplug.checkpoints.load import BUNDLED, load_model

ANY = {"conf_thres": -1.0, "stability_score_thresh": -1.0, "iou": 1.0, "crop_nms_thresh": 1.0, "imgsz": 128}
SIZES = {"wide": (240, 320), "tall": (333, 200), "tiny": (40, 64), "square": (128, 128), "odd": (101, 257)}


def everything(network, images, **options):
    worker = SAM2Predictor(overrides={"verbose": False, "save": False, **ANY, "points_stride": 3, **options})
    worker.setup_model(network, verbose=False)
    return worker(images)


def corners(mask):
    """Corners a pixel of a mask's outlines: many on smooth slanted ones, few on steps of several pixels."""
    outlines, _ = cv2.findContours(mask.numpy().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    steps = np.concatenate([np.diff(each[:, 0], axis=0) for each in outlines if len(each) > 2])
    return np.abs(np.diff(steps, axis=0)).any(1).mean()


def discs(height, width):
    """Three discs, one of them small."""
    image = np.full((height, width, 3), 110, np.uint8)
    side = min(height, width)
    for x, y, r, colour in (
        (0.3, 0.3, 0.2, (40, 190, 70)),
        (0.75, 0.7, 0.15, (190, 60, 40)),
        (0.2, 0.8, 0.08, (9, 9, 220)),
    ):
        cv2.circle(image, (round(x * width), round(y * height)), round(r * side), colour, -1)
    return image


def overlap(one, other):
    return float((one & other).sum() / max(1, (one | other).sum()))


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_of_everything_is_the_prompted_one(network, size):
    image = draw(*SIZES[size], 1)
    height, width = image.shape[:2]
    worker = SAM2Predictor(overrides={"verbose": False, "save": False, **ANY})
    worker.setup_model(network, verbose=False)
    found = worker(image, point_grids=[np.array([[0.5, 0.5]])])[0]
    asked = worker(image, points=[[width / 2, height / 2]], multimask="all")[0]
    for mask, score in zip(found.masks.data, found.boxes.conf, strict=True):
        same = (asked.boxes.conf - score).abs().argmin()
        assert overlap(mask, asked.masks.data[same]) > 0.99


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [0, 1])
def test_boxes_fit_masks_and_the_grids_masks_are_about_the_same(size, layers):
    network, image = load_model(BUNDLED), discs(*SIZES[size])
    said = {"crop_n_layers": layers, "imgsz": 256, "points_stride": 6, "crop_nms_thresh": 0.9}
    smooth, grid = (everything(network, image, outlines=each, **said)[0] for each in ("smooth", "grid"))
    assert len(smooth) and smooth.masks.data.flatten(1).any(1).all()
    for mask, box in zip(smooth.masks.data, smooth.boxes.xyxy, strict=True):
        rows, columns = mask.nonzero().T
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    likely = [max(overlap(mask, other) for other in grid.masks.data) for mask in smooth.masks.data]
    assert np.median(likely) > 0.9, likely


def test_a_large_images_outlines_have_no_steps(network):
    image = draw(960, 1280, 1)
    options = {}, {"outlines": "smooth"}, {"outlines": "grid"}
    default, smooth, grid = (everything(network, image, **said)[0] for said in options)
    assert torch.equal(default.masks.data, smooth.masks.data)
    assert corners(smooth.masks.data[0]) > 1.5 * corners(grid.masks.data[0])


BATCHED = [{}, {"rules": "meta"}, {"tile": 160}, {"outlines": "grid"}, {"min_mask_region_area": 20}]


@pytest.mark.parametrize("options", BATCHED, ids=str)
def test_images_of_several_sizes_in_one_batch_are_answered_as_each_alone(network, options):
    images = [draw(240, 320, 1), draw(150, 90, 2)]
    for image, result in zip(images, everything(network, images, **options), strict=True):
        (alone,) = everything(network, image, **options)
        assert torch.equal(alone.masks.data, result.masks.data) and torch.allclose(alone.boxes.data, result.boxes.data)


def test_an_unknown_kind_is_refused(nano_file):
    with pytest.raises(ValueError, match="outlines='round'"):
        SAM(nano_file).predict(draw(60, 60, 1), outlines="round")
