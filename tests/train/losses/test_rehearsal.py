"""Rehearsal: the same prompts for both networks, nothing to learn while they answer alike, other images than those
that are measured."""

from __future__ import annotations

import pytest
import torch
from support.datasets import write_drawn
from support.networks import TRAIN_SIDE, gradients, network, rectangles

from samplug.data.open import open_data
from samplug.errors import DataError
from samplug.train.data.rehearsal import DRAWN_IMAGES, FIRST_DRAWN, RehearsalSet
from samplug.train.fit.learner import Learner
from samplug.train.losses.rehearsal import Rehearsal
from samplug.train.settings import TrainSettings

SIZE = (TRAIN_SIDE, TRAIN_SIDE)
FAMILIES = ("SAM", "MobileSAM", "SAM 2")


def drawn_set(tracks=False):
    return RehearsalSet.open("scenes", None, tracks, 3, SIZE)


def learner_of(family, learn="all", **how):
    clips = how.pop("clips", False)
    return Learner(network(family), TrainSettings(data="a.yaml", learn=learn, keep=0.5, batch=1, **how), clips)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_as_long_as_a_network_answers_as_before_there_is_nothing_to_learn(family, number):
    """An even number is an image, an odd one a clip, for the network that tracks."""
    learner = learner_of(family)
    learner.rehearse(drawn_set(tracks=family == "SAM 2"))
    (found,) = learner._rehearse(learner.rehearsal, number).view(1).tolist()
    small = gradients(learner.model)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.mul_(1.2)
    (changed,) = learner._rehearse(learner.rehearsal, number).view(1).tolist()
    large = gradients(learner.model)
    assert abs(found) < 1e-4 * changed
    name = max(large, key=lambda name: large[name].abs().max())
    assert small[name].abs().max() < 1e-2 * large[name].abs().max()


def test_the_untouched_network_is_asked_and_the_trained_one_goes_on():
    learner = learner_of("SAM")
    learner.rehearse(drawn_set())
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(0.05)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    start = {name: tensor.clone() for name, tensor in learner.start.items()}
    learner._rehearse(learner.rehearsal, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())
    assert all(torch.equal(tensor, start[name]) for name, tensor in learner.start.items())
    assert not torch.equal(start["mask_decoder.mask_tokens.weight"], before["mask_decoder.mask_tokens.weight"])


def test_what_is_rehearsed_moves_less_while_other_things_are_learned():
    """The difference of answers to images that were not rehearsed, after the same steps with and without."""
    apart = []
    for weight in (0.0, 1.0):
        learner = learner_of("SAM", "decoder", lr0=1e-3, warmup_epochs=0)
        learner.rehearse(drawn_set())
        learner.rehearsal.weight *= weight
        learner.plan(learner.settings, 1)
        for number in range(5):
            learner.step([rectangles(seed=number)], number, number)
        apart.append(sum(learner._rehearse(learner.rehearsal, 1000 + number).item() for number in range(4)))
    assert apart[1] < 0.8 * apart[0]


def test_a_frozen_encoder_sees_an_image_once():
    learner, calls = learner_of("SAM", "decoder"), []
    learner.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    data = drawn_set()
    data.data = type(data.data)(data.data.images[:1])
    learner.rehearse(data)
    for number in range(3):
        learner._rehearse(learner.rehearsal, number)
    assert len(calls) == 1


def test_drawn_images_are_others_than_those_that_are_measured_and_draws_follow_from_the_number():
    data = drawn_set(tracks=True)
    assert list(data.data.images.keys) == list(range(FIRST_DRAWN, FIRST_DRAWN + DRAWN_IMAGES))
    batches = [data.draw([0], number)[0] for number in (4, 4, 6, 5)]
    assert torch.equal(batches[0].images, batches[1].images) and torch.equal(batches[0].masks, batches[1].masks)
    assert not torch.equal(batches[0].images, batches[2].images)
    assert [len(batch.images) for batch in batches] == [1, 1, 1, 3]
    assert batches[0].masks.flatten(2).any(2).all()


def test_of_a_data_set_what_is_learned_from_is_rehearsed_and_never_what_is_measured(tmp_path):
    anchor = write_drawn(tmp_path, train=2, val=1, side=64)
    measured = open_data(anchor)
    data = RehearsalSet.open(str(anchor), measured, False, 3, SIZE)
    assert [file.path.parent.name for file in data.data.images.keys] == ["train", "train"]
    assert data.draw([0], 0)[0].images.shape == (1, 1, 3, *SIZE)
    anchor.write_text(anchor.read_text().replace("images/train", "images/val"))
    with pytest.raises(DataError, match="other images than those that are measured.*anchor=scenes"):
        RehearsalSet.open(str(anchor), measured, False, 3, SIZE)


def test_a_share_of_the_loss_is_a_share_of_the_images_and_one_at_least():
    options = learner_of("SAM").options
    few, many = (Rehearsal.of(drawn_set(), options, 0.2, batch) for batch in (1, 20))
    assert (few.count, many.count) == (1, 4) and few.weight == many.weight
    assert Rehearsal.of(drawn_set(), options, 0.5, 1).weight == pytest.approx(4 * few.weight)
