"""Everything beside the generators of Meta and of Ultralytics: the same weights and image, the same masks in order.

A threshold lies in the widest gap between the scores of the lower half, so that rounding moves no mask across it.
"""

import copy

import cv2
import numpy as np
import pytest
import torch
from support.peers import DEVICE, MetaSAM, MetaSAM2, peer_package

from samplug import SAM, load_model
from samplug.benchmark.runners.meta import quiet
from samplug.benchmark.weights import random_checkpoint
from samplug.predict.auto.crops import InputSpace
from samplug.predict.auto.generator import GenerateOptions, generate_masks
from samplug.predict.image import Predictor
from samplug.transforms import ImageTransform

pytestmark = pytest.mark.slow

# Random weights give masks that resemble each other, so boxes count as duplicates from a high overlap on only.
CASES = {
    "all of a grid": {"iou": 1.0},
    "a grid": {"iou": 0.98},
    "crops": {"iou": 0.99, "crop_n_layers": 1, "crop_downscale_factor": 2, "crop_nms_thresh": 0.98},
    "small regions": {"iou": 0.98, "min_mask_region_area": 100},
    "holes filled": {"iou": 1.0, "min_mask_region_area": 100},  # for SAM 2 Meta does that in an extension for CUDA
}
METAS = {  # what Meta calls them
    "iou": "box_nms_thresh",
    "points_stride": "points_per_side",
    "conf_thres": "pred_iou_thresh",
    "stability_score_thresh": "stability_score_thresh",
    "crop_n_layers": "crop_n_layers",
    "crop_downscale_factor": "crop_n_points_downscale_factor",
    "crop_nms_thresh": "crop_nms_thresh",
    "min_mask_region_area": "min_mask_region_area",
}


@pytest.fixture(scope="module")
def bus():
    from ultralytics.utils import ASSETS

    return cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (270, 360), interpolation=cv2.INTER_AREA)


def gap(values):
    """The middle of the widest gap between the numbers of the second quarter."""
    ranked = np.sort(np.asarray(values, np.float64))
    ranked = ranked[len(ranked) // 8 : len(ranked) // 2]
    widest = np.diff(ranked).argmax()
    return float(ranked[widest : widest + 2].mean())


def assert_alike(result, masks, scores, boxes):
    """The same masks, scores and boxes xyxy in the same order."""
    result = result.cpu()
    assert len(result) == len(masks) > 2
    ours, theirs = result.masks.data.numpy(), np.stack(masks).astype(bool)
    overlap = (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))
    assert overlap.min() >= 0.999
    np.testing.assert_allclose(result.boxes.conf, scores, atol=1e-4)
    assert np.abs(result.boxes.xyxy.numpy() - boxes).max() <= 1


# ------------------------------------------------------------------ Meta's


def metas(model, size, **options):
    """A generator of Meta's, with our names of its options."""
    named = {METAS[name]: value for name, value in options.items()}
    if hasattr(model, "mask_decoder"):
        return peer_package("segment_anything").SamAutomaticMaskGenerator(model, **named)
    with quiet():
        made = peer_package("sam2.automatic_mask_generator").SAM2AutomaticMaskGenerator(model, **named)
    made.predictor._bb_feat_sizes = [(size // stride, size // stride) for stride in (4, 8, 16)]
    return made


@pytest.mark.parametrize(
    ("variant", "size", "side", "case"),
    [
        *(("sam2.1_t", 256, 8, case) for case in ("all of a grid", "a grid", "crops")),
        ("sam_b", 1024, 4, "holes filled"),
    ],
)
def test_everything_by_metas_rules_is_metas(variant, size, side, case, bus, tmp_path):
    path = random_checkpoint(variant, tmp_path)
    model = (MetaSAM2 if variant.startswith("sam2") else MetaSAM)(path, size).model
    if not CASES[case].get("crop_n_layers"):
        model.image_encoder = Once(model.image_encoder)
    rgb = np.ascontiguousarray(bus[..., ::-1])
    num_obj_ptr_tokens = metas(model, size, points_stride=side, conf_thres=0.0, stability_score_thresh=0.0, iou=1.0)
    found = num_obj_ptr_tokens.generate(rgb)
    likely = gap([one["predicted_iou"] for one in found])
    firm = gap([one["stability_score"] for one in found if one["predicted_iou"] > likely])
    options = {"points_stride": side, "conf_thres": likely, "stability_score_thresh": firm, **CASES[case]}
    expected = metas(model, size, **options).generate(rgb)
    (result,) = SAM(str(path)).predict(bus, imgsz=size, rules="meta", device=DEVICE, verbose=False, **options)
    left, top, width, height = np.array([one["bbox"] for one in expected]).T
    boxes = np.stack([left, top, left + width, top + height], 1)
    scores = [one["predicted_iou"] for one in expected]
    assert_alike(result, [one["segmentation"] for one in expected], scores, boxes)


class Once(torch.nn.Module):
    """An encoder that is shown one image many times, and looks at it once."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.answer = encoder, None

    def forward(self, pixels):
        self.answer = self.encoder(pixels) if self.answer is None else self.answer
        return copy.deepcopy(self.answer)

    @property
    def img_size(self):
        return self.encoder.img_size


# ------------------------------------------------------------------ Ultralytics'


@pytest.mark.parametrize("case", ["a grid", "crops", "small regions"])
@pytest.mark.parametrize(("variant", "size", "side"), [("sam2.1_t", 256, 8), ("mobile_sam", 256, 8)])
def test_everything_by_ultralytics_rules_is_ultralytics(variant, size, side, case, bus, tmp_path):
    from ultralytics.models import sam

    path = str(random_checkpoint(variant, tmp_path))
    scores, stability = candidates(path, size, side, bus)
    likely = gap(scores)
    firm = gap(stability[scores > likely])
    options = {"points_stride": side, "conf_thres": likely, "stability_score_thresh": firm, **CASES[case]}
    (result,) = SAM(path).predict(bus, imgsz=size, outlines="grid", device=DEVICE, verbose=False, **options)
    kind = sam.SAM2Predictor if variant.startswith("sam2") else sam.Predictor
    overrides = {"model": path, "imgsz": size, "device": str(DEVICE), "conf": 0.0, "verbose": False}
    expected = kind(overrides={**overrides, "iou": options.pop("iou")})(bus, **options)[0].cpu()
    assert_alike(result, expected.masks.data.numpy(), expected.boxes.conf, expected.boxes.xyxy.numpy())


def candidates(path, size, side, image):
    """Scores and stabilities of all masks that a grid of clicks gives."""
    worker = Predictor(overrides={"imgsz": size, "device": DEVICE, "verbose": False, "save": False})
    worker.setup_model(load_model(path), verbose=False)
    worker.set_image(image)
    options = GenerateOptions(points_stride=side, conf_thres=-np.inf, stability_score_thresh=-1.0, iou=1.0)
    with torch.inference_mode():
        space = InputSpace(worker.im, ImageTransform(image.shape[:2], (size, size)))
        found = generate_masks(worker.model, space, options)
    return found.scores.cpu(), found.stability.cpu()
