"""Beside transformers' SAM 2.1, which knows 1024 pixels only: the same random weights, images, clicks and film."""

from itertools import islice

import pytest
import torch
from support.peers import Float32, peer_package

from samplug.benchmark.runners.base import Job
from samplug.benchmark.runners.samplug_ import Samplug
from samplug.benchmark.runners.transformers_ import IMAGE_SIZE, Transformers
from samplug.benchmark.scene import draw_clicks, draw_image, draw_video
from samplug.benchmark.weights import random_weights
from samplug.checkpoints.families import VARIANTS

pytestmark = pytest.mark.slow

FRAMES = 3
LENGTH = 16  # of the film: transformers times pointers by the length of shorter ones
FAR = 2e-5  # of the largest value
FOLLOWED_FAR = 1e-3  # a pixel at nought is remembered as 0 or 1: 5e-4; pointers of unsigned time would be 4e-3


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def sides():
    """Ours and theirs, of the same weights."""
    peer_package("transformers")
    row = VARIANTS["sam2.1_t"]
    job = Job(row, random_weights(row), IMAGE_SIZE, torch.device("cpu"))
    return Samplug(job), Transformers(job)


def apart(mine, theirs):
    """How far two answers are apart, as a share of the largest value."""
    theirs = theirs.reshape(mine.shape)
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def test_an_image_and_clicks_are_answered_as_transformers_answers_them(sides):
    pixels, prompts = draw_image(IMAGE_SIZE, IMAGE_SIZE), draw_clicks(3, IMAGE_SIZE)
    features = [side.encode(pixels) for side in sides]
    worst = {"features": apart(*features)}
    for multimask in (False, True):
        answers = [side.answer(prompts, multimask) for side in sides]
        for name, *pair in zip(("logits", "iou", "presence"), *answers, strict=True):
            worst[name] = max(worst.get(name, 0.0), apart(*pair))
        logits = answers[0][0]
        assert logits.shape == (3, 3 if multimask else 1, IMAGE_SIZE // 4, IMAGE_SIZE // 4)
        assert ((logits > 0).float().mean((2, 3)) > 0.01).all() and (logits > 0).float().mean() < 0.9
    print(worst)
    assert max(worst.values()) <= FAR


def test_objects_are_followed_as_transformers_follows_them(sides, monkeypatch):
    """Theirs puts memories away in bf16: here in full, as ours does."""
    monkeypatch.setattr(peer_package("transformers.models.sam2_video.modeling_sam2_video"), "torch", Float32())
    frames, prompts = draw_video(IMAGE_SIZE, LENGTH), draw_clicks(2, IMAGE_SIZE)
    mine, theirs = (list(islice(side.track(frames, prompts), FRAMES)) for side in sides)
    worst = [apart(*pair) for pair in zip(mine, theirs, strict=True)]
    print(worst)
    assert max(worst) <= FOLLOWED_FAR
    assert all(((logits > 0).float().mean((1, 2)) > 0).all() for logits in mine)
