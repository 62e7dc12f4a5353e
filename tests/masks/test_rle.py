"""Run lengths of masks, COCO's and packed ones, lose nothing."""

import numpy as np
import pytest
from support.images import blobs

from samplug.masks.rle import pack, rle_decode, rle_encode, unpack


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
