"""Outlines: Ultralytics' reader draws the mask again, pixel by pixel."""

import cv2
import numpy as np
import pytest

from samplug.data.outlines import outlines_of, yolo_rows


def random_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 200, 2))
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), float(rng.uniform(0.3, 12)))
    return noise > np.quantile(noise, rng.uniform(0.1, 0.95))


def read_back(rows, shape, reader):
    """As Ultralytics reads a line: xy scaled to the image, made whole numbers, filled."""
    mask = np.zeros(shape, np.uint8)
    for row in rows:
        points = np.array(row.split()[1:], np.float32).reshape(-1, 2) * np.array(shape[::-1], np.float32)
        cv2.fillPoly(mask, [reader(points).astype(np.int32)], 1)
    return mask.astype(bool)


@pytest.mark.parametrize("reader", [np.trunc, np.round], ids=["truncating", "rounding"])
@pytest.mark.parametrize("seed", range(40))
def test_a_mask_with_holes_and_parts_comes_back_pixel_by_pixel(seed, reader):
    mask = random_mask(seed)
    assert np.array_equal(read_back(yolo_rows(mask, 3), mask.shape, reader), mask)


def test_ultralytics_own_reader_draws_the_same():
    from ultralytics.data.utils import polygon2mask

    for seed in range(10):
        mask = random_mask(seed)
        rows = [np.array(row.split()[1:], np.float32).reshape(-1, 2) for row in yolo_rows(mask, 0)]
        drawn = sum(polygon2mask(mask.shape, [(row * mask.shape[::-1]).ravel()]) for row in rows)
        assert np.array_equal(drawn > 0, mask)


@pytest.mark.parametrize(
    "pixels",
    [
        [(2, 3)],
        [(2, 3), (2, 4), (2, 5)],
        [(1, 1), (2, 2), (3, 3)],
        [(0, 0), (0, 7), (9, 0), (9, 7)],
        [(y, x) for y in range(10) for x in range(8)],
        [(y, x) for y in range(10) for x in range(8) if (y, x) != (5, 4)],
    ],
    ids=["a pixel", "a line", "a diagonal", "corners", "all", "a hole of one pixel"],
)
def test_small_and_large_masks_come_back(pixels):
    mask = np.zeros((10, 8), bool)
    mask[tuple(np.transpose(pixels))] = True
    assert np.array_equal(read_back(yolo_rows(mask, 0), mask.shape, np.trunc), mask)


def test_nothing_has_no_outline():
    assert outlines_of(np.zeros((5, 5), bool)) == [] and yolo_rows(np.zeros((5, 5), bool), 0) == []


def test_a_straight_edge_has_no_vertex_between_its_ends():
    mask = np.zeros((20, 30), bool)
    mask[4:12, 5:25] = True
    assert sorted(map(tuple, outlines_of(mask)[0].tolist())) == [(5, 4), (5, 11), (24, 4), (24, 11)]
