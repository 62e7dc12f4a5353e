"""Drawn clips: exact masks, things that move, hide, leave and return, whatever the number of frames."""

from __future__ import annotations

import numpy as np
import pytest

from samplug.train import clips, paths, shapes
from samplug.train.scenes import LEAST_VISIBLE

SIDE = 96


def drawn(seed: int, **how) -> clips.Clip:
    return clips.draw(np.random.default_rng(seed), SIDE, SIDE + 32, **how)


def several(count: int, **how) -> list[clips.Clip]:
    return [drawn(seed, **how) for seed in range(count)]


def test_the_same_seed_draws_the_same_clip():
    one, other = drawn(3), drawn(3)
    assert np.array_equal(one.images, other.images) and np.array_equal(one.masks, other.masks)
    assert not np.array_equal(one.images, drawn(4).images)


@pytest.mark.parametrize("frames", [1, 4, 13])
def test_a_clip_has_as_many_frames_as_asked_for(frames):
    clip = drawn(0, frames=frames, objects=2)
    assert clip.images.shape == (frames, SIDE, SIDE + 32, 3)
    assert clip.images.dtype == np.uint8
    assert clip.masks.shape == clip.amodal.shape == (frames, clip.masks.shape[1], SIDE, SIDE + 32)
    assert 1 <= clip.masks.shape[1] <= 2


def test_every_object_is_seen_in_the_first_frame_and_is_never_more_than_its_whole():
    for clip in several(20):
        assert clip.masks[0].sum((1, 2)).min() >= LEAST_VISIBLE * SIDE * (SIDE + 32)
        assert (clip.masks <= clip.amodal).all()


def test_what_is_in_front_takes_away_what_is_behind():
    """Visible masks of things that moved over one another are less than their wholes, somewhere."""
    assert any((clip.masks < clip.amodal).any() for clip in several(10))


def test_masks_lie_where_the_picture_changes():
    """A plain clip of still light: the pixels of an object that moves off change, those far from everything do not."""
    clip = next(clip for clip in several(40, level=0.0) if (clip.masks[0] ^ clip.masks[-1]).any(0).sum() > 300)
    change = np.abs(clip.images[0].astype(int) - clip.images[-1].astype(int)).mean(2)
    moved = (clip.masks[0] ^ clip.masks[-1]).any(0)
    assert change[moved].mean() > 3 * change[~clip.amodal.any((0, 1))].mean()


def test_neighbouring_frames_overlap_as_in_real_videos():
    shares = []
    for clip in several(20, frames=12):
        before, after = clip.masks[:-1], clip.masks[1:]
        union = (before | after).sum((2, 3))
        shares += list(((before & after).sum((2, 3)) / np.maximum(union, 1))[union > 50])
    assert 0.6 < np.median(shares) < 0.97


def test_some_objects_hide_or_leave_and_some_return():
    many = several(30, frames=12)
    absent = np.concatenate([~clip.masks.any((2, 3)).ravel() for clip in many]).mean()
    assert 0.03 < absent < 0.3
    assert sum(clip.leaves_and_returns.sum() for clip in many) >= 2


def test_plain_clips_hide_little():
    absent = np.concatenate([~clip.masks.any((2, 3)).ravel() for clip in several(30, level=0.0)]).mean()
    assert absent < 0.05


def test_gone_for_two_frames_and_back_is_a_return():
    masks = np.zeros((6, 3, 4, 4), bool)
    masks[[0, 1, 4], 0] = masks[[0, 1, 3, 4, 5], 1] = masks[:3, 2] = True
    clip = clips.Clip(np.zeros((6, 4, 4, 3), np.uint8), masks, masks)
    assert clip.leaves_and_returns.tolist() == [True, False, False]


def test_held_out_outlines_are_drawn_only_when_asked_for(monkeypatch):
    def forbidden(rng):
        raise AssertionError("a held-out outline")

    monkeypatch.setattr(shapes, "HELD_OUT", (forbidden,))
    several(5)
    with pytest.raises(AssertionError, match="held-out"):
        several(5, held_out=True)


def test_a_path_turns_about_its_centre_and_moves_it():
    centre = np.array([10.0, 20.0])
    made = paths.matrices(centre, np.array([[3.0, -1.0]]), np.array([np.pi / 2]), np.array([2.0]))[0]
    assert (made @ [10, 20, 1])[:2] == pytest.approx([13, 19])
    assert (made @ [11, 20, 1])[:2] == pytest.approx([13, 21])


def test_things_go_there_and_back_and_through_the_point_they_should():
    when = np.linspace(0, 1, 101)
    away = paths.there_and_back(np.random.default_rng(0), when, np.array([50.0, 0.0]))
    assert away[0, 0] == 0 and away[-1, 0] < 25 and away[:, 0].max() > 49
    start, goal = np.array([5.0, 5.0]), np.array([40.0, 30.0])
    moves = paths.through(np.random.default_rng(0), when, start, goal)
    assert np.linalg.norm(start + moves - goal, axis=1).min() < 0.5
