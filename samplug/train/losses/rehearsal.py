"""Rehearsal: a network in training keeps the answers of the untouched one to other images (arXiv 1606.09282).

N prompts, M masks each, (h, w) a quarter of the input's size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.structs import Answer, PromptBatch
from samplug.train.data.batches import Batch
from samplug.train.data.feature_cache import encode
from samplug.train.data.rehearsal import Key, RehearsalSet
from samplug.train.losses.backward import Backward, LossSum, Network, encoder_learns
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.losses import balanced_bce
from samplug.train.losses.options import OWN_BALANCE, LossOptions
from samplug.train.losses.step import draw_plan, follow

PROMPT_SHARES = {"click": 0.5, "box": 0.3, "mask": 0.2}  # of first prompts on images
WEIGHT = 3.0  # of a difference, in losses of learning
IOU_BETA = 0.1  # a distance of predicted IoUs below weighs as its square, so that rounding weighs nothing
PLAN, PLACES = 4, 5  # in seeds: what is asked for, and where
Untouched = Callable[[], AbstractContextManager[object]]  # gives the network the weights before training


@dataclass(eq=False)
class Rehearsal:
    """Compares the answers of a network in training with those of the untouched one, and adds up gradients.

    Attributes:
        data: images and clips.
        options: of the losses.
        weight: of the mean difference.
        count: images or clips a step.
    """

    data: RehearsalSet
    options: LossOptions
    weight: float
    count: int

    @staticmethod
    def of(data: RehearsalSet, options: LossOptions, keep: float, batch: int) -> Rehearsal:
        """With the share `keep` of the loss, on as many images as that share of a batch, but one at least."""
        options = replace(options, corrections=0, attached=False, teacher_forcing=0.0)  # no answer changes a prompt
        options = replace(options, image_prompts=PROMPT_SHARES, every_prompt=False, mean=True, probe=None)
        return Rehearsal(data, options, WEIGHT * keep / (1 - keep), max(1, round(keep * batch)))

    def run(self, model: Network, seed: Sequence[int], number: int, untouched: Untouched) -> Tensor:
        """Rehearse an image or a clip; returns how much the answers differ, a scalar.

        Args:
            model: the network in training.
            seed: of the run.
            number: of the image or clip, counted over the whole run.
            untouched: see `Untouched`.
        """
        batch, key = self.data.draw(seed, number)
        plan = draw_plan(model, batch, self.options, np.random.default_rng([*seed, number, PLAN]))
        here, log = self._on_device(model, batch, key), AnswerLog()

        def answer(backward: Backward, **how: Any) -> LossSum:
            torch.manual_seed(number)  # for dropout in memory attention
            draws = ObjectDraws.of([*seed, number, PLACES], batch.image_index, here.masks.device)
            return follow(plan, model, here, self.options, draws, backward, **how)

        with torch.no_grad(), untouched():
            answer(lambda loss: None, watch=log.note)
        losses = answer(lambda loss: (loss * (self.weight / self.count)).backward(), compare=log.compare)
        return losses.values["keep_loss"] / self.count

    def _on_device(self, model: Network, batch: Batch, key: Key) -> Batch:
        """The batch, with features that are kept where nothing in the encoder learns."""
        device = next(model.parameters()).device
        if encoder_learns(model):
            return batch.to(device)
        with torch.no_grad():
            features = self.data.features_of(key, lambda: encode(model, batch.images.flatten(0, 1)))
        return replace(batch, features=features).to(device)


@dataclass(eq=False)
class AnswerLog:
    """The answers of one network, for another one that gets the same prompts.

    Attributes:
        answers: that were not compared yet, in order.
    """

    answers: deque[Answer] = field(default_factory=deque)

    def note(self, _: PromptBatch, answer: Answer) -> None:
        """Remember an answer."""
        self.answers.append(answer)

    def compare(self, answer: Answer, *_: Any, count: float, **__: Any) -> dict[str, Tensor]:
        """The loss of the next answer, in place of `answer_losses`."""
        return {"keep": difference(answer, self.answers.popleft()).sum() / count}


def difference(answer: Answer, former: Answer) -> Tensor:
    """How much N answers differ from former ones: (N,), 0 and without a gradient where they are the same.

    The divergence of the probabilities of all M masks, and of presence, and the distance of predicted IoUs.
    """
    loss = divergence(answer.logits, former.logits, OWN_BALANCE).mean(1)
    loss = loss + F.smooth_l1_loss(answer.iou.float(), former.iou.float(), reduction="none", beta=IOU_BETA).mean(1)
    if answer.presence is not None and former.presence is not None:
        loss = loss + divergence(answer.presence[..., None], former.presence[..., None], 0.0)
    return loss


def divergence(logits: Tensor, former: Tensor, balance: float) -> Tensor:
    """The Kullback-Leibler divergence of maps (..., h, w) from former ones -> (...); `balance` of `balanced_bce`."""
    target = former.float().sigmoid()
    return balanced_bce(logits.float(), target, balance) - balanced_bce(former.float(), target, balance)
