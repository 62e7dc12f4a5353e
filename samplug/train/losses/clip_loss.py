"""The loss of a batch of clips: objects are prompted on some frames and tracked through memory on the others.

T frames, F clips, N objects, (h, w) a quarter of the input's size. Arithmetic and
memory selection are those of `SAM2Model`, as when users track.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from samplug.nn.inputs import mask_to_logits
from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, Features, PromptBatch
from samplug.train.losses.backward import LossSum
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.image_loss import Round, draw_kind
from samplug.train.losses.losses import Compare, Target, answer_losses, target_iou
from samplug.train.losses.options import LossOptions
from samplug.train.losses.prompts import best_mask, corrected_prompts, first_prompts


@dataclass(frozen=True)
class ClipPlan:
    """The random choices of one step.

    Attributes:
        kind: of the prompts on the prompted frames.
        prompted: the frames that are prompted before the clip is tracked, the first one first.
        corrected: the frames on which the answers are corrected.
        rounds: the corrections of each.
        teacher_forcing: encode the true masks into memory, not the predicted ones.
    """

    kind: str
    prompted: tuple[int, ...] = (0,)
    corrected: tuple[int, ...] = ()
    rounds: tuple[Round, ...] = ()
    teacher_forcing: bool = False

    @staticmethod
    def draw(rng: np.random.Generator, options: LossOptions, visible: np.ndarray) -> ClipPlan:
        """Draw the choices of a step on a clip; `visible` (T,) bool: the frames on which all objects are seen."""
        frames = len(visible)
        kind = draw_kind(rng, dict(options.clip_prompts))
        later = [frame for frame in range(1, frames) if kind == "mask" or visible[frame]]
        prompted = (0, *_draw_few(rng, later, options.prompted_frames - 1, least=0))
        rounds = Round.draw_some(rng, options)
        correctable = [frame for frame in range(frames) if kind != "mask" or frame not in prompted]
        corrected = _draw_few(rng, correctable, options.corrected_frames, least=1) if rounds else ()
        return ClipPlan(kind, prompted, corrected, rounds, bool(rng.random() < options.teacher_forcing))

    def order(self, frames: int) -> list[int]:
        """The order in which the frames of a clip are segmented."""
        return [*self.prompted, *(frame for frame in range(frames) if frame not in self.prompted)]

    def answers(self, frames: int) -> int:
        """How many answers an object gets; a given mask is none."""
        given = len(self.prompted) if self.kind == "mask" else 0
        return frames - given + len(self.corrected) * len(self.rounds)


def _draw_few(rng: np.random.Generator, frames: list[int], most: int, least: int) -> tuple[int, ...]:
    """Some of these frames, in order."""
    count = int(rng.integers(least, max(most, least) + 1))
    return tuple(sorted(int(frame) for frame in rng.permutation(frames)[:count]))


@dataclass(eq=False)
class ClipLoss:
    """The losses of some objects of a batch of clips.

    Attributes:
        model: SAM 2.
        features: of T * F frames, before any memory.
        image_index: (N,) the clip of each object.
        targets: of the N objects on each frame.
        plan: the choices of the step.
        options: what is minimised.
        draws: source of the prompts.
        count: objects that the sums are divided by.
        losses: take the loss of each answer.
        compare: makes it.
        outputs: of the frames so far.
        remembered_as_prompted: those of them that count as prompted, in the order they were segmented.
    """

    model: SAM2Model
    features: Features
    image_index: Tensor
    targets: list[Target]
    plan: ClipPlan
    options: LossOptions
    draws: ObjectDraws
    count: float
    losses: LossSum
    compare: Compare = answer_losses
    outputs: dict[int, FrameOutput] = field(default_factory=dict)
    remembered_as_prompted: list[int] = field(default_factory=list)

    def compute(self) -> None:
        """Segment the prompted frames, then track the objects through the others."""
        clips = len(self.features) // len(self.targets)
        for frame in self.plan.order(len(self.targets)):
            features, target = self.features[frame * clips : (frame + 1) * clips], self.targets[frame]
            prompted = frame in self.plan.prompted
            output = self._prompted(frame, features) if prompted else self._tracked(frame, features)
            logits = output.logits
            if self.plan.teacher_forcing or prompted and self.plan.kind == "mask":
                logits = mask_to_logits(target.masks.float())
            memory = self.model.encode_memory(features, logits, output.presence, self.image_index, prompted)
            self.outputs[frame] = replace(output, memory=memory)
            if prompted or self.options.corrected_as_prompted and frame in self.plan.corrected:
                self.remembered_as_prompted.append(frame)

    def _prompted(self, frame: int, features: Features) -> FrameOutput:
        masks = self.targets[frame].masks
        if self.plan.kind == "mask":
            return self.model.use_mask_as_output(features, masks[:, None].float(), self.image_index)
        prompts = first_prompts(masks, self.image_index, self.plan.kind, self.draws)
        return self._predict(frame, self.model.without_memory(features), prompts)

    def _tracked(self, frame: int, features: Features) -> FrameOutput:
        span = len(self.targets) if self.options.time_span else None
        tracked = self.outputs.keys() - set(self.remembered_as_prompted)
        selection = self.model.select_memories(frame, self.remembered_as_prompted, tracked, span)
        context = MemoryContext.gather(selection, self.outputs)
        conditioned = self.model.condition_on_memory(features, context, self.image_index)
        output = self._predict(
            frame, conditioned, PromptBatch(torch.arange(len(self.image_index), device=self.image_index.device))
        )
        target = self.targets[frame]
        self.losses.add_ious("clip", target_iou(output.logits[:, None], target.share, target.known)[target.present, 0])
        return output

    def _predict(self, frame: int, conditioned: Features, prompts: PromptBatch) -> FrameOutput:
        """The answer on a frame, corrected where planned."""
        target, prompted = self.targets[frame], frame in self.plan.prompted
        answer = self.model.predict_masks(conditioned, prompts, prompted)
        self._add(prompts, answer, target)
        for each in self.plan.rounds if frame in self.plan.corrected else ():
            previous = best_mask(answer.logits, answer.iou)
            prompts = corrected_prompts(
                *(prompts, previous, target, self.draws, each.with_mask, each.from_truth),
                attached=self.options.attached,
            )
            answer = self.model.predict_masks(conditioned, prompts, prompted)
            self._add(prompts, answer, target)
        return self.model.select_mask(answer)

    def _add(self, prompts: PromptBatch, answer: Answer, target: Target) -> None:
        self.losses.show(prompts, answer)
        every = "clip" in self.options.every_mask
        losses = self.compare(answer, target, self.options, count=self.count, every_mask=every, in_clip=True)
        self.losses.add("clip", losses)
