"""Mask functions against brute force and against the host's own numbers."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import logits_at_picture
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.models.sam import Predictor as StockPredictor
from ultralytics.models.sam.amg import batched_mask_to_box, calculate_stability_score
from ultralytics.utils import ops

from samplug.masks import (
    best_owner,
    box_overlap,
    boxes_of,
    drop_islands,
    enlarge,
    fill_holes,
    one_owner,
    remove_small_regions,
    resize_to_picture,
    stability,
    taps_of,
)
from samplug.rle import pack, rle_decode, rle_encode, unpack
from samplug.view import View

VIEWS = [
    View((480, 640), (256, 256)),
    View((333, 500), (256, 256)),  # the picture ends inside a cell
    View((500, 333), (256, 192)),
    View((41, 700), (256, 256)),
    View((30, 20), (256, 256)),  # smaller than the map
    View((300, 500), (160, 256), "stretch"),
    View((1, 7), (64, 64)),
]


def smooth_logits(count, rows, columns, coarse=5):
    """Random logits whose zero lines are smooth, as a decoder's are."""
    return F.interpolate(torch.randn(count, 1, coarse, coarse), (rows, columns), mode="bicubic")[:, 0] * 8


def of(view, count=3):
    return smooth_logits(count, view.network[0] // 4, view.network[1] // 4)


def overlap(left, right):
    return ((left & right).sum((1, 2)) / (left | right).sum((1, 2)).clamp(min=1)).masked_fill(
        ~(left | right).any(2).any(1), 1
    )


def blobs(seed, height=37, width=53, speckle=0.08):
    """Masks with holes and islands of many sizes."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 3) > 0
    return torch.from_numpy(noise ^ (rng.random((height, width)) < speckle))


# ------------------------------------------------------------------ to the picture's size


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_masks_at_the_pictures_size_equal_the_hosts(view):
    logits = of(view)
    ratio = [
        c / n * m / o for c, n, m, o in zip(view.content, view.network, logits.shape[1:], view.picture, strict=True)
    ]
    stock = ops.scale_masks(logits[None], view.picture, (ratio, (0, 0)), padding=False)[0]
    assert torch.allclose(logits_at_picture(logits, view), stock, atol=2e-3)
    assert overlap(resize_to_picture(logits, view), stock > 0).min() >= 0.9995


def test_masks_are_within_a_fraction_of_a_pixel_of_the_resize_by_way_of_the_network():
    for height, width in np.random.default_rng(0).integers(150, 700, (12, 2)).tolist():
        view = View((height, width), (256, 256))
        logits = of(view)
        rows, columns = view.content
        whole = F.interpolate(logits[None], view.network, mode="bilinear")[..., :rows, :columns]
        by_way = F.interpolate(whole, view.picture, mode="bilinear")[0] > 0
        ours = resize_to_picture(logits, view)
        different = (ours ^ by_way)[:, 4:-4, 4:-4].numpy()
        border = np.stack(
            [cv2.dilate(m, np.ones((3, 3))) - cv2.erode(m, np.ones((3, 3))) for m in by_way.byte().numpy()]
        )
        assert not (different & (border[:, 4:-4, 4:-4] == 0)).any()
        assert overlap(ours, by_way).min() > 0.99


@pytest.mark.parametrize("threshold", [0.0, -3.5, 2.0])
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_looking_only_where_a_mask_can_be_loses_no_pixel(view, threshold):
    logits = of(view)
    assert torch.equal(resize_to_picture(logits, view, threshold), logits_at_picture(logits, view) > threshold)


def test_bands_join_without_a_seam():
    view = VIEWS[1]
    (mask,), taps = of(view, 1), taps_of(of(view, 1), view)
    whole = next(iter(enlarge(mask, *taps, band=10**9)))[1]
    bands = list(enlarge(mask, *taps, band=1000))
    assert len(bands) > 100
    assert torch.equal(torch.cat([values for _, values in bands]), whole)


def test_no_masks_and_empty_masks_have_the_pictures_size():
    view = VIEWS[0]
    assert resize_to_picture(torch.zeros(0, 64, 64), view).shape == (0, 480, 640)
    assert not resize_to_picture(torch.full((2, 64, 64), -5.0), view).any()
    assert resize_to_picture(torch.full((2, 64, 64), 5.0), view).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_enlarged_in_full_precision(dtype):
    view, logits = VIEWS[1], of(VIEWS[1]).to(dtype)
    assert torch.equal(resize_to_picture(logits, view), resize_to_picture(logits.float(), view))


class TensorSizes(TorchDispatchMode):
    """Collects the bytes of every tensor that operations make."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
            self.sizes.add(result.nbytes)
        return result


def test_a_large_picture_needs_little_beside_the_result():
    view, logits = View((2000, 3000), (1024, 1024)), smooth_logits(1, 256, 256)
    with TensorSizes() as made:
        masks = resize_to_picture(logits, view)
    assert max(made.sizes - {masks.numel()}) <= 4 * 2**20


PEAK = """
import resource, torch
from samplug.masks import resize_to_picture
from samplug.view import View

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

yy, xx = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
logits = torch.stack([60 - ((yy - i) ** 2 + (xx - 128) ** 2).sqrt() for i in range(200)])
before = peak()
masks = resize_to_picture(logits, View((4000, 6000), (1024, 1024)))
print(peak() - before - masks.numel())
"""


@pytest.mark.slow
def test_two_hundred_masks_of_a_large_picture_need_little_beside_the_result():
    """200 masks of 4000 x 6000: the process's peak memory above the 4.8 GB of the result."""
    extra = int(subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout)
    assert extra <= 256 * 2**20


# ------------------------------------------------------------------ boxes and scores


def test_boxes_are_the_first_and_last_pixels_that_are_on():
    masks = torch.rand(20, 13, 17) > 0.97
    masks[3] = False
    expected = []
    for mask in masks:
        ys, xs = np.nonzero(mask.numpy())
        expected.append([xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0])
    assert boxes_of(masks).tolist() == np.array(expected, float).tolist()
    assert torch.equal(boxes_of(masks), batched_mask_to_box(masks).float())
    assert boxes_of(masks).dtype == torch.float32


def test_boxes_of_no_masks_and_of_full_ones():
    assert boxes_of(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)
    assert boxes_of(torch.ones(1, 4, 6, dtype=torch.bool)).tolist() == [[0, 0, 5, 3]]


def test_boxes_of_a_transposed_stack_are_right_too():
    masks = (torch.rand(17, 13, 5) > 0.9).permute(2, 1, 0)
    assert torch.equal(boxes_of(masks), boxes_of(masks.contiguous()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_boxes_of_masks_that_are_not_bool_are_refused(dtype):
    with pytest.raises(TypeError, match="masks > threshold"):
        boxes_of(torch.ones(1, 4, 4, dtype=dtype))


def test_boxes_take_no_memory_of_the_masks_size():
    masks = torch.rand(8, 200, 300) > 0.9
    with TensorSizes() as made:
        boxes_of(masks)
    assert max(made.sizes) <= 8 * 300 * 8  # one row of int64 per mask


def test_stability_is_the_overlap_at_two_thresholds():
    logits = torch.randn(6, 20, 20) * 3
    expected = []
    for mask in logits.numpy():
        inner, outer = mask > 1.0 + 0.5, mask > 1.0 - 0.5
        expected.append((inner & outer).sum() / (inner | outer).sum())
    assert torch.allclose(stability(logits, 1.0, 0.5), torch.tensor(expected, dtype=torch.float32))
    assert torch.allclose(stability(logits, 0.0, 0.95), calculate_stability_score(logits, 0.0, 0.95))


def test_a_mask_that_is_nowhere_is_not_stable():
    assert stability(torch.full((1, 4, 4), -9.0)).tolist() == [0]


# ------------------------------------------------------------------ one owner per pixel


def test_each_pixel_is_left_to_its_highest_object():
    logits = torch.randn(4, 9, 9) * 12
    owned = one_owner(logits)
    for y in range(9):
        for x in range(9):
            best = int(logits[:, y, x].argmax())
            for i in range(4):
                value = float(logits[i, y, x])
                assert owned[i, y, x] == (value if i == best else min(value, -10))
    assert ((owned > 0).sum(0) <= 1).all()


def test_a_single_object_owns_what_it_claims():
    logits = torch.randn(1, 4, 4)
    assert torch.equal(one_owner(logits), logits)


def test_overlapping_masks_are_cut_in_the_order_of_their_scores():
    masks, scores = torch.rand(5, 8, 8) > 0.4, torch.tensor([0.3, 0.9, 0.9, 0.1, 0.5])
    owned = best_owner(masks, scores)
    claims = torch.where(masks, scores[:, None, None], -1)
    expected = (claims.argmax(0) == torch.arange(5)[:, None, None]) & masks
    assert torch.equal(owned, expected)
    assert torch.equal(owned.any(0), masks.any(0))
    assert best_owner(masks[:0], scores[:0]).shape == (0, 8, 8)


# ------------------------------------------------------------------ small regions


def flooded(mask):
    """8-connected parts of a bool array, each as a set of pixels, found by walking."""
    left = set(map(tuple, np.argwhere(mask)))
    while left:
        edge, part = [left.pop()], set()
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        yield part


@pytest.mark.parametrize("area", [0, 1, 5, 30, 10**6])
def test_holes_are_filled_and_islands_dropped_as_walking_the_pixels_finds_them(area):
    masks = torch.stack([blobs(0), blobs(1), blobs(2, speckle=0.3)])
    expected_fill, expected_drop = masks.clone(), torch.zeros_like(masks)
    for i, mask in enumerate(masks.numpy()):
        for part in flooded(~mask):
            if len(part) < area:
                expected_fill[i][tuple(np.array(list(part)).T)] = True
        parts = list(flooded(mask))
        for part in [part for part in parts if len(part) >= area] or [max(parts, key=len)]:
            expected_drop[i][tuple(np.array(list(part)).T)] = True
    assert torch.equal(fill_holes(masks, area), expected_fill)
    assert torch.equal(drop_islands(masks, area), expected_drop)


def test_cleaning_leaves_its_input_and_empty_masks_alone():
    masks = torch.stack([blobs(0), torch.zeros(37, 53, dtype=torch.bool)])
    before = masks.clone()
    assert not drop_islands(masks, 20)[1].any()
    assert not fill_holes(masks, 20)[1].any()
    assert torch.equal(masks, before)
    with pytest.raises(TypeError, match="masks > threshold"):
        fill_holes(masks.byte(), 20)


def test_small_regions_go_and_duplicates_with_them_as_in_the_host():
    base = torch.zeros(40, 60, dtype=torch.bool)
    base[5:30, 5:40] = True
    holed = base.clone()
    holed[10:12, 10:12] = False
    apart = base.roll(18, 1)
    masks = torch.stack([holed, base, apart, blobs(3, 40, 60), holed])
    for min_area in (0, 3, 10, 50):
        ours, keep = remove_small_regions(masks, min_area, 0.7)
        stock, stock_keep = StockPredictor.remove_small_regions(masks, min_area, 0.7)
        assert keep.tolist() == stock_keep.tolist()
        assert torch.equal(ours, stock.bool())
    assert 1 in remove_small_regions(masks, 10)[1]  # the one that needed no change is preferred to what it became
    assert 0 not in remove_small_regions(masks, 10)[1]


def test_a_hole_is_filled_before_its_ring_is_measured():
    ring = torch.zeros(1, 20, 20, dtype=torch.bool)
    ring[0, :12, :12] = True
    ring[0, 15:18, 15:18] = True
    ring[0, 16, 16] = False  # eight pixels around one
    masks, _ = remove_small_regions(ring, 9)
    assert masks[0, 15:18, 15:18].all()


def test_no_masks_keep_none():
    masks, keep = remove_small_regions(torch.zeros(0, 5, 5, dtype=torch.bool), 10)
    assert masks.shape == (0, 5, 5)
    assert (keep.shape, keep.dtype) == ((0,), torch.int64)


def test_box_overlap_is_intersection_over_union():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [10, 10, 12, 12], [1, 1, 1, 1]])
    expected = torch.tensor([[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert torch.allclose(box_overlap(boxes), expected)


# ------------------------------------------------------------------ run lengths


def test_run_lengths_by_hand():
    mask = np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]], bool)
    # column by column: 0 0 1 | 1 1 1 | 1 0 0, so two off, five on, two off
    assert rle_encode(mask, compressed=False) == {"size": [3, 3], "counts": [2, 5, 2]}
    # five bits a character from "0" (48): 2 is "2", 5 is "5"
    assert rle_encode(mask) == {"size": [3, 3], "counts": "252"}


def test_packed_numbers_by_hand():
    # 40 = 8 + 32 * 1: low five bits 8, more to come (8 + 32 + 48 = 88, "X"), then 1 ("1").
    # 17 = 0b10001 alone would read as negative, so a 0 follows: 17 + 32 + 48 = 97, "a", then "0".
    # The fourth count is written as its change since the second: 10 - 17 = -7, 0b11001 + 48 = 73, "I".
    assert pack([40, 17, 3, 10]) == "X1a03I"
    assert unpack("X1a03I") == [40, 17, 3, 10]
    assert unpack(b"X1a03I") == [40, 17, 3, 10]


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_lose_nothing(compressed):
    full, empty = np.ones((7, 9), bool), np.zeros((7, 9), bool)
    large = np.zeros((600, 900), bool)
    large[100:500, 100:800] = True
    large[200:300, 200:300] = False
    for mask in [
        full,
        empty,
        full[:1],
        full[:, :1],
        large,
        blobs(0).numpy(),
        blobs(1, speckle=0.5).numpy(),
        blobs(2).T.numpy(),
    ]:
        rle = rle_encode(mask, compressed)
        assert isinstance(rle["counts"], str if compressed else list)
        assert np.array_equal(rle_decode(rle), mask)


def test_a_full_mask_starts_with_a_run_of_none():
    assert rle_encode(np.ones((2, 2)), compressed=False)["counts"] == [0, 4]
    assert rle_encode(np.zeros((2, 2)), compressed=False)["counts"] == [4]


def test_run_lengths_that_do_not_fill_their_size_are_refused():
    for counts in ([3], [5], [6, -2], "1"):
        with pytest.raises(ValueError, match="do not fill"):
            rle_decode({"size": [2, 2], "counts": counts})
    with pytest.raises(ValueError, match="one \\(H, W\\) mask at a time"):
        rle_encode(np.zeros((1, 2, 2)))
