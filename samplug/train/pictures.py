"""The loss of a batch of pictures: every object is asked for by click and by box, and corrected now and then."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch

from .asking import BOX, CLICK, best_mask, corrected_prompts, first_prompts, normalised
from .batches import Batch
from .losses import Probe, answer_loss, mask_loss, overlap, tame
from .prompting import inside, shares
from .settings import Settings

TAME_WEIGHT = 0.1
SEVERAL = 0.6  # share of the answers with several masks
WITH_MASK = 0.7  # share of the corrections that give the mask before back


@dataclass(eq=False)
class Asking:
    """One round of questions about a batch of pictures.

    Attributes:
        losses: Of the first clicks and boxes, of corrections, of the probe and of the features' size, by name.
        overlaps: IoU of the best mask of the first answers by kind of prompt, (N,) each.
    """

    model: SAM2Model
    probe: Probe
    settings: Settings
    generator: torch.Generator
    every_mask: bool
    losses: dict[str, Tensor] = field(default_factory=dict)
    overlaps: dict[str, Tensor] = field(default_factory=dict)

    def ask(self, batch: Batch, rng: np.random.Generator) -> None:
        """Ask for every object by click and by box, and correct one of the two answers now and then."""
        masks, owner = batch.masks[0], batch.owner
        target = shares(masks)
        features = self.model.encode(normalised(self.model, batch.images[0]))
        corrected = rng.choice([CLICK, BOX]) if rng.random() < self.settings.corrections else ""
        for kind in (CLICK, BOX):
            prompts = first_prompts(masks, owner, kind, self.generator)
            answer = self.model.answer(features, prompts, multimask=bool(rng.random() < SEVERAL))
            self._compare(kind, answer, target, ambiguous=kind == CLICK)
            self.overlaps[kind] = overlap(answer.logits, target).amax(1)
            if kind == corrected:
                self._correct(features, prompts, answer, target, rng)
        self.losses["tame"] = TAME_WEIGHT * tame(features)
        self.losses["probe"] = self._probe(features, inside(masks, self.generator), owner, target)

    def _correct(
        self, features: Features, prompts: PromptBatch, answer: Answer, target: Tensor, rng: np.random.Generator
    ) -> None:
        for _ in range(int(rng.integers(1, self.settings.rounds + 1))):
            given = best_mask(answer.logits, answer.iou)
            prompts = corrected_prompts(prompts, given, target > 0.5, self.generator, bool(rng.random() < WITH_MASK))
            answer = self.model.answer(features, prompts)
            self._compare("correction", answer, target, ambiguous=False)

    def _compare(self, name: str, answer: Answer, target: Tensor, ambiguous: bool) -> None:
        """Only a single click has several readings, for which the masks of an answer may differ."""
        every = self.every_mask or not ambiguous
        loss = answer_loss(answer, target, balance=self.settings.balance, every_mask=every)
        self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    def _probe(self, features: Features, points: Tensor, owner: Tensor, target: Tensor) -> Tensor:
        logits = self.probe(self.model.sam_mask_decoder, features, owner, points)
        return self.settings.probe * mask_loss(logits[:, None], target, self.settings.balance).mean()
