"""Masks cleaned: holes filled, islands dropped, one owner a pixel; in images, in videos and everything mode."""

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, film, follow

from samplug import arguments
from samplug.masks.exclusive import resolve_overlaps
from samplug.masks.packed import PackedMasks
from samplug.masks.regions import clean_result_masks
from samplug.predict.image import Predictor
from samplug.predict.results.build import ImageInfo, MaskRows, PostprocessOptions, build_results
from samplug.transforms import ImageTransform

VIEW = ImageTransform((60, 80), (64, 64))


def ragged(count=6, shape=(90, 120), seed=0):
    """Blobs with holes and specks of many sizes, some at the border; the last one empty."""
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), 2.5) for _ in range(count)]
    masks = torch.from_numpy(np.stack(noise) > 0.02)
    masks[-1] = False
    return masks


def without_small_regions(masks, **limits):
    masks = masks.clone()
    clean_result_masks(masks, **limits)
    return masks


def by_opencv(mask, holes, specks):
    """The same of one mask, straight from connected components of the whole image."""
    mask = mask.numpy().copy()
    _, numbers, stats, _ = cv2.connectedComponentsWithStats((~np.pad(mask, 1)).astype(np.uint8), connectivity=8)
    for i, area in enumerate(stats[:, cv2.CC_STAT_AREA]):
        if i not in (0, numbers[0, 0]) and area < holes:
            mask |= (numbers == i)[1:-1, 1:-1]
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    for i, area in enumerate(areas, 1):
        if area < specks and i != 1 + areas.argmax():
            mask &= numbers != i
    return torch.from_numpy(mask)


# ------------------------------------------------------------------ one mask


@pytest.mark.parametrize(("holes", "specks"), [(0, 0), (40, 0), (0, 60), (15, 200), (10**6, 10**6)])
def test_holes_and_specks_are_the_connected_components_of_opencv(holes, specks):
    masks = ragged()
    expected = torch.stack([by_opencv(mask, holes, specks) for mask in masks])
    assert torch.equal(without_small_regions(masks, fill_holes=holes, min_area=specks), expected)
    assert torch.equal(expected, masks) is (holes == specks == 0)


def test_a_limit_below_one_is_a_share_of_the_masks_own_area():
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 2:22, 2:22] = True  # 400 pixels
    mask[0, 5:8, 5:8] = False  # a hole of 9
    mask[0, 30:33, 30:33] = True  # a speck of 9: all are 400
    assert (
        without_small_regions(mask, fill_holes=9 / 400)[0, 6, 6].item() is False
        and without_small_regions(mask, fill_holes=9.1 / 400)[0, 6, 6]
    )
    assert (
        without_small_regions(mask, min_area=9 / 400)[0, 31, 31]
        and not without_small_regions(mask, min_area=9.4 / 400)[0, 31, 31]
    )


def test_true_fills_every_hole_but_not_what_is_open_at_the_border():
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 10:, 5:35] = True
    mask[0, 15:25, 10:30] = False
    mask[0, 30:, 15:25] = False  # between two legs
    filled = without_small_regions(mask, fill_holes=True)[0]
    assert filled[20, 20] and not filled[35, 20]


def test_the_largest_part_stays_however_small():
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 3:5, 3:5] = mask[0, 10, 10] = True
    assert without_small_regions(mask, min_area=100).sum() == 4


@pytest.mark.parametrize("limits", [{"fill_holes": -1}, {"min_area": "many"}, {"non_overlap": "yes"}])
def test_a_limit_that_is_no_number_is_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        arguments.check(limits)


# ------------------------------------------------------------------ rivals


def test_a_filled_hole_is_left_to_the_object_inside_it():
    logits = torch.full((3, 16, 16), -4.0)
    logits[0, 2:14, 2:14] = 4.0
    logits[0, 6:10, 6:10] = -1.0
    logits[1, 7:9, 7:9] = 2.0
    masks = torch.nn.functional.interpolate(logits[None], (64, 64), mode="bilinear")[0] > 0
    transform = ImageTransform((64, 64), (64, 64))
    clean_result_masks(masks, fill_holes=True)
    both = masks.any(0)
    apart = resolve_overlaps(masks, logits, torch.ones(3), transform)
    assert apart[1, 32, 32] and not apart[0, 32, 32] and apart[0, 26, 26]
    assert torch.equal(apart.any(0), both) and not (apart.sum(0) > 1).any()


def test_a_pixel_is_left_to_nobody_who_does_not_claim_it():
    logits = torch.full((3, 16, 16), -4.0)
    for i, inside in enumerate((-1.0, -2.0)):  # two rings, whose common hole is filled
        logits[i, 2:14, 2:14] = 4.0
        logits[i, 6:10, 6:10] = inside
    logits[2, 7:9, 7:9] = -0.5
    masks = torch.nn.functional.interpolate(logits[None], (64, 64), mode="bilinear")[0] > 0
    clean_result_masks(masks, fill_holes=True)
    both = masks.any(0)
    apart = resolve_overlaps(masks, logits, torch.ones(3), ImageTransform((64, 64), (64, 64)))
    assert apart[0, 32, 32] and torch.equal(apart.any(0), both)


def test_masks_that_are_cut_already_go_by_score():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :5] = masks[1, 3:] = True
    apart = resolve_overlaps(
        masks.clone(), PackedMasks.pack(masks), torch.tensor([0.5, 0.9]), ImageTransform((8, 8), (8, 8))
    )
    assert apart[1, 3:].all() and apart[0, :3].all() and not apart[0, 3:].any()


def test_rows_that_are_left_out_take_no_pixels_from_others():
    logits = torch.full((2, 16, 16), 3.0)
    logits[0] = 5.0
    rows = MaskRows(logits, torch.tensor([0.2, 0.9]), torch.tensor([0, 1]), {0: "a", 1: "b"}, torch.tensor([4, 9]))
    shown = ImageInfo(np.zeros((60, 80, 3), np.uint8), "x.png", VIEW)
    result, chosen = build_results(rows, shown, PostprocessOptions(conf=0.5, non_overlap=True))
    assert chosen.tolist() == [1] and result.boxes.id.tolist() == [9] and result.masks.data.all()
    result, chosen = build_results(rows, shown, PostprocessOptions(non_overlap=True, keep_empty=False))
    assert chosen.tolist() == [0] and result.masks.data.all()


# ------------------------------------------------------------------ end to end


def run(network, image, **said):
    worker = Predictor(overrides={"imgsz": 128, "verbose": False, "save": False, "iou": 1.0})
    worker.setup_model(network, verbose=False)
    (result,) = worker(source=image, **said)
    return result


@pytest.mark.parametrize("prompts", [{"bboxes": [BOX, [40, 25, 100, 70]]}, {"points_stride": 4, "conf_thres": 0}])
def test_images_are_tidied_prompted_or_not(network, images, prompts):
    if "points_stride" in prompts:
        prompts = {**prompts, "stability_score_thresh": 0}
    plain, clean = (run(network, images[0], **prompts, **more) for more in ({}, {"fill_holes": 30, "min_area": 0.1}))
    assert torch.equal(clean.masks.data, without_small_regions(plain.masks.data, fill_holes=30, min_area=0.1))
    assert not torch.equal(clean.masks.data, plain.masks.data)
    apart = run(network, images[0], **prompts, non_overlap=True).masks.data
    assert (plain.masks.data.sum(0) > 1).any() and not (apart.sum(0) > 1).any()
    assert torch.equal(apart.any(0), plain.masks.data.any(0))


def test_videos_are_tidied_and_memory_is_left_as_it_is(network):
    said = {"source": film()[:3], "bboxes": [BOX, [40, 25, 100, 70]]}
    plain, clean = (list(follow(network, **said, **more)) for more in ({}, {"fill_holes": 0.5, "min_area": 0.2}))
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(plain, clean, strict=True))
    changed = [without_small_regions(result.masks.data, fill_holes=0.5, min_area=0.2) for result in plain]
    assert all(torch.equal(a, b.masks.data) for a, b in zip(changed, clean, strict=True))
    assert not all(torch.equal(a.masks.data, b) for a, b in zip(plain, changed, strict=True))
