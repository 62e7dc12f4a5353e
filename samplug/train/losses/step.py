"""One step of training on a batch, up to the gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.train.data.batches import Batch
from samplug.train.losses.backward import Backward, LossSum, Network, Watch, chunks, encoded
from samplug.train.losses.clip_loss import ClipLoss, ClipPlan
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.image_loss import ImageLoss, ImagePlan
from samplug.train.losses.losses import Compare, Target, answer_losses
from samplug.train.losses.options import LossOptions

Plan = ImagePlan | ClipPlan
Agree = Callable[[Tensor], Tensor]


def draw_plan(
    model: Network, batch: Batch, options: LossOptions, rng: np.random.Generator, agree: Agree = lambda visible: visible
) -> Plan:
    """Draw what is done on a batch: kinds of prompts, which frames, how many corrections.

    Args:
        model: the network.
        batch: images, or clips for SAM 2.
        options: of the step.
        rng: source of the choices.
        agree: takes (T,) bool, the frames on which all objects of the batch are seen; returns those on which those of
            all processes' batches are, so that every process draws the same.

    Raises:
        ValueError: clips for a network without memory.
    """
    if len(batch.masks) == 1:
        return ImagePlan.draw(rng, options)
    if not isinstance(model, SAM2Model):
        raise ValueError(
            f"Got clips of {len(batch.masks)} frames for {type(model).__name__}, which has no memory. Expected images, "
            "or a SAM 2 network."
        )
    return ClipPlan.draw(rng, options, agree(batch.masks.flatten(2).any(2).all(1).cpu()).numpy())


def follow(
    plan: Plan, model: Network, batch: Batch, options: LossOptions, draws: ObjectDraws, backward: Backward,
    count: float | None = None, watch: Watch | None = None, compare: Compare = answer_losses,
) -> LossSum:  # fmt: skip
    """Prompt the objects of a batch as planned, correct the answers, compare them with the truth, compute gradients.

    Args:
        plan: what is done.
        model: the network.
        batch: images, or clips for SAM 2.
        options: what is minimised.
        draws: source of where the prompts lie, on the batch's device.
        backward: called with each loss; it computes gradients, and may raise an error where the loss is not finite.
        count: objects that losses are divided by: those of all batches before the weights change; None for the batch's.
        watch: called with the prompts and the answer of every chunk of objects.
        compare: makes the losses of an answer.
    """
    number = count or len(batch.image_index)
    together = isinstance(plan, ClipPlan) or options.attached
    losses = LossSum(backward, together, 1 / plan.answers(len(batch.masks)) if options.mean else 1.0, watch)
    with encoded(model, batch) as features:
        targets = targets_of(batch)
        if isinstance(plan, ImagePlan):
            ImageLoss(model, features, batch.image_index, targets[0], options, draws, number, losses, compare).compute(
                plan
            )
            losses.flush()
            return losses
        assert isinstance(model, SAM2Model)
        for rows in chunks(len(batch.image_index), options.chunk):
            some = [target[rows] for target in targets]
            index = batch.image_index[rows]
            ClipLoss(model, features, index, some, plan, options, draws[rows], number, losses, compare).compute()
            losses.flush()
    return losses


def targets_of(batch: Batch) -> list[Target]:
    """What the objects look like on each frame."""
    ignored = [None] * len(batch.masks) if batch.ignore is None else batch.ignore
    return [Target.of(masks, batch.image_index, where) for masks, where in zip(batch.masks, ignored, strict=True)]
