"""The bundled weights in Meta's own classes, built at the same sizes: the same masks, on an image and over a clip."""

import numpy as np
import pytest
import torch
from support.peers import FAR, SIZE, MetaTracker, SamplugTracker, clicks, compare, play
from support.peers import box as boxed

from samplug.checkpoints.load import bundled_path, load_model
from samplug.data.clicks import next_click, outer_box
from samplug.data.synthetic import clips
from samplug.transforms import normalise

pytestmark = pytest.mark.slow

FRAMES = 20


@pytest.fixture(scope="module")
def bundled():
    return load_model(bundled_path())


@pytest.fixture(scope="module")
def drawn():
    return clips.draw(np.random.default_rng(5), SIZE, SIZE, frames=FRAMES, level=0.4, objects=2)


def test_the_trained_network_gives_metas_masks_in_metas_classes(bundled, drawn, monkeypatch):
    """The first frame is an image with prompts; the others are followed."""
    images = normalise(torch.from_numpy(drawn.images).permute(0, 3, 1, 2))
    first, *others = drawn.masks[0]
    click = next_click(None, first)
    ahead = {0: [(1, clicks((click.x, click.y)))]}
    if others:
        ahead[0].append((2, boxed(*outer_box(others[0]))))
    script = {"ahead": ahead, "order": range(FRAMES)}
    state = {name: tensor.float() for name, tensor in bundled.state_dict().items()}
    mine = play(SamplugTracker(state, images), **script)
    compare(mine, play(MetaTracker(state, images, monkeypatch), **script), far=FAR, flips=1e-4)
    found = mine[0, 1, "prompt 0"][0] > 0
    assert 0 < found.float().mean() < 0.9
