"""The loss of a batch of images: objects are prompted by click, box or coarse mask, and some answers are corrected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.train.losses.backward import LossSum, Network, chunks
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.losses import Compare, Target, answer_losses, mask_losses, target_iou
from samplug.train.losses.options import LossOptions
from samplug.train.losses.probe import feature_norm_penalty
from samplug.train.losses.prompts import best_mask, corrected_prompts, first_prompts, random_pixels

FEATURE_NORM_WEIGHT = 0.1


@dataclass(frozen=True)
class Round:
    """One correction: whether the previous mask is given back, and whether the click ignores it."""

    with_mask: bool
    from_truth: bool

    @staticmethod
    def draw(rng: np.random.Generator, options: LossOptions) -> tuple[Round, ...]:
        """The corrections of an answer, one or more."""
        count = int(rng.integers(1, options.corrections + 1))
        return tuple(
            Round(bool(rng.random() < options.mask_feedback), bool(rng.random() < options.truth_clicks))
            for _ in range(count)
        )

    @staticmethod
    def draw_some(rng: np.random.Generator, options: LossOptions) -> tuple[Round, ...]:
        """The corrections of a step; most often none where `options` say so."""
        return Round.draw(rng, options) if options.corrections and rng.random() < options.corrected else ()


def draw_kind(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """A kind of prompt."""
    total = sum(shares.values())
    return str(rng.choice(list(shares), p=[share / total for share in shares.values()]))


@dataclass(frozen=True)
class ImagePlan:
    """The random choices of one step."""

    several: dict[str, bool]  # whether the first answer has several masks, by kind of prompt
    corrected: str  # the kind whose answers are corrected
    rounds: tuple[Round, ...] = ()  # its corrections

    @staticmethod
    def draw(rng: np.random.Generator, options: LossOptions) -> ImagePlan:
        """Draw the choices of a step."""
        shares = dict(options.image_prompts)
        kinds = [kind for kind in shares if shares[kind]] if options.every_prompt else [draw_kind(rng, shares)]
        several = {kind: bool(rng.random() < options.several.get(kind, 0.0)) for kind in kinds}
        return ImagePlan(several, str(rng.choice(kinds)), Round.draw_some(rng, options))

    def answers(self, frames: int = 1) -> int:
        """How many answers an object gets."""
        return len(self.several) + len(self.rounds)


@dataclass(eq=False)
class ImageLoss:
    """The losses of one batch of images.

    Attributes:
        model: SAM, MobileSAM or SAM 2.
        features: of F images, before any memory.
        image_index: (N,) the image of each object.
        target: of the N objects.
        options: what is minimised.
        draws: source of the prompts.
        count: objects that the sums are divided by.
        losses: take the loss of each answer.
        compare: makes it.
    """

    model: Network
    features: Features
    image_index: Tensor
    target: Target
    options: LossOptions
    draws: ObjectDraws
    count: float
    losses: LossSum
    compare: Compare = answer_losses

    def compute(self, plan: ImagePlan) -> None:
        """Prompt every object as planned, and correct the answers to one kind of prompt."""
        for kind, several in plan.several.items():
            prompts = first_prompts(self.target.masks, self.image_index, kind, self.draws)
            logits = self._answer(kind, prompts, several)
            for each in plan.rounds if kind == plan.corrected else ():
                prompts = corrected_prompts(
                    *(prompts, logits, self.target, self.draws, each.with_mask, each.from_truth),
                    attached=self.options.attached,
                )
                logits = self._answer("correction", prompts, several=False)
        self._train_features()

    def _answer(self, kind: str, prompts: PromptBatch, several: bool) -> Tensor:
        """Answer the prompts and add their losses: the logits (N, h, w) of the masks that a user would get."""
        best = []
        for rows in chunks(len(prompts), self.options.chunk):
            answer = self.model.answer(self._read_features(), prompts[rows], several)
            self.losses.show(prompts[rows], answer)
            target = self.target[rows]
            every = kind in self.options.every_mask
            self.losses.add(
                kind, self.compare(answer, target, self.options, count=self.count, every_mask=every, in_clip=False)
            )
            if kind != "correction":
                self.losses.add_ious(kind, target_iou(answer.logits, target.share, target.known).amax(1))
            logits = best_mask(answer.logits, answer.iou)
            best.append(logits if self.options.attached else logits.detach())
        return torch.cat(best)

    def _read_features(self) -> Features:
        """Features as prompts without memory read them; anew for each backward pass."""
        return self.model.without_memory(self.features) if isinstance(self.model, SAM2Model) else self.features

    def _train_features(self) -> None:
        """The losses of an encoder that may know nothing yet."""
        if self.options.probe is None:
            return
        features = self._read_features()
        self.losses.add("feature_norm", {"feature_norm": FEATURE_NORM_WEIGHT * feature_norm_penalty(features)})
        points = random_pixels(self.target.masks, self.draws)
        logits = self.options.probe(self.model.sam_mask_decoder, self._read_features(), self.image_index, points)
        pixels, overlap = mask_losses(logits[:, None], self.target.share, self.target.known, self.options)
        self.losses.add("probe", {"probe": (pixels + overlap).mean()})
