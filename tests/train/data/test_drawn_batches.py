"""Drawn batches: the same whoever draws them, harder ones later, of several sizes, clips among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samplug.data.synthetic import clips, scenes
from samplug.train.data.drawn_batches import DrawnBatches, gather, is_clip_batch
from samplug.train.settings import TrainSettings

SMALL = {"data": "scenes", "batch": 2, "objects": 2, "steps": 6, "epochs": 1, "frames": 3, "level": [0.05, 0.5]}


def drawn(side=64, **changes) -> DrawnBatches:
    return DrawnBatches(TrainSettings.read({**SMALL, **changes}), (side, side))


def test_batches_are_the_same_whoever_draws_them():
    for step in range(5):
        one, other = drawn()[step], drawn()[step]
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("images", "masks", "image_index"))
    one = drawn()[3]
    assert not torch.equal(one.images, drawn()[4].images)
    assert not torch.equal(one.images, drawn(seed=1)[3].images)


def drawn_shape(rng: np.random.Generator, side: int) -> tuple[int, int]:
    short = int(side * rng.uniform(0.5, 1)) if rng.random() < 0.5 else side
    return (short, side) if rng.random() < 0.5 else (side, short)


@pytest.mark.parametrize("step", [0, 4])
def test_images_have_the_pixels_of_older_releases(step):
    """The order in which a batch draws from its generator is that with which the bundled network was trained."""
    rng = np.random.default_rng([7, step])
    side, hardest = 32 * int(rng.integers(2, 3)), 0.05 + 0.45 * step / 6
    images = [scenes.draw(rng, *drawn_shape(rng, side), level=hardest * rng.random()).image for _ in range(2)]
    batch = drawn(seed=7)[step]
    for image, fed in zip(images, batch.images[0], strict=True):
        assert np.array_equal(fed[:, : image.shape[0], : image.shape[1]].permute(1, 2, 0).numpy(), image)


def test_clips_have_the_pixels_of_older_releases():
    rng = np.random.default_rng([7, 1])
    side, hardest = 32 * int(rng.integers(2, 3)), 0.05 + 0.45 / 6
    shape, level = drawn_shape(rng, side), hardest * rng.random()
    clip = clips.draw(rng, *shape, frames=3, level=level, objects=3)
    batch = drawn(seed=7, clips=1.0, objects=3)[1]
    assert np.array_equal(batch.images[:, 0, :, : shape[0], : shape[1]].permute(0, 2, 3, 1).numpy(), clip.images)
    assert np.array_equal(batch.masks[:, : clip.masks.shape[1], : shape[0], : shape[1]].numpy(), clip.masks)


def test_larger_inputs_come_in_smaller_batches_and_some_images_are_padded():
    batches = drawn(96, multi_scale=1 / 3, batch=4, steps=40)
    images = [batches[step].images for step in range(12)]
    assert {tuple(each.shape[1:]) for each in images} == {(9, 3, 64, 64), (4, 3, 96, 96), (2, 3, 128, 128)}
    padded = [(image[:, -1, -1] == 114).all().item() for each in images for image in each[0]]
    assert 0.2 < np.mean(padded) < 0.8


def test_a_padded_scene_keeps_its_pixels_and_masks_at_the_top_left():
    scene = scenes.draw(np.random.default_rng(0), 40, 64)
    batch = gather([scene], len(scene.masks))
    image, masks = batch.images[0, 0].permute(1, 2, 0).numpy(), batch.masks[0].numpy()
    assert np.array_equal(image[:40], scene.image)
    assert np.array_equal(masks[:, :40], scene.masks)
    assert image.shape == (64, 64, 3) and (image[40:] == 114).all() and not masks[:, 40:].any()


def test_scenes_grow_harder_over_the_whole_run(monkeypatch):
    levels = []
    draw = scenes.draw
    monkeypatch.setattr(scenes, "draw", lambda rng, *shape, level: levels.append(level) or draw(rng, *shape, level=0.0))
    batches = drawn(epochs=2, steps=10, batch=20, level=[0.0, 1.0])
    hardest = [max(levels[-20:]) for step in (0, 10, 19) if batches[step]]
    assert hardest[0] == 0 and 0.3 < hardest[1] <= 0.5 < hardest[2] <= 0.95


def test_a_batch_of_clips_has_as_many_objects_whatever_each_clip_has():
    batch = drawn(clips=1.0, batch=24, objects=8, level=0)[0]
    assert batch.images.shape == (3, 6, 3, 64, 64)
    assert batch.image_index.tolist() == [clip for clip in range(6) for _ in range(3)]
    assert batch.masks.shape == (3, 18, 64, 64)
    assert batch.masks[0].flatten(1).any(1).all()


def test_clips_are_spread_evenly_over_a_run():
    assert sum(is_clip_batch(0.3, step) for step in range(100)) == 30
    assert not any(is_clip_batch(0.0, step) for step in range(100))
