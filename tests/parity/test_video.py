"""Thirty frames beside Meta's video predictor: the same random weights, the same square frames, the same prompts.

Both remember in fp32, and click prompts are not remembered as 0 and 1: a pixel whose logit is nought but for rounding
would otherwise tell the two apart. Meta's pointers are timed by the length of the video, so it is given all frames.
"""

from dataclasses import replace

import pytest
import torch
from support.peers import (
    FAR,
    NANO,
    MetaTracker,
    SamplugTracker,
    box,
    clicks,
    compare,
    distance,
    drifting,
    mask,
    play,
    shown,
)

from samplug.benchmark.weights import raise_presence, random_state
from samplug.checkpoints.config import build
from samplug.tracking import Reference

pytestmark = pytest.mark.slow


SCENARIOS = {
    "a click": {"ahead": {0: [(1, clicks((100, 120)))]}},
    "several clicks": {"ahead": {0: [(1, clicks((100, 120), (150, 100), (30, 30), labels=[1, 1, 0]))]}},
    "clicks one after another": {"ahead": {0: [(1, clicks((100, 120))), (1, clicks((160, 60), add=True))]}},
    "a box": {"ahead": {0: [(1, box(60, 80, 150, 170))]}},
    "a box and a click": {"ahead": {0: [(1, box(60, 80, 150, 170, clicks=clicks((100, 120))))]}},
    "a mask": {"ahead": {0: [(1, mask(70, 90, 60, 50))]}},
    "an empty mask": {"ahead": {0: [(1, mask(0, 0, 0, 0))]}},
    "three objects": {"ahead": {0: [(1, clicks((100, 120))), (7, box(20, 30, 90, 90)), (-2, mask(150, 140, 70, 60))]}},
    "a correction": {"ahead": {0: [(1, clicks((100, 120)))]}, "corrections": {10: [(1, clicks((140, 60)))]}},
    "a corrected mask": {"ahead": {0: [(1, mask(70, 90, 60, 50))]}, "corrections": {10: [(1, mask(90, 90, 60, 50))]}},
    "a comer": {"ahead": {0: [(1, clicks((100, 120)))], 5: [(2, clicks((200, 60)))]}},
    "a second prompted frame": {"ahead": {0: [(1, clicks((100, 120)))], 12: [(1, box(60, 80, 150, 170))]}},
    "three prompted frames": {
        "ahead": {0: [(1, clicks((100, 120)))], 6: [(1, clicks((140, 60)))], 12: [(1, box(60, 80, 150, 170))]}
    },
    "backwards": {"ahead": {29: [(1, clicks((100, 120)))]}, "order": range(29, 0, -1), "reverse": True},
}
OPTIONS = {
    "a correction": {"add_all_frames_to_correct_as_cond": True},
    "a click": {"memory_temporal_stride_for_eval": 3},
    "three prompted frames": {"max_cond_frames_in_attn": 2},
}


@pytest.fixture(scope="module")
def images():
    return drifting()


@pytest.fixture(scope="module")
def leaving():
    """Weights under which objects are away after a few frames."""
    return random_state(build({"variant": NANO}).state_dict())


@pytest.fixture(scope="module")
def state(leaving):
    return raise_presence(leaving, 2)


@pytest.mark.parametrize("name", SCENARIOS)
def test_objects_are_followed_as_meta_follows_them(name, state, images, monkeypatch):
    script = SCENARIOS[name]
    mine = play(SamplugTracker(state, images, reverse=script.get("reverse", False)), **script)
    compare(mine, play(MetaTracker(state, images, monkeypatch), **script))
    first = next(iter(mine.values()))
    assert name == "an empty mask" or 0.02 < shown(first).float().mean() < 0.9


def test_a_network_of_the_released_size_follows_as_meta_does(monkeypatch):
    """Eight frames of sixteen: Meta's pointers are timed by the length of shorter videos."""
    variant = "sam2.1_t"
    weights = raise_presence(random_state(build({"variant": variant}).state_dict()), 8)
    film = drifting(512, 16)
    script = {"ahead": {0: [(1, clicks((200, 240))), (7, box(40, 60, 180, 180))]}, "order": range(8)}
    mine = play(SamplugTracker(weights, film, variant=variant), **script)
    compare(mine, play(MetaTracker(weights, film, monkeypatch, variant=variant), **script), far=5e-3)
    assert all(0.01 < shown(answer).float().mean() < 0.9 for answer in mine.values())


def test_a_hundred_frames_on_nothing_has_drifted(state, images, monkeypatch):
    """Long after the oldest pointer, the padding points of tracked frames still hold the object."""
    there_and_back = torch.cat([images, images.flip(0)] * 2)
    script = SCENARIOS["a click"] | {"order": range(104)}
    mine = play(SamplugTracker(state, there_and_back), **script)
    compare(mine, play(MetaTracker(state, there_and_back, monkeypatch), **script))


def test_objects_are_lost_as_meta_loses_them(leaving, images, monkeypatch):
    script = SCENARIOS["three objects"] | SCENARIOS["a correction"] | {"order": range(16)}
    script["ahead"] = SCENARIOS["three objects"]["ahead"]
    mine = play(SamplugTracker(leaving, images), **script)
    compare(mine, play(MetaTracker(leaving, images, monkeypatch), **script))
    here = [presence.item() > 0 for *_, presence in mine.values()]
    assert 3 < sum(here) < len(here) - 3


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_heard_as_meta_hears_them(name, state, images, monkeypatch):
    mine = play(SamplugTracker(state, images, **OPTIONS[name]), **SCENARIOS[name])
    compare(mine, play(MetaTracker(state, images, monkeypatch, **OPTIONS[name]), **SCENARIOS[name]))
    usual = play(SamplugTracker(state, images), **SCENARIOS[name])
    assert max(distance(mine[key], usual[key]) for key in mine) > 5 * FAR


def test_as_shipped_few_pixels_differ(state, images, monkeypatch):
    """Meta puts memories away in bf16, and binarises those of prompted frames."""
    script = SCENARIOS["three objects"]
    meta = MetaTracker(state, images, monkeypatch, as_shipped=True, binarize_mask_from_pts_for_mem_enc=True)
    compare(play(SamplugTracker(state, images, binarize=True), **script), play(meta, **script), far=0.05, flips=1e-3)


class WrongSlots(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(
            chosen, memories=tuple((f, slot if slot == 6 else (slot + 1) % 6) for f, slot in chosen.memories)
        )


class FewPointers(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(chosen, pointers=chosen.pointers[:8])


class MirroredTime(Reference):
    def select(self, *given):
        chosen = super().select(*given)
        return replace(chosen, pointers=tuple((f, -distance) for f, distance in chosen.pointers))


@pytest.mark.parametrize("mistaken", [WrongSlots, FewPointers, MirroredTime])
def test_a_mistake_would_be_seen(mistaken, state, images):
    script = SCENARIOS["a click"] | {"order": range(16)}
    right, wrong = (play(SamplugTracker(state, images, policy=policy), **script) for policy in (Reference, mistaken))
    assert max(distance(wrong[key], right[key]) for key in right) > 10 * FAR
