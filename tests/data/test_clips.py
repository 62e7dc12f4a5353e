"""Drawn clips: exact masks, things that move, hide, leave and return, whatever the number of frames."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from samplug.data.synthetic import clips, motion, painting, scenes, shapes, textures
from samplug.data.synthetic.painting import Layer
from samplug.data.synthetic.sprites import SpriteMaker

SIDE = 96


class Film(painting.Film):
    """A film that tells where things are behind others, and which objects its clip follows."""

    def __init__(self, *how):
        self.followed = []
        super().__init__(*how)
        Film.last = self

    def visible(self, layers, frames=slice(None)):
        self.followed += [layers] if frames == slice(None) else []
        return super().visible(layers, frames)

    def amodal(self, layers) -> np.ndarray:
        """Bool (T, H, W): where one of the layers is, whatever lies over it."""
        made = np.zeros(self.top.shape, bool)
        for canvas, covers in zip(made, self._covers, strict=True):
            for window, cover in (covers[layer] for layer in layers if layer in covers):
                canvas[window] |= cover > 127
        return made


@pytest.fixture(autouse=True)
def films(monkeypatch):
    monkeypatch.setattr(clips, "Film", Film)


def drawn(seed: int, **how) -> SimpleNamespace:
    """A clip, with each object as if nothing were in front of it; the image's border still cuts it."""
    clip = clips.draw(np.random.default_rng(seed), SIDE, SIDE + 32, **how)
    film, followed = Film.last, [*Film.last.followed]
    forwards = all(np.array_equal(film.visible(each), clip.masks[:, i]) for i, each in enumerate(followed))
    amodal = np.stack([film.amodal(layers)[:: 1 if forwards else -1] for layers in followed], 1)
    return SimpleNamespace(images=clip.images, masks=clip.masks, amodal=amodal)


def returns(there: np.ndarray) -> bool:
    """Whether bool (T,) is on, off for two or more in a row, and on again."""
    runs = np.split(there, np.flatnonzero(np.diff(there)) + 1)
    return any(not run[0] and len(run) >= 2 for run in runs[1:-1])


def several(count: int, **how) -> list[SimpleNamespace]:
    return [drawn(seed, **how) for seed in range(count)]


def absent(many: list[SimpleNamespace]) -> float:
    return float(np.concatenate([~clip.masks.any((2, 3)).ravel() for clip in many]).mean())


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_the_same_seed_draws_the_same_clip_and_another_seed_another(level):
    one, other = drawn(3, level=level), drawn(3, level=level)
    for part in ("images", "masks", "amodal"):
        assert np.array_equal(getattr(one, part), getattr(other, part))
    assert not np.array_equal(one.images, drawn(4, level=level).images)


@pytest.mark.parametrize("frames", [1, 2, 4, 13])
def test_a_clip_has_as_many_frames_as_asked_for(frames):
    clip = drawn(0, frames=frames, objects=2)
    assert clip.images.shape == (frames, SIDE, SIDE + 32, 3)
    assert clip.images.dtype == np.uint8
    assert clip.masks.dtype == clip.amodal.dtype == bool
    assert clip.masks.shape == clip.amodal.shape == (frames, clip.masks.shape[1], SIDE, SIDE + 32)
    assert 1 <= clip.masks.shape[1] <= 2


def test_every_object_is_seen_in_the_first_frame_and_is_never_more_than_its_whole():
    for clip in several(15):
        assert clip.masks[0].sum((1, 2)).min() >= scenes.MIN_VISIBLE * SIDE * (SIDE + 32)
        assert (clip.masks <= clip.amodal).all()


def square(corner: tuple[int, int], side: int, shade: int, frames: int = 3, step: int = 0, **how) -> Layer:
    """A square of one shade whose top left corner moves right by `step` pixels a frame."""
    outline = [[np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])]]
    places = np.tile(np.diag([side - 1.0, side - 1.0, 1.0]), (frames, 1, 1))
    places[:, :2, 2] = corner
    places[:, 0, 2] += step * np.arange(frames)
    return Layer(outline, np.full((8, 8, 3), shade, np.uint8), np.diag([1 / 8, 1 / 8, 1]), places, **how)


def filmed(*layers: Layer, frames: int = 3) -> Film:
    return Film(np.zeros((frames, 40, 40, 3), np.uint8), list(layers))


def test_masks_are_the_pixels_that_were_painted():
    behind, before = square((4, 10), 12, 100), square((0, 6), 10, 200, step=6)
    film = filmed(behind, before)
    shade, plain = film.images[..., 0], np.isin(film.images[..., 0], (0, 100, 200))  # others are soft edges
    assert plain.mean() > 0.9
    assert np.array_equal(film.visible([before])[plain], shade[plain] == 200)
    assert np.array_equal(film.visible([behind])[plain], shade[plain] == 100)
    assert film.amodal([behind]).sum((1, 2)).tolist() == [12 * 12] * 3
    assert film.visible([behind]).sum((1, 2)).min() < 12 * 12


def test_what_is_outside_the_frame_is_cut_off_and_what_has_left_is_nowhere():
    film = filmed(square((20, 5), 10, 200, step=15))
    assert film.amodal(film.layers).sum((1, 2)).tolist() == [100, 50, 0]


def test_a_part_goes_where_its_whole_goes_and_does_not_stick_out():
    whole = square((5, 5), 10, 100, step=8)
    part = square((9, 9), 12, 200, step=8, within=whole)
    film = filmed(whole, part)
    assert film.amodal([part]).sum((1, 2)).tolist() == [36, 36, 36]
    assert not (film.visible([part]) & ~film.amodal([whole])).any()
    assert np.array_equal(film.visible([whole, part]), film.amodal([whole]))


def test_a_shadow_darkens_the_image_and_belongs_to_nobody():
    images = np.full((1, 40, 40, 3), 200, np.uint8)
    film = Film(images, [square((5, 5), 10, 90, frames=1, shadow=np.array([14.0, 0.0]))])
    assert images[0, 10, 24, 0] < 150
    assert film.top[0, 10, 24] == 0


def test_a_fast_thing_smears_and_its_mask_stays_sharp():
    film = filmed(square((2, 10), 10, 200, step=10, shutter=0.8))
    shades = film.images[1, 15, :, 0]
    assert len(np.unique(shades)) > 4
    assert film.visible(film.layers)[1, 15].sum() == 10


def test_masks_lie_where_the_image_changes():
    """A plain clip: the pixels of an object that moves off change more than those far from everything."""
    moving = [c for c in several(25, level=0.0) if (c.masks[0] ^ c.masks[-1]).any(0).sum() > 100]
    ratios = []
    for clip in moving:
        change = np.abs(clip.images[0].astype(int) - clip.images[-1].astype(int)).mean(2)
        moved = (clip.masks[0] ^ clip.masks[-1]).any(0)
        ratios.append(change[moved].mean() / change[~clip.amodal.any((0, 1))].mean())
    assert np.median(ratios) > 4


@pytest.mark.parametrize("frames", [8, 16])
def test_neighbouring_frames_overlap_as_in_real_videos(frames):
    shares = []
    for clip in several(15, frames=frames, level=0.7):
        before, after = clip.amodal[:-1], clip.amodal[1:]
        union = (before | after).sum((2, 3))
        shares += list(((before & after).sum((2, 3)) / np.maximum(union, 1))[union > 50])
    assert 0.6 < np.median(shares) < 0.95
    assert np.mean(np.array(shares) > 0.4) > 0.7


@pytest.mark.parametrize(("frames", "count"), [(4, 50), (8, 40), (24, 15)])
def test_a_tenth_to_a_fifth_of_the_objects_are_absent_whatever_the_number_of_frames(frames, count):
    many = several(count, frames=frames, level=0.7)
    assert 0.06 < absent(many) < 0.25
    assert sum(any(map(returns, clip.masks.any((2, 3)).T)) for clip in many) >= 0.05 * count


def test_plain_clips_hide_nothing():
    assert absent(several(30, level=0.0)) < 0.01


@pytest.mark.parametrize("family", [(shapes, "HELD_OUT_OUTLINES"), (textures, "HELD_OUT_TEXTURES")])
def test_held_out_families_are_drawn_only_when_asked_for(monkeypatch, family):
    def forbidden(*_):
        raise AssertionError("a held-out family")

    monkeypatch.setattr(*family, (forbidden,))
    several(8)
    with pytest.raises(AssertionError, match="held-out"):
        several(8, held_out=True)


def test_a_sprite_is_seen_against_what_is_behind():
    """Also where a scene has two surfaces only: another one is chosen than that of the background."""
    grey, dark = (np.full((64, 64, 3), shade, np.float32) for shade in (0.5, 0.1))
    for seed in range(10):
        painter = scenes.Painter(np.random.default_rng(seed), 0.0, False)
        painter.palette = [grey, dark]
        made = SpriteMaker(painter, (grey * 255).astype(np.uint8)).surface(20, 20)
        assert np.abs(made.mean((0, 1)) - 0.5).max() > 0.05


def test_a_path_scales_and_turns_about_the_origin_and_then_moves():
    made = motion.matrices(np.array([[13.0, 19.0]]), np.array([np.pi / 2]), np.array([2.0]))[0]
    assert (made @ [0, 0, 1])[:2] == pytest.approx([13, 19])
    assert (made @ [1, 0, 1])[:2] == pytest.approx([13, 21])


def test_what_is_gone_between_two_times_is_back_at_the_others():
    share = motion.gone(np.arange(11.0), 4, 6, 2)
    assert share.tolist() == [0, 0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 0]


def test_what_passes_is_near_for_a_while_and_far_before_and_after():
    apart = motion.passing(np.arange(41.0), 20, 3, 4, 5.0, 50.0)
    assert np.abs(apart[17:24]).max() <= 5 < np.abs(apart[[16, 24]]).min()
    assert apart[0] < -45 and apart[40] > 45
    assert np.all(np.diff(apart) > 0)


def test_what_bounces_stays_between_the_walls_and_moves_on_as_fast():
    line = np.linspace(-300, 300, 601)[:, None]
    kept = motion.bounced(line, np.array([10.0]), np.array([50.0]))
    assert kept.min() == 10 and kept.max() == 50
    assert np.abs(np.diff(kept[:, 0])) == pytest.approx(1)
    assert motion.bounced(np.array([[20.0]]), np.array([10.0]), np.array([50.0]))[0, 0] == 20


def test_dropped_frames_are_wider_gaps():
    assert motion.times(np.random.default_rng(0), 4, 0.0).tolist() == [0, 1, 2, 3]
    assert np.diff(motion.times(np.random.default_rng(0), 4, 1.0)).min() > 2
