"""Batches of a user's data set: the pixels that predictors feed, the objects of every layout, equal for equal seeds."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.datasets import (
    BLOCK,
    HEIGHT,
    LAYOUTS,
    OTHER,
    UNCHANGED,
    coco,  # noqa: F401
    davis,  # noqa: F401
    folder_of,
    sav,
    save_index,
    settings,
)
from support.images import draw
from support.networks import drawn

from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.data.arrays import read_image
from samplug.data.open import open_data
from samplug.predict.image import Predictor
from samplug.train.data.augment import Augmentation, vanishes
from samplug.train.data.image_cache import ImageCache
from samplug.train.data.user_batches import UserBatches
from samplug.train.settings import TrainSettings
from samplug.transforms import normalise

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

SIZE = (64, 64)


NETWORKS = {
    "sam2": lambda: drawn().eval(),
    "mobile_sam": lambda: randomise(build({"variant": "mobile_sam"})),
}


@pytest.mark.parametrize("size", [(128, 128), (96, 160)], ids=["square", "rectangle"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_pixels_of_a_batch_are_those_that_a_predictor_feeds(tmp_path, name, size):
    data = open_data(folder_of(tmp_path, *(draw(*shape, 1) for shape in ((97, 256), (200, 150), (128, 128)))))
    network = NETWORKS[name]()
    predictor = Predictor(overrides={"imgsz": list(size), "save": False, "verbose": False, "device": "cpu"})
    predictor.setup_model(network, verbose=False)
    batch = UserBatches(data, settings(batch=3), size)[0]
    fed = normalise(batch.images[0], network.pixel_mean, network.pixel_std)
    for row, key in enumerate(batch.keys):
        predictor.set_image(key)
        assert torch.equal(fed[row : row + 1], predictor.im)
        height, width = batch.sizes[row].tolist()
        assert (batch.images[0, row, :, height:] == 114).all() and (batch.images[0, row, :, :, width:] == 114).all()
        assert not batch.masks[0, batch.image_index == row, height:].any()


def test_masks_lie_where_the_image_shows_the_objects():
    image = np.zeros((360, 560, 3), np.uint8)
    cv2.ellipse(image, (240, 200), (160, 100), 30, 0, 360, (255, 255, 255), -1)
    mask = image[..., 0] > 0
    rng, drawn_settings = np.random.default_rng(0), settings(fliplr=0.5, flipud=0.5, scale=0.5, translate=0.2)
    seen = set()
    for _ in range(40):
        augmentation = Augmentation.draw(drawn_settings, rng)
        seen.add((augmentation.fliplr, augmentation.flipud, augmentation.zoom > 1))
        shown = augmentation.fit_image(image, (128, 128))[..., 0] > 127  # what lies outside the image is 114
        truth = augmentation.fit_mask(mask, (128, 128))
        assert (shown & truth).sum() > 0.96 * (shown | truth).sum()
        centres = [np.argwhere(each).mean(0) for each in (shown, truth)]
        assert np.abs(centres[0] - centres[1]).max() < 0.25
    assert len(seen) == 8


def test_colours_change_inside_the_image_alone():
    image = draw(60, 120, 0)
    changed = Augmentation(gains=(1.0, 1.0, 0.5)).fit_image(image, (64, 64))
    assert (changed[32:] == 114).all()
    assert changed[:32].mean() == pytest.approx(image.mean() / 2, rel=0.03)


def test_an_object_vanishes_when_no_decoders_pixel_is_more_than_half_on_it():
    mask = np.zeros((64, 64), bool)
    assert vanishes(mask)
    mask[2:6, 2:6] = True  # a quarter of four pixels each
    assert vanishes(mask)
    mask[4:8, 4:8] = True
    assert not vanishes(mask)
    line = np.zeros((64, 64), bool)
    line[10:12] = True
    assert vanishes(line)


def test_a_batch_follows_from_the_seed_and_the_step_alone(tmp_path):
    data = open_data(folder_of(tmp_path, *(draw(60, 80, seed) for seed in range(5))))
    changing = settings(batch=2, **{name: TrainSettings.defaults()[name] for name in UNCHANGED})
    batches = UserBatches(data, changing, SIZE)
    assert len(batches) == 3
    in_order = [batches[step] for step in range(6)]
    other = pickle.loads(pickle.dumps(batches))
    for step in (5, 0, 3):
        assert torch.equal(other[step].images, in_order[step].images)
        assert torch.equal(other[step].masks, in_order[step].masks)
    keys = [key for batch in in_order[:3] for key in batch.keys]
    assert len(keys) == 6 and len(set(keys)) == 5  # every image once, the last batch filled up
    assert [batch.keys for batch in in_order[:3]] != [batch.keys for batch in in_order[3:]]
    one = replace(data, images=data.images.subset([0]))
    first, other = (UserBatches(one, replace(changing, seed=seed), SIZE) for seed in (0, 1))
    for changed in (first[1], other[0]):
        assert not torch.equal(changed.images, first[0].images)
    assert not torch.equal(first[0].images[:, 0], first[0].images[:, 1])


def test_objects_are_drawn_anew_each_time_and_no_more_than_asked_for(tmp_path):
    index = np.repeat(np.arange(1, 17).reshape(4, 4), 16, 0).repeat(16, 1)
    save_index(tmp_path / "masks" / "a.png", index)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), draw(64, 64, 0))
    batches = UserBatches(open_data(tmp_path), settings(objects=3), SIZE)
    drawn_objects = [batches[step].masks[0] for step in range(40)]
    assert all(len(masks) == 3 and not masks.sum(0).max() > 1 for masks in drawn_objects)
    assert torch.stack(drawn_objects).flatten(0, 1).any(0).all()  # all of them sooner or later


def test_void_is_ignored_and_no_object(tmp_path):
    data = open_data(folder_of(tmp_path, draw(64, 64, 0), void=True))
    batch = UserBatches(data, settings(), SIZE)[0]
    assert batch.ignore.shape == (1, 1, 64, 64)
    assert batch.ignore[0, 0, 56:].all() and not batch.ignore[0, 0, :56].any()
    assert len(batch.masks[0]) == 2 and not batch.masks[..., 56:, :].any()


def test_crowds_of_coco_are_ignored(coco):
    batch = UserBatches(open_data(coco), settings(objects=9), SIZE)[0]
    assert torch.equal(batch.ignore[0, 0, :HEIGHT], torch.from_numpy(BLOCK)) and len(batch.masks[0]) == 4


@pytest.mark.host
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_objects_of_every_layout_are_the_same_batch(tmp_path, layout):
    data = open_data(LAYOUTS[layout](tmp_path, BLOCK, OTHER))
    batch = UserBatches(data, settings(frames=2), SIZE)[0]
    first = batch.masks[0][:, :HEIGHT].numpy()
    expected = {BLOCK.tobytes(), OTHER.tobytes()}
    assert {mask.tobytes() for mask in first} == expected
    assert torch.equal(batch.images[0, 0, :, :HEIGHT], torch.from_numpy(read_image(batch.keys[0])).permute(2, 0, 1))


def test_a_clip_has_annotated_frames_in_a_row_and_objects_of_its_first(davis):
    batches = UserBatches(open_data(davis), settings(frames=2, batch=2), SIZE)
    batch = batches[0]
    assert batch.images.shape == (2, 2, 3, 64, 64) and batch.image_index.tolist() == [0, 1]
    names = [key.split("/")[-2:] for key in batch.keys]
    assert [name[1] for name in names] == ["00000.jpg"] * 2 + ["00001.jpg"] * 2 and names[0][0] == names[2][0]
    bear = 0 if names[0][0] == "bear" else 1
    assert torch.equal(batch.masks[0, bear, :HEIGHT], torch.from_numpy(BLOCK))
    assert batch.ignore[1, bear, 0].all() and not batch.ignore[0].any() and not batch.ignore[1, 1 - bear].any()


def test_sav_annotates_every_fourth_frame_and_an_absent_object_has_an_empty_mask(tmp_path):
    batch = UserBatches(open_data(sav(tmp_path, BLOCK)), settings(frames=3), SIZE)[0]
    assert [key[-9:] for key in batch.keys] == ["00000.jpg", "00004.jpg", "00008.jpg"]
    assert batch.masks.any((2, 3)).tolist() == [[True], [False], [True]]


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_images_that_are_kept_are_decoded_once(tmp_path, monkeypatch, kind):
    data = open_data(folder_of(tmp_path, draw(60, 80, 0), draw(60, 80, 1)))
    expected = UserBatches(data, settings(batch=2), SIZE)[0]
    batches = UserBatches(data, settings(batch=2, cache=kind), SIZE)
    assert torch.equal(batches[0].images, expected.images)
    monkeypatch.setattr("samplug.train.data.image_cache.read_image", lambda path: pytest.fail("it is decoded again"))
    assert torch.equal(batches[0].images, expected.images)
    assert kind == "ram" or isinstance(ImageCache(on_disk=True).read(data.images.keys[0]), np.memmap)
