"""Where points, boxes and masks of a picture lie in the network's input, and their way back."""

import cv2
import numpy as np
import pytest
import torch
from plain_prompts import MASK, SHAPE
from ultralytics.data.augment import LetterBox

from samplug.view import MASK_LOGIT, View


def test_the_view_is_letterbox_to_the_pixel():
    sizes = np.random.default_rng(0).integers(1, 700, (300, 4))
    for height, width, h, w in sizes.tolist():
        picture = np.full((height, width, 1), 255, np.uint8)
        boxed = LetterBox((h, w), auto=False, center=False, padding_value=0, interpolation=cv2.INTER_NEAREST)(
            image=picture
        )
        view = View((height, width), (h, w))
        covered = boxed.reshape(h, w) > 0
        rows, columns = view.content
        assert covered.sum() == rows * columns
        assert covered[:rows, :columns].all()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_coordinates_go_through_the_view_and_back(resize):
    for height, width, h, w in np.random.default_rng(1).integers(16, 3000, (50, 4)).tolist():
        view = View((height, width), (h, w), resize)
        points = torch.rand(7, 2) * torch.tensor([width, height])
        boxes = torch.cat([points * 0.5, points], 1)
        assert torch.allclose(view.points_back(view.points(points)), points, rtol=1e-5, atol=1e-3)
        assert torch.allclose(view.boxes_back(view.boxes(boxes)), boxes, rtol=1e-5, atol=1e-3)
        assert torch.equal(view.boxes(boxes)[:, 2:], view.points(points))


def test_a_letterbox_has_one_gain_and_a_stretch_has_two():
    corner = torch.tensor([64.0, 48.0])
    assert View(SHAPE, (96, 96)).points(corner).tolist() == [96, 72]
    assert View(SHAPE, (96, 96), "stretch").points(corner).tolist() == [96, 96]
    with pytest.raises(ValueError, match="letterbox"):
        View(SHAPE, (96, 96), "squeeze")


def test_boxes_come_back_inside_the_picture():
    assert View(SHAPE, (96, 96)).boxes_back(torch.tensor([-3.0, 3, 200, 90])).tolist() == [0, 2, 64, 48]


def test_a_mask_lies_in_the_view_as_its_picture_does():
    logits = View(SHAPE, (256, 256)).mask(torch.from_numpy(np.where(MASK, 10.0, -10.0)).float())
    assert logits.shape == (64, 64)  # the picture at its own size: 64 / 256 * 4 = 1
    assert torch.equal(logits[:48] > 0, torch.from_numpy(MASK))
    assert torch.allclose(logits[48:], torch.tensor(-10.0))  # padding is off the object
    full = View(SHAPE, (256, 256)).mask(torch.from_numpy(np.where(MASK, 10.0, -10.0)).float(), stride=1)
    assert full.abs().unique().tolist() == [10]  # at the input's size a 0/1 mask is still one


def test_a_mask_of_any_size_means_the_whole_picture():
    large = torch.from_numpy(np.where(MASK, 10.0, -10.0)).float()
    small = large[::2, ::2]
    view = View(SHAPE, (512, 512))
    a, b = view.mask(large) > 0, view.mask(small) > 0
    assert (a & b).sum() / (a | b).sum() > 0.9


def test_logits_of_the_networks_own_size_pass_as_they_are():
    logits = torch.randn(64, 64) * 8
    assert torch.equal(View(SHAPE, (256, 256)).mask(logits), logits)
    assert View(SHAPE, (256, 256)).mask(logits, stride=1).shape == (256, 256)


def test_logits_of_the_pictures_size_keep_their_strength():
    logits = torch.full(SHAPE, 3.0)
    placed = View(SHAPE, (512, 512)).mask(logits)
    assert torch.allclose(placed[:95], torch.tensor(3.0))
    assert torch.allclose(placed[97:], torch.tensor(-10.0))


def test_a_mask_finer_than_the_networks_is_averaged_and_not_sampled():
    stripes = torch.where(torch.arange(64) % 8 < 1, MASK_LOGIT, -MASK_LOGIT).expand(64, 64)
    reduced = View(picture=(64, 64), network=(64, 64)).mask(stripes)
    assert reduced.shape == (16, 16)
    # One column in eight is on: so is an eighth of every neighbourhood, and nowhere half of one.
    assert -MASK_LOGIT < reduced[8, :-1].min() < reduced[8, :-1].max() < 0
    assert abs(reduced.mean() + 0.75 * MASK_LOGIT) < 0.1 * MASK_LOGIT


def test_logits_of_a_large_picture_are_averaged_and_not_sampled():
    logits = torch.zeros(256, 256)
    logits[::8] = 16.0
    reduced = View(picture=(256, 256), network=(64, 64)).mask(logits)
    assert reduced.shape == (16, 16)
    assert abs(reduced.mean() - 2.0) < 0.2
    assert reduced.std() < 0.5
