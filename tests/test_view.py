"""How masks lie in the network's input."""

import torch

from samplug.view import MASK_LOGIT, View


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
