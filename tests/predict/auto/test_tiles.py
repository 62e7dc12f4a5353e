"""Large images in tiles: what crosses a border comes out once, and whole."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_area

from samplug import SAM, load_model
from samplug.cli import main
from samplug.cli.parse import merge
from samplug.masks.packed import PackedMask
from samplug.predict.auto.merge_tiles import TileMask, drop_duplicates, merge_group, merge_tiles
from samplug.predict.auto.tiles import tile_windows
from samplug.predict.image import Predictor

KEEP_ALL = {"points_stride": 4, "conf_thres": -1.0, "stability_score_thresh": -1.0}


def disc(x, y, radius, shape=(384, 512)):
    return cv2.circle(np.zeros(shape, np.uint8), (x, y), radius, 1, -1).astype(bool)


def plain_discs(discs, rng):
    """Discs of different hues (384, 512, 3) on light ground, a little noisy."""
    image = np.full((384, 512, 3), (200, 210, 190), np.float32)
    for i, one in enumerate(discs):
        image[disc(*one)] = cv2.cvtColor(np.uint8([[[20 * i, 200, 90 + 15 * i]]]), cv2.COLOR_HSV2BGR)[0, 0]
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def scattered(rng, count=9):
    """(x, y, radius) of discs that do not touch each other."""
    discs = []
    while len(discs) < count:
        radius = int(rng.integers(22, 60))
        x, y = (int(rng.integers(radius + 3, side - radius - 3)) for side in (512, 384))
        if all(np.hypot(x - a, y - b) > radius + c + 12 for a, b, c in discs):
            discs.append((x, y, radius))
    return discs


def pairwise_iou(masks, others):
    """(N, M) IoU of masks (N, H, W) and (M, H, W)."""
    a, b = (torch.as_tensor(some).flatten(1).float() for some in (masks, others))
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both)


def seen(mask, frame_tiles, score=0.9):
    """What tiles show of a mask (H, W), one list a tile."""
    return [[found] if (found := tile_mask(mask, tile, score)) else [] for tile in frame_tiles]


def tile_mask(mask, tile, score=0.9):
    left, top, right, bottom = tile
    part = mask[top:bottom, left:right]
    if not part.any():
        return None
    rows, columns = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
    box = int(left + columns[0]), int(top + rows[0]), int(left + columns[-1]), int(top + rows[-1])
    height, width = mask.shape
    edges, frame = (left, top, right - 1, bottom - 1), (0, 0, width - 1, height - 1)
    cut = any(at == edge and at != last for at, edge, last in zip(box, edges, frame, strict=True))
    return TileMask(PackedMask.pack(torch.from_numpy(part), top, left, mask.shape), box, score, 0.9, tile, cut)


@pytest.mark.parametrize("frame", [(100, 100), (384, 512), (1000, 257), (64, 4000)])
@pytest.mark.parametrize("overlap", [0, 0.25, 40, 0.9])
def test_tiles_cover_an_image_and_share_what_was_asked(frame, overlap):
    windows = tile_windows(frame, 256, overlap)
    covered = np.zeros(frame, bool)
    for window in windows:
        left, top, right, bottom = window.box
        assert (bottom - top, right - left) == (min(256, frame[0]), min(256, frame[1]))
        covered[top:bottom, left:right] = True
    assert covered.all()
    shared = overlap if overlap >= 1 else int(256 * overlap)
    lefts = sorted({window.box[0] for window in windows})
    assert all(a + 256 - b >= shared for a, b in zip(lefts, lefts[1:], strict=False))


def test_an_object_in_four_tiles_comes_out_once_and_whole():
    mask = disc(256, 192, 120)
    parts = seen(mask, [window.box for window in tile_windows(mask.shape, 256, 0.25)])
    (one,) = merge_tiles(parts)
    assert sum(map(len, parts)) == 6 and torch.equal(one.mask.unpack(), torch.from_numpy(mask))
    assert one.box == (136, 72, 376, 312) and not one.cut and one.score == pytest.approx(0.9)


def test_a_tile_that_shows_all_of_an_object_is_believed():
    mask, sloppy = disc(240, 100, 30), disc(236, 100, 30)
    whole = tile_mask(mask, (128, 0, 384, 256), 0.7)
    cut = tile_mask(sloppy, (0, 0, 256, 256), 0.99)
    (one,) = merge_tiles([[cut], [whole]])
    assert one is whole and cut.cut


def test_neighbours_across_a_border_stay_two():
    first, second = disc(256, 60, 50), disc(256, 170, 50)
    boxes = [window.box for window in tile_windows(first.shape, 256, 0.25)]
    parts = [a + b for a, b in zip(seen(first, boxes), seen(second, boxes), strict=True)]
    found = merge_tiles(parts)
    assert len(found) == 2
    assert sorted(int(one.mask.area) for one in found) == sorted((int(first.sum()), int(second.sum())))


def test_an_object_takes_one_piece_of_a_tile():
    mask, left, right = disc(200, 100, 90), (0, 0, 256, 256), (128, 0, 384, 256)
    small = disc(170, 100, 70)
    parts = [[tile_mask(mask, left), tile_mask(small, left, 0.5)], [tile_mask(mask, right)]]
    found = merge_tiles(parts)
    assert sorted(one.mask.area for one in found) == sorted((int(mask.sum()), int(small.sum())))


def test_what_is_cut_off_and_repeats_an_object_goes():
    mask, tile = disc(256, 100, 60), (0, 0, 256, 256)
    again = tile_mask(disc(256, 104, 58), tile, 0.5)
    parts = seen(mask, [tile, (128, 0, 384, 256), (256, 0, 512, 256)])
    assert len(merge_tiles([[*parts[0], again], *parts[1:]])) == 1


def test_what_ends_in_its_tile_is_not_taken_for_a_larger_thing():
    small, large = disc(150, 200, 18), disc(330, 200, 54)
    left, lower, right = (0, 0, 256, 256), (0, 130, 256, 384), (128, 0, 384, 256)
    masks = [tile_mask(small, left), tile_mask(small, lower), tile_mask(small | large, right)]
    lowest = replace(masks[1], cut=True)  # for all that tile knows
    found = merge_tiles([[masks[0]], [lowest], [masks[2]]])
    assert sorted(one.mask.area for one in found) == [int(small.sum()), masks[2].mask.area]


def test_a_pixel_is_left_to_the_tile_that_shows_most_around_it():
    boxes = [(0, 0, 120, 60), (60, 0, 200, 60)]
    mask = np.zeros((60, 200), bool)
    mask[20:40, 10:190] = True
    mask[5, 70] = True  # which the second tile misses, close to its border
    first, second = mask.copy(), mask.copy()
    first[5, 110], second[5, 70] = True, False
    masks = [tile_mask(one, box) for one, box in zip((first, second), boxes, strict=True)]
    assert torch.equal(merge_group(masks).mask.unpack(), torch.from_numpy(mask))


def test_repetitions_are_told_by_their_masks_not_by_their_boxes():
    mask = disc(100, 100, 50)
    stray = mask.copy()
    stray[250, 250] = True
    tile = (0, 0, 512, 384)
    masks = [tile_mask(stray, tile, 0.8), tile_mask(mask, tile, 0.9), tile_mask(disc(100, 100, 30), tile, 0.95)]
    assert [found.score for found in drop_duplicates(masks, 0.7)] == [0.95, 0.9]


# ------------------------------------------------------------------ with networks


def test_the_bundled_model_finds_every_disc_once_across_borders():
    rng = np.random.default_rng(3)
    discs = scattered(rng)
    image = plain_discs(discs, rng)
    result = SAM().predict(image, imgsz=256, points_stride=8, tile=256, overlap=64, verbose=False)[0]
    assert result.masks.data.shape[1:] == (384, 512)
    table = pairwise_iou(np.stack([disc(*one) for one in discs]), result.masks.data)
    assert table.amax(1).min() > 0.9
    assert ((table > 0.5).sum(1) == 1).all()


def test_one_tile_that_holds_all_is_the_image_itself(nano_file, images):
    worker = Predictor(overrides={"imgsz": 128, "verbose": False, "save": False, "iou": 1.0})
    worker.setup_model(load_model(nano_file), verbose=False)
    said = {**KEEP_ALL, "rules": "meta", "crop_nms_thresh": 1.0}
    plain, tiled = (worker(images[0], **said, **more)[0] for more in ({}, {"tile": 400}))
    assert len(plain) > 4 and torch.equal(plain.masks.data, tiled.masks.data)
    assert torch.equal(plain.boxes.data, tiled.boxes.data)


@pytest.mark.parametrize("rules", ["ultralytics", "meta"])
def test_tiles_work_by_either_rules_and_clean_up(nano_file, images, rules):
    worker = Predictor(overrides={"imgsz": 64, "verbose": False, "save": False})
    worker.setup_model(load_model(nano_file), verbose=False)
    said = {**KEEP_ALL, "points_stride": 2, "rules": rules, "tile": 128, "overlap": 16}
    for result, image in zip(worker(list(images[1:]), **said), images[1:], strict=True):
        assert len(result) and result.masks.data.shape[1:] == image.shape[:2]
        assert (box_area(result.boxes.xyxy) > 0).all()
    assert len(worker(images[2], **said, min_mask_region_area=40)[0])
    assert len(worker(images[2], **{**said, "conf_thres": 2.0})[0]) == 0


def test_tiles_from_the_shell(nano_file, images, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    words = [f"model={nano_file}", f"source={tmp_path}/a.png", "imgsz=64", "points_stride=2", "tile=128", "overlap=0.3"]
    words += ["conf_thres=-1", "stability_score_thresh=-1", f"project={tmp_path}", "name=out", "save_txt=True"]
    main.samplug(merge(["predict", *words]))
    assert (tmp_path / "out" / "labels" / "a.txt").read_text().strip()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tile": 8}, "tile=8: give a number of pixels, 32 or more"),
        ({"tile": "512x512"}, "tile='512x512'"),
        ({"tile": 64, "overlap": -1}, "overlap=-1"),
        ({"tile": 64, "overlap": 64}, "overlap=64 is no less than tile=64: give fewer pixels"),
    ],
)
def test_tiles_that_cannot_be_are_refused(nano_file, images, said, message):
    with pytest.raises(ValueError, match=message):
        SAM(nano_file).predict(images[0], verbose=False, **said)
