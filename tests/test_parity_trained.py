"""The bundled weights in Meta's own classes, built at the same sizes: the same masks, on a picture and over a clip."""

import numpy as np
import pytest
import torch
from test_parity_video import FAR, SIZE, Meta, Ours, clicks, compare, play
from test_parity_video import box as boxed

from samplug.checkpoints import bundled_path, load_model
from samplug.train import clips
from samplug.train.asking import normalised
from samplug.train.check import centre
from samplug.train.prompting import boxes_around

pytestmark = pytest.mark.slow

FRAMES = 20


@pytest.fixture(scope="module")
def bundled():
    return load_model(bundled_path())


@pytest.fixture(scope="module")
def drawn():
    return clips.draw(np.random.default_rng(5), SIZE, SIZE, frames=FRAMES, level=0.4, objects=2)


def test_the_trained_network_gives_metas_masks_in_metas_classes(bundled, drawn, monkeypatch):
    """The first frame is a picture with prompts; the others are followed."""
    pictures = normalised(bundled, torch.from_numpy(drawn.images).permute(0, 3, 1, 2))
    first = torch.from_numpy(drawn.masks[0])
    ahead = {0: [(1, clicks(tuple(centre(drawn.masks[0, 0]))))]}
    if len(first) > 1:
        ahead[0].append((2, boxed(*boxes_around(first)[1].tolist())))
    script = {"ahead": ahead, "order": range(FRAMES)}
    state = {name: tensor.float() for name, tensor in bundled.state_dict().items()}
    mine = play(Ours(state, pictures), **script)
    compare(mine, play(Meta(state, pictures, monkeypatch), **script), far=FAR, flips=1e-4)
    found = mine[0, 1, "prompt 0"][0] > 0
    assert 0 < found.float().mean() < 0.9
