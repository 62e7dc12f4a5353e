"""Beside transformers' SAM 2.1, which knows 1024 pixels only: the same random weights, pictures, clicks and film."""

from itertools import islice

import pytest
import torch
from peers import peer_package
from test_parity_video import Float32

from samplug.benchmark.huggingface import ITS_SIZE, Transformers
from samplug.benchmark.ours import Ours
from samplug.benchmark.runner import Job
from samplug.benchmark.scene import clicks, film, picture
from samplug.variants import VARIANTS

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
    job = Job(VARIANTS["sam2.1_t"], None, ITS_SIZE, torch.device("cpu")).drawn()
    return Ours(job), Transformers(job)


def apart(mine, theirs):
    """How far two answers are apart, as a share of the largest value."""
    theirs = theirs.reshape(mine.shape)
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def test_a_picture_and_clicks_are_answered_as_transformers_answers_them(sides):
    pixels, prompts = picture(ITS_SIZE, ITS_SIZE), clicks(3, ITS_SIZE)
    features = [side.encode(pixels) for side in sides]
    worst = {"features": apart(*features)}
    for multimask in (False, True):
        answers = [side.answer(prompts, multimask) for side in sides]
        for name, *pair in zip(("logits", "iou", "presence"), *answers, strict=True):
            worst[name] = max(worst.get(name, 0.0), apart(*pair))
        logits = answers[0][0]
        assert logits.shape == (3, 3 if multimask else 1, ITS_SIZE // 4, ITS_SIZE // 4)
        assert ((logits > 0).float().mean((2, 3)) > 0.01).all() and (logits > 0).float().mean() < 0.9
    print(worst)
    assert max(worst.values()) <= FAR


def test_objects_are_followed_as_transformers_follows_them(sides, monkeypatch):
    """Theirs puts memories away in bf16: here in full, as ours does."""
    monkeypatch.setattr(peer_package("transformers.models.sam2_video.modeling_sam2_video"), "torch", Float32())
    frames, prompts = film(ITS_SIZE, LENGTH), clicks(2, ITS_SIZE)
    mine, theirs = (list(islice(side.follow(frames, prompts), FRAMES)) for side in sides)
    worst = [apart(*pair) for pair in zip(mine, theirs, strict=True)]
    print(worst)
    assert max(worst) <= FOLLOWED_FAR
    assert all(((logits > 0).float().mean((1, 2)) > 0).all() for logits in mine)
