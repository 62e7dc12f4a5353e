"""The loss of a batch of clips: objects are shown on the first frame and followed through memory.

T frames, F clips, N objects, (h, w) a quarter of the input's size. The arithmetic is that of `SAM2Model`; which frames
are looked back at is `SAM2Model.recall`, as when users track.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from samplug.nn.frames import FrameOutput, Past
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch

from .asking import BOX, CLICK, MASK, best_mask, corrected_prompts, first_prompts, normalised
from .batches import Batch
from .losses import answer_loss, overlap
from .prompting import shares
from .settings import Settings

FIRST = {MASK: 0.5, CLICK: 0.25, BOX: 0.25}  # how often objects are shown in each way
WITH_MASK = 0.7  # share of the corrections that give the mask before back
CERTAIN = 10.0  # logits of a mask that is true


@dataclass(frozen=True)
class Chances:
    """What is drawn for one step.

    Attributes:
        kind: How objects are shown on the first frame.
        corrected: The frame on which they are corrected by a click, or -1.
        with_mask: Whether the mask before goes along with that click.
        truth_remembered: Remember the true masks, not those found.
    """

    kind: str
    corrected: int
    with_mask: bool
    truth_remembered: bool

    @staticmethod
    def draw(rng: np.random.Generator, settings: Settings, frames: int, given: float) -> Chances:
        """`given` is the share of the steps that remember the truth."""
        kind = str(rng.choice(list(FIRST), p=list(FIRST.values())))
        corrected = int(rng.integers(frames)) if rng.random() < settings.corrections else -1
        return Chances(kind, corrected, bool(rng.random() < WITH_MASK), bool(rng.random() < given))


@dataclass(eq=False)
class Following:
    """A walk through a batch of clips.

    Attributes:
        losses: Of every answer, scalars.
        overlaps: IoU of the objects that are visible on a frame after the first, (n,) each.
    """

    model: SAM2Model
    settings: Settings
    chances: Chances
    generator: torch.Generator
    losses: list[Tensor] = field(default_factory=list)
    overlaps: list[Tensor] = field(default_factory=list)
    past: dict[int, FrameOutput] = field(default_factory=dict)

    def walk(self, batch: Batch) -> None:
        """Show the objects on the first frame, follow them to the last."""
        count = batch.images.shape[1]
        seen = self.model.see(normalised(self.model, batch.images.flatten(0, 1)))
        for frame, masks in enumerate(batch.masks):
            features, target = seen[frame * count : (frame + 1) * count], shares(masks)
            if frame == 0:
                output = self._shown(features, masks, target, batch.owner)
            else:
                output = self._followed(frame, features, masks, target, batch.owner)
            logits = CERTAIN * (2 * (target > 0.5) - 1.0) if self.chances.truth_remembered else output.logits
            memory = self.model.remember(features, logits, output.presence, batch.owner, prompted=frame == 0)
            self.past[frame] = replace(output, memory=memory)

    def _shown(self, features: Features, masks: Tensor, target: Tensor, owner: Tensor) -> FrameOutput:
        if self.chances.kind == MASK:
            return self.model.take_mask(features, masks[:, None].float(), owner)
        prompts = first_prompts(masks, owner, self.chances.kind, self.generator)
        return self._answered(0, self.model.without_past(features), prompts, masks, target)

    def _followed(self, frame: int, features: Features, masks: Tensor, target: Tensor, owner: Tensor) -> FrameOutput:
        recall = self.model.recall(frame, prompted=(0,), tracked=range(1, frame))
        conditioned = self.model.look_back(features, Past.gather(recall, self.past), owner)
        nothing = PromptBatch(torch.arange(len(owner), device=owner.device))
        output = self._answered(frame, conditioned, nothing, masks, target)
        here = masks.flatten(1).any(1)
        self.overlaps.append(overlap(output.logits[:, None], target)[here, 0])
        return output

    def _answered(
        self, frame: int, conditioned: Features, prompts: PromptBatch, masks: Tensor, target: Tensor
    ) -> FrameOutput:
        """The answer on a frame, corrected where it is that frame's turn."""
        answer = self.model.candidates(conditioned, prompts, prompted=frame == 0)
        self._compare(answer, masks, target)
        if frame == self.chances.corrected:
            given = best_mask(answer.logits, answer.iou)
            prompts = corrected_prompts(prompts, given, target > 0.5, self.generator, self.chances.with_mask)
            answer = self.model.answer(conditioned, prompts)
            self._compare(answer, masks, target)
        return self.model.settle(answer)

    def _compare(self, answer: Answer, masks: Tensor, target: Tensor) -> None:
        visible = masks.flatten(1).any(1)
        how = {"balance": self.settings.balance, "presence": self.settings.presence}
        self.losses.append(answer_loss(answer, target, every_mask=False, visible=visible, **how))
