"""Where points, boxes and masks of an image lie in the network's input, and their way back."""

import cv2
import numpy as np
import pytest
import torch
from support.prompts import MASK, SHAPE
from ultralytics.data.augment import LetterBox

from samplug.nn.constants import MASK_PROMPT_LOGIT, PIXEL_MEAN, PIXEL_STD
from samplug.transforms import ImageTransform, fit_image, normalise


def test_the_image_lies_where_letterbox_puts_it_to_the_pixel():
    sizes = np.random.default_rng(0).integers(1, 700, (300, 4))
    for height, width, h, w in sizes.tolist():
        image = np.full((height, width, 1), 255, np.uint8)
        boxed = LetterBox((h, w), auto=False, center=False, padding_value=0, interpolation=cv2.INTER_NEAREST)(
            image=image
        )
        transform = ImageTransform((height, width), (h, w))
        covered = boxed.reshape(h, w) > 0
        rows, columns = transform.content
        assert covered.sum() == rows * columns
        assert covered[:rows, :columns].all()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_coordinates_go_to_the_input_and_back(resize):
    for height, width, h, w in np.random.default_rng(1).integers(16, 3000, (50, 4)).tolist():
        transform = ImageTransform((height, width), (h, w), resize)
        points = torch.rand(7, 2) * torch.tensor([width, height])
        boxes = torch.cat([points * 0.5, points], 1)
        assert torch.allclose(transform.boxes_to_image(transform.boxes_to_input(boxes)), boxes, rtol=1e-5, atol=1e-3)
        assert torch.equal(transform.boxes_to_input(boxes)[:, 2:], transform.points_to_input(points))


def test_a_letterbox_has_one_gain_and_a_stretch_has_two():
    corner = torch.tensor([64.0, 48.0])
    assert ImageTransform(SHAPE, (96, 96)).points_to_input(corner).tolist() == [96, 72]
    assert ImageTransform(SHAPE, (96, 96), "stretch").points_to_input(corner).tolist() == [96, 96]
    with pytest.raises(ValueError, match="letterbox"):
        ImageTransform(SHAPE, (96, 96), "squeeze")


def test_boxes_come_back_inside_the_image():
    assert ImageTransform(SHAPE, (96, 96)).boxes_to_image(torch.tensor([-3.0, 3, 200, 90])).tolist() == [0, 2, 64, 48]


def test_a_mask_lies_in_the_input_as_its_image_does():
    logits = ImageTransform(SHAPE, (256, 256)).mask_to_input(torch.from_numpy(np.where(MASK, 10.0, -10.0)).float())
    assert logits.shape == (64, 64)  # the image at its own size: 64 / 256 * 4 = 1
    assert torch.equal(logits[:48] > 0, torch.from_numpy(MASK))
    assert torch.allclose(logits[48:], torch.tensor(-10.0))  # padding is off the object
    full = ImageTransform(SHAPE, (256, 256)).mask_to_input(
        torch.from_numpy(np.where(MASK, 10.0, -10.0)).float(), stride=1
    )
    assert full.abs().unique().tolist() == [10]  # at the input's size a 0/1 mask is still one


def test_a_mask_of_any_size_means_the_whole_image():
    large = torch.from_numpy(np.where(MASK, 10.0, -10.0)).float()
    small = large[::2, ::2]
    transform = ImageTransform(SHAPE, (512, 512))
    a, b = transform.mask_to_input(large) > 0, transform.mask_to_input(small) > 0
    assert (a & b).sum() / (a | b).sum() > 0.9


def test_logits_of_the_networks_own_size_pass_as_they_are():
    logits = torch.randn(64, 64) * 8
    assert torch.equal(ImageTransform(SHAPE, (256, 256)).mask_to_input(logits), logits)
    assert ImageTransform(SHAPE, (256, 256)).mask_to_input(logits, stride=1).shape == (256, 256)


def test_logits_of_the_images_size_keep_their_strength():
    logits = torch.full(SHAPE, 3.0)
    placed = ImageTransform(SHAPE, (512, 512)).mask_to_input(logits)
    assert torch.allclose(placed[:95], torch.tensor(3.0))
    assert torch.allclose(placed[97:], torch.tensor(-10.0))


def test_a_mask_finer_than_the_networks_is_averaged_and_not_sampled():
    stripes = torch.where(torch.arange(64) % 8 < 1, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT).expand(64, 64)
    reduced = ImageTransform(image_size=(64, 64), input_size=(64, 64)).mask_to_input(stripes)
    assert reduced.shape == (16, 16)
    # One column in eight is on: so is an eighth of every neighbourhood, and nowhere half of one.
    assert -MASK_PROMPT_LOGIT < reduced[8, :-1].min() < reduced[8, :-1].max() < 0
    assert abs(reduced.mean() + 0.75 * MASK_PROMPT_LOGIT) < 0.1 * MASK_PROMPT_LOGIT


def test_logits_of_a_large_image_are_averaged_and_not_sampled():
    logits = torch.zeros(256, 256)
    logits[::8] = 16.0
    reduced = ImageTransform(image_size=(256, 256), input_size=(64, 64)).mask_to_input(logits)
    assert reduced.shape == (16, 16)
    assert abs(reduced.mean() - 2.0) < 0.2
    assert reduced.std() < 0.5


@pytest.mark.parametrize(("resize", "dtype"), [("letterbox", np.uint8), ("stretch", np.float32), ("pad", np.float32)])
def test_an_image_is_fitted_where_its_coordinates_say(resize, dtype):
    image = np.zeros((48, 64, 3), np.uint8)
    image[24:, 32:] = 200
    fitted = fit_image(image, (96, 96), resize)
    transform = ImageTransform((48, 64), (96, 96), resize)
    x, y = transform.points_to_input(torch.tensor([40.0, 32.0])).int().tolist()
    assert fitted.shape == (96, 96, 3) and fitted.dtype == dtype and (fitted[y, x] == 200).all()


def test_images_are_normalised_by_the_mean_and_the_deviation():
    mean, std = (torch.tensor(row)[:, None, None] for row in (PIXEL_MEAN, PIXEL_STD))
    rgb = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    assert torch.equal(normalise(rgb), (rgb - mean) / std)
    assert torch.equal(normalise(rgb, mean.half(), std), (rgb - mean.half().float()) / std)
