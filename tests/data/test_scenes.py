"""Procedural images: the same from the same seed, with exact masks."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from samplug.data.synthetic import scenes, shapes, textures


def draw(seed: int, level: float = 1.0, held_out: bool = False, size: int = 96) -> scenes.Scene:
    return scenes.draw(np.random.default_rng(seed), size, size, level=level, held_out=held_out)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_same_seed_draws_the_same_scene_and_another_seed_another(level):
    first, again, other = draw(4, level), draw(4, level), draw(5, level)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("held_out", [False, True])
def test_every_object_is_visible_and_its_image_is_rgb_bytes(held_out):
    for seed in range(12):
        scene = draw(seed, held_out=held_out)
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert scene.masks.dtype == bool
        assert scene.masks.sum((1, 2)).min() >= 12


def test_a_drawing_of_which_nothing_can_be_asked_for_is_drawn_anew(monkeypatch):
    scene = scenes.Painter.scene
    bare = iter([True])

    def first_bare(painter: scenes.Painter, height: int, width: int) -> scenes.Canvas:
        canvas = scene(painter, height, width)
        return scenes.Canvas(canvas.image, np.zeros_like(canvas.top)) if next(bare, False) else canvas

    monkeypatch.setattr(scenes.Painter, "scene", first_bare)
    assert len(draw(3).masks)
    assert next(bare, None) is None


def test_objects_overlap_only_where_one_is_a_part_of_the_other():
    parts = 0
    for seed in range(30):
        for one, other in combinations(draw(seed).masks, 2):
            if (one & other).any():
                parts += 1
                assert not (one & ~other).any() or not (other & ~one).any()
    assert parts > 20


class Recorder(scenes.Canvas):
    """A canvas that keeps what was painted on it."""

    def paint(self, cover, surface):
        self.covers = [*getattr(self, "covers", []), cover > 127]
        return super().paint(cover, surface)


def test_parts_do_not_stick_out_of_their_whole():
    for seed in range(10):
        canvas = Recorder(np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.int16))
        scenes.Painter(np.random.default_rng(seed), 0.5, False).whole_with_parts(canvas)
        whole, *parts = canvas.covers
        assert parts and not any((part & ~whole).any() for part in parts)


def test_pieces_of_background_are_connected_and_crumbs_are_left_out():
    region = np.zeros((50, 50), bool)
    region[:20, :20] = region[30:, 30:] = True
    region[25, 25] = True
    first, second = sorted(scenes._pieces(region), key=lambda piece: piece.argmax())
    assert first[:20, :20].all() and first.sum() == 400
    assert second[30:, 30:].all() and second.sum() == 400


def test_an_object_is_seen_against_what_it_covers():
    """Also where a scene has few surfaces: the surface chosen is another one than the one below."""
    for seed in range(20):
        painter = scenes.Painter(np.random.default_rng(seed), 0.0, False)
        grey, dark = (np.full((32, 32, 3), shade, np.float32) for shade in (0.5, 0.1))
        painter.palette = [grey, dark]
        canvas = scenes.Canvas(grey.copy(), np.zeros((32, 32), np.int16))
        surface = painter.visible(canvas, np.full((32, 32), 255, np.uint8))
        assert np.abs(surface - grey).mean() > 0.05


def test_a_mask_is_what_was_painted():
    canvas = scenes.Canvas(np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.int16))
    below = shapes.fill(
        shapes.place([[np.float32([[-1, -1], [1, -1], [1, 1], [-1, 1]])]], np.array([32, 32]), 32, 0, 1), 64, 64
    )
    above = np.roll(below, 16, axis=1)
    first = canvas.paint(below, np.ones((64, 64, 3), np.float32))
    second = canvas.paint(above, np.full((64, 64, 3), 0.5, np.float32))
    assert np.array_equal(canvas.top == second, above > 127)
    assert np.array_equal(canvas.top == first, (below > 127) & (above <= 127))
    assert np.allclose(canvas.image[canvas.top == second].mean(), 0.5, atol=0.05)


def test_an_easy_scene_has_few_large_objects_and_a_hard_one_many():
    easy, hard = ([draw(seed, level).masks for seed in range(25)] for level in (0.0, 1.0))
    assert np.mean([len(masks) for masks in easy]) < 5 < np.mean([len(masks) for masks in hard])
    easy_area, hard_area = (np.median(np.concatenate([m.mean((1, 2)) for m in masks])) for masks in (easy, hard))
    assert easy_area > 4 * hard_area


@pytest.mark.parametrize("outline", shapes.OUTLINES + shapes.HELD_OUT_OUTLINES, ids=lambda outline: outline.__name__)
def test_a_placed_shape_has_the_area_asked_for(outline):
    """Strokes and creatures have parts that overlap, so they may be smaller; none is larger."""
    for seed in range(8):
        shape = outline(np.random.default_rng(seed))
        cover = shapes.fill(shapes.place(shape, np.array([128, 128]), 40, 0.3, 1.2), 256, 256)
        assert 0.4 < cover.sum(dtype=np.float64) / 255 / 40**2 < 1.2


def test_a_ring_has_a_hole():
    shape = shapes.place(shapes.ring(np.random.default_rng(0)), np.array([64, 64]), 50, 0, 1)
    pieces, _ = cv2.findContours((shapes.fill(shape, 128, 128) > 127).astype(np.uint8), cv2.RETR_CCOMP, 2)
    assert len(pieces) == 2


@pytest.mark.parametrize("texture", textures.TEXTURES + textures.HELD_OUT_TEXTURES, ids=lambda each: each.__name__)
def test_a_texture_is_an_image_of_the_size_asked_for(texture):
    surface = texture(np.random.default_rng(1), 40, 56)
    assert surface.shape == (40, 56, 3)
    assert surface.dtype == np.float32
    assert -0.6 < surface.min() <= surface.max() < 1.6


def test_held_out_families_are_not_among_those_that_training_draws():
    assert not set(shapes.OUTLINES) & set(shapes.HELD_OUT_OUTLINES)
    assert not set(textures.TEXTURES) & set(textures.HELD_OUT_TEXTURES)
