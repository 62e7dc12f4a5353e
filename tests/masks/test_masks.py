"""Mask functions against brute force and against the host's own numbers."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.images import blobs, logits_at_image
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.models.sam import Predictor as StockPredictor
from ultralytics.models.sam.amg import batched_mask_to_box, calculate_stability_score
from ultralytics.utils import ops

from samplug.masks.boxes import mask_box, mask_boxes, outer_boxes
from samplug.masks.exclusive import best_owner
from samplug.masks.iou import box_iou, mask_iou, paired_mask_iou, stability
from samplug.masks.regions import clean_mask, remove_small_regions
from samplug.masks.resize import bilinear_weights, enlarge, resize_to_image
from samplug.nn.inputs import non_overlapping
from samplug.transforms import ImageTransform

VIEWS = [
    ImageTransform((480, 640), (256, 256)),
    ImageTransform((333, 500), (256, 256)),  # the image ends inside a cell
    ImageTransform((500, 333), (256, 192)),
    ImageTransform((41, 700), (256, 256)),
    ImageTransform((30, 20), (256, 256)),  # smaller than the map
    ImageTransform((300, 500), (160, 256), "stretch"),
    ImageTransform((1, 7), (64, 64)),
]


def smooth_logits(count, rows, columns, coarse=5):
    """Random logits whose zero lines are smooth, as a decoder's are."""
    return F.interpolate(torch.randn(count, 1, coarse, coarse), (rows, columns), mode="bicubic")[:, 0] * 8


def of(transform, count=3):
    return smooth_logits(count, transform.input_size[0] // 4, transform.input_size[1] // 4)


def iou_of_pairs(left, right):
    return ((left & right).sum((1, 2)) / (left | right).sum((1, 2)).clamp(min=1)).masked_fill(
        ~(left | right).any(2).any(1), 1
    )


# ------------------------------------------------------------------ to the image's size


@pytest.mark.parametrize("transform", VIEWS, ids=str)
def test_masks_at_the_images_size_equal_the_hosts(transform):
    logits = of(transform)
    ratio = [
        c / n * m / o
        for c, n, m, o in zip(
            transform.content, transform.input_size, logits.shape[1:], transform.image_size, strict=True
        )
    ]
    stock = ops.scale_masks(logits[None], transform.image_size, (ratio, (0, 0)), padding=False)[0]
    assert torch.allclose(logits_at_image(logits, transform), stock, atol=2e-3)
    assert iou_of_pairs(resize_to_image(logits, transform), stock > 0).min() >= 0.9995


def test_masks_are_within_a_fraction_of_a_pixel_of_the_resize_by_way_of_the_network():
    for height, width in np.random.default_rng(0).integers(150, 700, (12, 2)).tolist():
        transform = ImageTransform((height, width), (256, 256))
        logits = of(transform)
        rows, columns = transform.content
        whole = F.interpolate(logits[None], transform.input_size, mode="bilinear")[..., :rows, :columns]
        by_way = F.interpolate(whole, transform.image_size, mode="bilinear")[0] > 0
        ours = resize_to_image(logits, transform)
        different = (ours ^ by_way)[:, 4:-4, 4:-4].numpy()
        border = np.stack(
            [cv2.dilate(m, np.ones((3, 3))) - cv2.erode(m, np.ones((3, 3))) for m in by_way.byte().numpy()]
        )
        assert not (different & (border[:, 4:-4, 4:-4] == 0)).any()
        assert iou_of_pairs(ours, by_way).min() > 0.99


@pytest.mark.parametrize("threshold", [0.0, -3.5, 2.0])
@pytest.mark.parametrize("transform", VIEWS, ids=str)
def test_looking_only_where_a_mask_can_be_loses_no_pixel(transform, threshold):
    logits = of(transform)
    assert torch.equal(resize_to_image(logits, transform, threshold), logits_at_image(logits, transform) > threshold)


def test_chunks_join_without_a_seam():
    transform = VIEWS[1]
    (mask,) = logits = of(transform, 1)
    weights = bilinear_weights(logits.shape[1:], transform, logits.device)
    whole = next(iter(enlarge(mask, *weights, chunk_pixels=10**9)))[1]
    chunks = list(enlarge(mask, *weights, chunk_pixels=1000))
    assert len(chunks) > 100
    assert torch.equal(torch.cat([values for _, values in chunks]), whole)


def test_no_masks_and_empty_masks_have_the_images_size():
    transform = VIEWS[0]
    assert resize_to_image(torch.zeros(0, 64, 64), transform).shape == (0, 480, 640)
    assert not resize_to_image(torch.full((2, 64, 64), -5.0), transform).any()
    assert resize_to_image(torch.full((2, 64, 64), 5.0), transform).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_enlarged_in_full_precision(dtype):
    transform, logits = VIEWS[1], of(VIEWS[1]).to(dtype)
    assert torch.equal(resize_to_image(logits, transform), resize_to_image(logits.float(), transform))


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


def test_a_large_image_needs_little_beside_the_result():
    transform, logits = ImageTransform((2000, 3000), (1024, 1024)), smooth_logits(1, 256, 256)
    with TensorSizes() as made:
        masks = resize_to_image(logits, transform)
    assert max(made.sizes - {masks.numel()}) <= 4 * 2**20


PEAK = """
import ctypes, torch
from samplug.masks.resize import resize_to_image
from samplug.transforms import ImageTransform

def status(name):  # ru_maxrss would begin with what the parent held
    return int(next(line for line in open("/proc/self/status") if name in line).split()[1]) * 1024

yy, xx = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
logits = torch.stack([400 - ((yy - i) ** 2 + (xx - 128) ** 2).sqrt() for i in range(200)])  # on everywhere
ctypes.CDLL(None).malloc_trim(0)  # now, as it would give pages back later
before, code = status("VmRSS"), status("RssFile")
masks = resize_to_image(logits, ImageTransform((4000, 6000), (1024, 1024)))
code -= status("RssFile")  # that the system took back meanwhile
print(status("VmHWM") - before + code - masks.numel(), bool(masks[:, ::999, ::999].all()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_hundred_masks_of_a_large_image_need_little_beside_the_result():
    """200 masks of 4000 x 6000: the process's peak memory above the 4.8 GB of the result."""
    run = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    extra, all_on = run.stdout.split()
    assert all_on == "True"  # pages that nothing is written into take no memory
    assert 0 < int(extra) <= 256 * 2**20


# ------------------------------------------------------------------ boxes and scores


def test_boxes_are_the_first_and_last_pixels_that_are_on():
    masks = torch.rand(20, 13, 17) > 0.97
    masks[3] = False
    expected = []
    for mask in masks:
        ys, xs = np.nonzero(mask.numpy())
        expected.append([xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0])
    assert mask_boxes(masks).tolist() == np.array(expected, float).tolist()
    assert torch.equal(mask_boxes(masks), batched_mask_to_box(masks).float())
    assert mask_boxes(masks).dtype == torch.float32


def test_boxes_of_no_masks_and_of_full_ones():
    assert mask_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)
    assert mask_boxes(torch.ones(1, 4, 6, dtype=torch.bool)).tolist() == [[0, 0, 5, 3]]


def test_boxes_of_a_transposed_stack_are_right_too():
    masks = (torch.rand(17, 13, 5) > 0.9).permute(2, 1, 0)
    assert torch.equal(mask_boxes(masks), mask_boxes(masks.contiguous()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_boxes_of_masks_that_are_not_bool_are_refused(dtype):
    with pytest.raises(TypeError, match="masks > threshold"):
        mask_boxes(torch.ones(1, 4, 4, dtype=dtype))


def test_boxes_take_no_memory_of_the_masks_size():
    masks = torch.rand(8, 200, 300) > 0.9
    with TensorSizes() as made:
        mask_boxes(masks)
    assert max(made.sizes) <= 8 * 300 * 8  # one row of int64 per mask


def test_stability_is_the_iou_at_two_thresholds():
    logits = torch.randn(6, 20, 20) * 3
    expected = []
    for mask in logits.numpy():
        inner, outer = mask > 1.0 + 0.5, mask > 1.0 - 0.5
        expected.append((inner & outer).sum() / (inner | outer).sum())
    assert torch.allclose(stability(logits, 1.0, 0.5), torch.tensor(expected, dtype=torch.float32))
    assert torch.allclose(stability(logits, 0.0, 0.95), calculate_stability_score(logits, 0.0, 0.95))


def test_a_mask_that_is_nowhere_is_not_stable():
    assert stability(torch.full((1, 4, 4), -9.0)).tolist() == [0]


@pytest.mark.parametrize("empty", [0.0, 1.0])
def test_iou_of_masks_is_intersection_over_union(empty):
    masks, others = torch.rand(4, 9, 7) > 0.6, torch.rand(3, 9, 7) > 0.3
    masks[2] = others[2] = False
    shared, union = (op(masks[:, None], others).sum((2, 3)) for op in (torch.logical_and, torch.logical_or))
    assert torch.equal(mask_iou(masks, others), (shared / union).nan_to_num(0))
    assert torch.equal(paired_mask_iou(masks[:3], others, empty), (shared / union).nan_to_num(empty).diagonal())


def test_outer_boxes_enclose_the_last_pixels_and_an_empty_mask_has_none():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 2:4, 3] = True
    assert outer_boxes(masks).tolist() == [[3, 2, 4, 4], [0, 0, 0, 0]]
    assert [mask_box(mask) for mask in masks] == [(3, 2, 3, 3), None]


# ------------------------------------------------------------------ one owner per pixel


def test_each_pixel_is_left_to_its_highest_object():
    logits = torch.randn(4, 9, 9) * 12
    owned = non_overlapping(logits)
    for y in range(9):
        for x in range(9):
            best = int(logits[:, y, x].argmax())
            for i in range(4):
                value = float(logits[i, y, x])
                assert owned[i, y, x] == (value if i == best else min(value, -10))
    assert ((owned > 0).sum(0) <= 1).all()


def test_a_single_object_owns_what_it_claims():
    logits = torch.randn(1, 4, 4)
    assert torch.equal(non_overlapping(logits), logits)


def test_overlapping_masks_are_cut_in_the_order_of_their_scores():
    masks, scores = torch.rand(5, 8, 8) > 0.4, torch.tensor([0.3, 0.9, 0.9, 0.1, 0.5])
    owned = best_owner(masks, scores)
    claims = torch.where(masks, scores[:, None, None], -1)
    expected = (claims.argmax(0) == torch.arange(5)[:, None, None]) & masks
    assert torch.equal(owned, expected)
    assert torch.equal(owned.any(0), masks.any(0))
    assert best_owner(masks[:0], scores[:0]).shape == (0, 8, 8)


# ------------------------------------------------------------------ small regions


def cleaned(masks, **limits):
    limits = {"max_hole": 0, "min_island": 0, **limits}
    return torch.stack([torch.from_numpy(clean_mask(mask, **limits)[0]) for mask in masks.numpy()])


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
    assert torch.equal(cleaned(masks, max_hole=area), expected_fill)
    assert torch.equal(cleaned(masks, min_island=area), expected_drop)


def test_cleaning_leaves_its_input_and_empty_masks_alone():
    masks = torch.stack([blobs(0), torch.zeros(37, 53, dtype=torch.bool)])
    before = masks.clone()
    assert not cleaned(masks, min_island=20)[1].any()
    assert not cleaned(masks, max_hole=20)[1].any()
    assert torch.equal(masks, before)
    remove_small_regions(masks, 20)
    assert torch.equal(masks, before)
    with pytest.raises(TypeError, match="masks > threshold"):
        remove_small_regions(masks.byte(), 20)


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


def test_iou_of_boxes_is_intersection_over_union():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [10, 10, 12, 12], [1, 1, 1, 1]])
    expected = torch.tensor([[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert torch.allclose(box_iou(boxes, boxes), expected)
