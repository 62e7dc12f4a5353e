"""What is read off small maps of logits equals what is counted after making them large."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from samplug.masks.raster import Axis, Raster

CELLS = (16, 20)
SHAPES = [(37, 50), (16, 20), (64, 80), (9, 7), (40, 3), (1, 1), (200, 21)]
THRESHOLDS = [(0.0, 0.95), (0.3, 0.2), (-5.0, 1.0), (50.0, 1.0)]  # and how far they move


def maps(count=6, seed=0, cells=CELLS):
    """Maps (N, a, b) of logits: masks of several parts, one on a plain just below nought, an empty and a full one."""
    noise = torch.randn(count, 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    made = 3 * F.interpolate(noise, cells, mode="bicubic")[:, 0]
    made[-3:] = torch.tensor([-20.0, -20.0, 20.0])[:, None, None]
    made[-3, 2:12, 3:17], made[-3, 5:8, 6:9] = -0.5, 5.0
    return made


def large(logits, rows, columns):
    """The maps at the size of the pixels, (N, H, W)."""
    return matrix(rows) @ logits.double() @ matrix(columns).T


def matrix(side):
    """(S, cells): how much of each cell a pixel is made of."""
    made = torch.zeros(len(side), side.cells, dtype=torch.float64)
    for place in range(side.kernel_size):
        made[torch.arange(len(side)), side.start + place] += side.weights[:, place].double()
    return made


def ends(mask):
    """The first and last pixels of a mask that are on, xyxy; zeros where none is."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return [0, 0, 0, 0] if not len(rows) else [int(each) for each in (columns[0], rows[0], columns[-1], rows[-1])]


def sides(shape, way):
    """The pixels of both sides: stretched over all cells, over some of them, or by way of a size in between."""
    if way == "two steps":
        between = [(3 * cells, 2 * cells) for cells in CELLS]  # of so many, the first so many are image
        return [
            Axis.bilinear(pixels, inside, inside).compose(Axis.bilinear(side, cells, cells))
            for pixels, (side, inside), cells in zip(shape, between, CELLS, strict=True)
        ]
    return [
        Axis.bilinear(n, cells if way == "all" else cells - 3.5, cells) for n, cells in zip(shape, CELLS, strict=True)
    ]


@pytest.fixture(params=product(SHAPES, ["all", "some", "two steps"]), ids=str)
def raster(request):
    rows, columns = sides(*request.param)
    return Raster(rows, columns)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_mixed_as_torch_mixes_them(shape):
    logits = maps()
    expected = F.interpolate(logits[None], shape, mode="bilinear")[0]
    torch.testing.assert_close(large(logits, *sides(shape, "all")).float(), expected, rtol=0, atol=1e-4)
    up = F.interpolate(logits[None], [3 * cells for cells in CELLS], mode="bilinear")
    expected = F.interpolate(up[..., : 2 * CELLS[0], : 2 * CELLS[1]], shape, mode="bilinear")[0]
    torch.testing.assert_close(large(logits, *sides(shape, "two steps")).float(), expected, rtol=0, atol=1e-4)


def cropped(raster, one, threshold):
    """The crop of one map (a, b)."""
    return raster.crop_logits(one[None], threshold, torch.tensor([0]))[0]


def drawn(raster, logits, threshold):
    """The masks (N, H, W), each drawn from its crop of logits."""
    masks = torch.zeros(len(logits), *raster.shape, dtype=torch.bool)
    for mask, one in zip(masks, logits, strict=True):
        pixels, top, left = raster.draw_mask(cropped(raster, one, threshold), threshold)
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return masks


@pytest.mark.parametrize("threshold", [threshold for threshold, _ in THRESHOLDS])
def test_masks_are_drawn_from_the_few_cells_that_they_are_made_of(raster, threshold):
    logits = maps()
    above = large(logits, *raster.axes) - threshold
    differ = drawn(raster, logits, threshold) != (above > 0)
    assert not (differ & (above.abs() > 1e-4)).any()


@pytest.mark.parametrize(("threshold", "offset"), THRESHOLDS)
def test_stability_and_boxes_are_those_of_the_masks(raster, threshold, offset):
    logits = maps()
    found = raster.statistics(logits, threshold, offset)
    outer, masks, inner = (drawn(raster, logits, threshold + step) for step in (-offset, 0, offset))
    assert found.boxes.tolist() == [ends(mask) for mask in masks]
    expected = inner.sum((1, 2)).float() / outer.sum((1, 2)).float()
    torch.testing.assert_close(found.stability, expected, rtol=0, atol=0, equal_nan=True)


def test_a_crop_of_logits_is_small_where_the_mask_is():
    logits = torch.full(CELLS, -9.0)
    logits[6:8, 11] = 9.0
    crop = cropped(Raster(*sides((160, 200), "all")), logits, 0.0)
    assert crop.logits.shape == (4, 3) and (crop.top, crop.left) == (5, 10)


def test_crops_are_those_of_the_maps_that_were_chosen():
    logits, one = maps(6), Raster(*sides((37, 50), "all"))
    crops = one.crop_logits(logits, 0.0, torch.tensor([4, 1]))
    for crop, right in zip(crops, (cropped(one, logits[4], 0.0), cropped(one, logits[1], 0.0)), strict=True):
        assert torch.equal(crop.logits, right.logits) and (crop.top, crop.left) == (right.top, right.left)


class Readings(TorchDispatchMode):
    """Counts how often values are read, for which a GPU has to finish first."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += operator in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return operator(*args, **(kwargs or {}))


def test_a_mask_is_cut_out_and_drawn_with_few_looks_at_values():
    """A GPU is waited for twice, for the cells along edges and their pixels; the others are of tables on the CPU."""
    logits, one = maps(6), Raster(*sides((37, 50), "all"))
    with Readings() as readings:
        for crop in one.crop_logits(logits, 0.0, torch.arange(6)):
            one.draw_mask(crop, 0.0)
    assert readings.count <= 6 * 4


def test_statistics_of_many_maps_are_computed_a_few_at_a_time(monkeypatch):
    logits, one = maps(40), Raster(*sides((37, 50), "all"))
    together = one.statistics(logits, 0.0, 1.0)
    monkeypatch.setattr("samplug.masks.raster.CPU_CHUNK_CELLS", 3 * int(np.prod(CELLS)))
    few = one.statistics(logits, 0.0, 1.0)
    assert torch.equal(few.boxes, together.boxes) and torch.allclose(few.stability, together.stability, equal_nan=True)
    assert one.statistics(logits[:0], 0.0, 1.0).boxes.shape == (0, 4)
