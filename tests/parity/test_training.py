"""A step of training beside Meta's training code: the same random weights, batch and prompts, the same gradients.

Masks are compared at the input's size and given back with their gradients, as there. All objects that are there are
found to be there: Meta's code does not train masks of objects that it takes for absent, ours does. Both compute in
float64, in which nothing is left but the mathematics: in float32 a random network carries the rounding of two orders of
sums through all corrections, to 1e-4 of a gradient, and a unit near 0 to more.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from support.networks import furthest, gradients, object_draws, without_dropout
from support.peers import SAM_2_1, peer_package

from samplug.benchmark.runners.meta import quiet, sam2_modules
from samplug.benchmark.weights import raise_presence, random_state
from samplug.checkpoints.config import build
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.families.sam2 import AS_RELEASED
from samplug.train.data.batches import Batch
from samplug.train.learn import select_learning
from samplug.train.losses import prompts
from samplug.train.losses.clip_loss import ClipPlan
from samplug.train.losses.image_loss import ImagePlan, Round
from samplug.train.losses.options import LossOptions
from samplug.train.losses.step import follow
from samplug.transforms import normalise

pytestmark = pytest.mark.slow

VARIANT, SIDE, CLIPS = "sam2.1_t", 256, 2
IMAGE_INDEX = torch.tensor([0, 0, 1])
AS_META = LossOptions(full_masks=True, mean=False, attached=True, time_span=True)
WEIGHTS = {"loss_mask": 20, "loss_dice": 1, "loss_iou": 1, "loss_class": 1}
RULES = {
    "image_size": SIDE,
    "add_all_frames_to_correct_as_cond": True,
    "rand_init_cond_frames_for_train": False,
    "num_correction_pt_per_frame": 2,
}
TWICE = 2 * (Round(True, False),)


class Clicks:
    """The same clicks for both sides: the first ones, and corrections, in the order in which they are asked for."""

    def __init__(self):
        self.first, self.next = ([(SIDE - 1) * torch.rand(3, 1, 2) for _ in range(20)] for _ in range(2))

    def first_click(self, *_):
        return self.first.pop()[:, 0]

    def correction(self, *_):
        return self.next.pop()[:, 0], torch.tensor([1, 0, 1])

    def meta(self, gt_masks, pred_masks, method):
        if pred_masks is None:
            return self.first_click()[:, None], torch.ones(3, 1, dtype=torch.int32)
        points, labels = self.correction()
        return points[:, None], labels[:, None].int()


def boxes(*_):
    return torch.tensor([[20.0, 30, 90, 100], [100, 90, 200, 180], [40, 40, 160, 200]])


class Chosen:
    """In place of a random generator: the frames it chooses, one list after the other."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def random(self):
        return 0.5

    def choice(self, frames, count, replace):
        chosen = self.frames.pop(0)
        assert len(chosen) == count and set(chosen) <= set(frames)
        return np.array(chosen, dtype=int)


@pytest.fixture
def meta(monkeypatch):
    """The modules of Meta's package `training`, which comes with `sam2`; what drives them is not needed."""
    peer_package("sam2")
    for name, content in (
        ("trainer", {"CORE_LOSS_KEY": "core"}),
        ("utils.data_utils", {"BatchedVideoDatapoint": object}),
    ):
        stub = ModuleType(f"training.{name}")
        stub.__dict__.update(content)
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    with quiet():
        return peer_package("training.model.sam2"), peer_package("training.loss_fns")


@pytest.fixture
def state(float64):
    with torch.device("meta"):
        shapes = build({"variant": VARIANT}).state_dict()
    return raise_presence(random_state(shapes), 6)


def clip(frames):
    """Two clips of three objects that move; the last one is gone on frame 3."""
    torch.manual_seed(0)
    images = torch.randint(256, (frames, CLIPS, 3, SIDE, SIDE), dtype=torch.uint8)
    masks = torch.zeros(frames, 3, SIDE, SIDE, dtype=torch.bool)
    for frame in range(frames):
        for row, (top, left) in enumerate(((30, 20), (90, 100), (40, 40))):
            masks[frame, row, top + 5 * frame : top + 80, left : left + 60 + 7 * frame] = True
    masks[3:, 2] = False
    return Batch(images, masks, IMAGE_INDEX)


def theirs(meta, state, batch, chosen, monkeypatch, **options):
    """Losses and gradients of Meta's code; frames whose masks were given are left out of the losses."""
    model, losses = meta
    with quiet():
        network = model.SAM2Train(
            **sam2_modules(VARIANTS[VARIANT]),
            **(AS_RELEASED | SAM_2_1 | RULES | options),
        )
    network.load_state_dict(state, strict=True)
    network.rng = chosen
    monkeypatch.setattr(model, "get_next_point", same_clicks().meta)
    monkeypatch.setattr(model, "sample_box_points", lambda _: (boxes().view(3, 2, 2), torch.tensor([[2, 3]] * 3).int()))
    frames = len(batch.masks)
    given = SimpleNamespace(
        flat_img_batch=normalise(batch.images.flatten(0, 1)),
        num_frames=frames,
        masks=batch.masks,
        flat_obj_to_img_idx=[frame * CLIPS + IMAGE_INDEX for frame in range(frames)],
    )
    outputs = without_dropout(network)(given)
    assert all(
        (scores > 0)[seen].all()
        for out, seen in zip(outputs, batch.masks.flatten(2).any(2), strict=True)
        for scores in out["multistep_object_score_logits"]
    )
    answered = [frame for frame in range(frames) if outputs[frame]["mask_inputs"] is None]
    loss = losses.MultiStepMultiMasksAndIous(
        dict(WEIGHTS), supervise_all_iou=True, iou_use_l1_loss=True, pred_obj_scores=True
    )
    found = loss([outputs[frame] for frame in answered], batch.masks[answered])
    found["core"].backward()
    return {name: weight * found[name].item() for name, weight in WEIGHTS.items()}, gradients(network)


def ours(state, batch, plan, monkeypatch):
    network = build({"variant": VARIANT})
    network.load_state_dict(state, strict=True)
    select_learning(network, "all", clips=True)
    clicks = same_clicks()
    for name, stub in (
        ("random_pixels", clicks.first_click),
        ("correction_clicks", clicks.correction),
        ("noisy_boxes", boxes),
    ):
        monkeypatch.setattr(prompts, name, stub)
    found = follow(
        plan, without_dropout(network), batch, AS_META, object_draws(len(batch.image_index)), torch.Tensor.backward
    ).means()
    names = ("mask", "dice", "iou", "presence")
    return {theirs: found[f"{name}_loss"] for name, theirs in zip(names, WEIGHTS, strict=True)}, gradients(network)


def same_clicks():
    torch.manual_seed(1)
    return Clicks()


POINTS = {"prob_to_use_pt_input_for_train": 1.0}
BOXES = POINTS | {"prob_to_use_box_input_for_train": 1.0}


def prompted(initial, corrected):
    """How many frames are prompted before the others, and how many of all are corrected."""
    return {"num_init_cond_frames_for_train": initial, "num_frames_to_correct_for_train": corrected}


CASES = {
    "a click on images": (1, ImagePlan({"click": True}, "click", TWICE), [], POINTS),
    "a box on images": (1, ImagePlan({"box": False}, "box", TWICE), [], BOXES),
    "masks on two frames": (4, ClipPlan("mask", (0, 2)), [[2]], prompted(2, 2)),
    "clicks on two frames, three corrected": (
        *(4, ClipPlan("click", (0, 2), (0, 1, 2), TWICE)),
        *([[2], [1]], POINTS | prompted(2, 3)),
    ),
    "a corrected box": (4, ClipPlan("box", (0,), (0, 3), TWICE), [[3]], BOXES | prompted(1, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_metas(name, meta, state, monkeypatch):
    frames, plan, chosen, options = CASES[name]
    batch = clip(frames)
    losses, expected = theirs(meta, state, batch, Chosen(*chosen), monkeypatch, **options)
    found, own = ours(state, batch, plan, monkeypatch)
    assert found == pytest.approx(losses, rel=1e-9)
    worst, far = furthest(own, expected)
    print(f"{len(own)} gradients; {worst} is {far:.1e} apart")
    assert far < 1e-9
