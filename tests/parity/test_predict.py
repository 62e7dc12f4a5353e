"""A photograph to masks of its own size: our predictors beside the reference ones, the same file and prompts."""

import cv2
import numpy as np
import pytest
import torch
from support.peers import DEVICE, MetaSAM2, peer_package

from samplug import SAM
from samplug.benchmark.weights import random_checkpoint

slow = pytest.mark.slow

# On bus.jpg, 1080 high and 810 wide.
CLICKS = [[330, 600], [700, 250], [120, 900], [600, 980], [60, 300]]
PAIRS = [[click, [810 - click[0], 500]] for click in CLICKS]
BOXES = [[40, 390, 260, 910], [210, 400, 345, 870], [660, 380, 809, 890], [10, 220, 800, 760], [300, 20, 500, 230]]
PROMPTS = {
    "clicks": {"points": CLICKS},
    "clicks with labels": {"points": CLICKS, "labels": [1, 1, 1, 1, 1]},
    "pairs of clicks": {"points": PAIRS, "labels": [[1, 1], [1, 0], [0, 1], [0, 0], [1, 1]]},
    "boxes": {"bboxes": BOXES},
    "one box": {"bboxes": BOXES[0]},
    "boxes and clicks": {"bboxes": BOXES, "points": CLICKS, "labels": [1, 1, 0, 1, 0]},
}
VARIANTS = [
    ("mobile_sam", 256),
    ("sam2.1_t", 256),
    *(
        pytest.param(case, marks=slow)
        for case in (("sam_b", 512), ("mobile_sam", 1024), ("sam2.1_t", 1024), ("sam2_b", 512))
    ),
]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda case: f"{case[0]}-{case[1]}")
def both(request, tmp_path_factory):
    """Our model and Ultralytics' predictor of the same file, and the size of their input."""
    from ultralytics.models import sam

    variant, size = request.param
    path = str(random_checkpoint(variant, tmp_path_factory.mktemp(variant)))
    kind = sam.SAM2Predictor if variant.startswith("sam2") else sam.Predictor
    overrides = {"model": path, "device": str(DEVICE), "conf": 0.0, "verbose": False}
    return SAM(path), kind(overrides={"imgsz": size, **overrides}), size


@pytest.fixture(scope="module")
def bus():
    from ultralytics.utils import ASSETS

    return cv2.imread(str(ASSETS / "bus.jpg"))


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_a_photograph_gives_ultralytics_masks_and_scores(both, bus, prompts):
    assert_alike(*both, bus, **prompts)


def test_an_image_of_another_shape_gives_ultralytics_masks(both, bus):
    assert_alike(*both, np.ascontiguousarray(bus[300:801, 3:]), points=[[400, 250], [90, 333]], labels=[1, 1])


def test_logits_fed_back_give_ultralytics_masks(both, bus):
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, both[2] // 4)] * 2, indexing="ij")
    logits = (10 - 40 * ((rows + 0.3) ** 2 + (columns - 0.1) ** 2))[None].numpy()
    assert_alike(*both, bus, points=[[425, 380]], labels=[1], masks=logits)


def test_three_masks_of_a_click_are_ultralytics_three(both, bus):
    assert_alike(*both, bus, points=CLICKS[:2], labels=[1, 1], multimask_output=True)


def test_scores_below_the_hosts_default_conf_drop_nothing(both, bus):
    ours, _, size = both
    decoder = ours.model.sam_mask_decoder if ours.is_sam2 else ours.model.mask_decoder
    shift = decoder.iou_prediction_head.layers[-1].bias.data
    shift -= 10
    try:
        (result,) = ours.predict(bus, imgsz=size, points=CLICKS, verbose=False)
    finally:
        shift += 10
    assert len(result) == len(CLICKS)
    assert result.boxes.conf.max() < 0.25


def assert_alike(ours, theirs, size, image, **prompts):
    """Rows one by one: the same masks at the image's size, the same scores."""
    mine = ours.predict(image, imgsz=size, device=DEVICE, verbose=False, **prompts)[0].cpu()
    if getattr(theirs, "encoded", None) is not image:  # it encodes an image once, as its users do
        theirs.set_image(image)
        theirs.encoded = image
    expected = theirs(**prompts)[0].cpu()
    assert mine.masks.data.shape == expected.masks.data.shape
    assert (mine.boxes.conf - expected.boxes.conf).abs().max() <= 1e-4
    assert overlaps(mine.masks.data.numpy(), expected.masks.data.numpy()).min() >= 0.999


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of (N, H, W) masks; two empty ones agree."""
    one, other = ours.astype(bool), theirs.astype(bool)
    union = (one | other).sum((1, 2))
    return np.where(union > 0, (one & other).sum((1, 2)) / np.maximum(union, 1), 1.0)


META = [(name, size) for name, size in (("sam2.1_t", 1024), ("sam2_s", 512), ("sam2.1_b", 512))]


@slow
@pytest.mark.parametrize(("variant", "size"), META)
def test_a_stretched_photograph_gives_metas_masks_and_scores(variant, size, bus, tmp_path):
    path = random_checkpoint(variant, tmp_path)
    meta = peer_package("sam2.sam2_image_predictor").SAM2ImagePredictor(MetaSAM2(path, size).model)
    meta._bb_feat_sizes = [(size // stride, size // stride) for stride in (4, 8, 16)]
    meta.set_image(np.ascontiguousarray(bus[..., ::-1]))
    ours = SAM(str(path))
    for box, click, label in zip(BOXES, CLICKS, (1, 1, 0, 1, 0), strict=True):
        for prompt, given in (
            ({"bboxes": [box]}, {"box": np.array(box)}),
            ({"points": [click], "labels": [1]}, {"point_coords": np.array([click]), "point_labels": np.array([1])}),
            (
                {"bboxes": [box], "points": [click], "labels": [label]},
                {"box": np.array(box), "point_coords": np.array([click]), "point_labels": np.array([label])},
            ),
        ):
            mine = ours.predict(bus, imgsz=size, resize="stretch", device=DEVICE, verbose=False, **prompt)[0].cpu()
            masks, scores, _ = meta.predict(**given, multimask_output=False)
            assert abs(mine.boxes.conf[0].item() - scores[0]) <= 1e-4
            assert overlaps(mine.masks.data.numpy(), masks).min() >= 0.999
