"""Ways to track the objects of a video, one frame at a time: with memory, without it, without any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from samplug.data.clicks import box_prompt, click_prompt, next_click
from samplug.masks.exclusive import resolve_overlaps
from samplug.masks.resize import resize_to_image
from samplug.nn.constants import MASK_PROMPT_LOGIT
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.prompts.objects import stack_prompts
from samplug.tracking.policies.base import Policy, Reference
from samplug.tracking.tracker import Tracker
from samplug.transforms import ImageTransform

Masks = dict[int, np.ndarray]  # by object, (H, W) bool


@dataclass(frozen=True, eq=False)
class TrackedMasks:
    """The objects of one frame."""

    objects: list[int]  # their numbers
    masks: np.ndarray  # (N, H, W) bool
    presence: np.ndarray | None = None  # (N,) logits; None where it is not predicted
    iou: np.ndarray | None = None  # (N,) likewise


class VideoTracker(Protocol):
    """Tracks the objects of one video."""

    def step(self, frame: int, features: Features, transform: ImageTransform, new: Masks) -> TrackedMasks:
        """Track all objects to the next frame, on which those in `new` are visible for the first time."""


@dataclass(eq=False)
class MemoryTracker:
    """SAM 2 as `SAM2VideoPredictor` runs it."""

    model: SAM2Model
    prompt: str = "mask"  # or by a "box" around it, or a "click" in its middle
    policy: Callable[[], Policy] = Reference  # which memories are used
    non_overlap: bool = True  # leave each pixel to one object
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = Tracker(self.model, self.policy)

    def step(self, frame: int, features: Features, transform: ImageTransform, new: Masks) -> TrackedMasks:
        """See `VideoTracker`."""
        self.tracker.start_frame(frame, features)
        for obj_id, mask in new.items():
            prompt_object(self.tracker, obj_id, mask, transform, self.prompt)
        objects = self.tracker.step()
        if objects.output is None:
            return TrackedMasks([], np.zeros((0, *transform.image_size), bool))
        return at_image_size(self.model, list(objects.ids), objects.output, transform, self.non_overlap)


@dataclass(eq=False)
class NoMemoryTracker:
    """The same network with its memory switched off.

    An object is prompted as ever. On every later frame the network is conditioned on nothing, as on the first frame of
    a video, without memories, pointers or prompts: it can only segment what is salient, the same for all objects.
    """

    model: SAM2Model
    prompt: str = "mask"
    objects: list[int] = field(default_factory=list)

    def step(self, frame: int, features: Features, transform: ImageTransform, new: Masks) -> TrackedMasks:
        """See `VideoTracker`."""
        outputs = [self._unprompted(features)[[0] * len(self.objects)]] if self.objects else []
        if new:
            tracker = Tracker(self.model)
            tracker.start_frame(frame, features)
            outputs += [prompt_object(tracker, obj_id, mask, transform, self.prompt) for obj_id, mask in new.items()]
        self.objects += new
        if not outputs:
            return TrackedMasks([], np.zeros((0, *transform.image_size), bool))
        return at_image_size(self.model, list(self.objects), FrameOutput.cat(outputs), transform, non_overlap=False)

    def _unprompted(self, features: Features) -> FrameOutput:
        nothing = PromptBatch(torch.zeros(1, dtype=torch.int64, device=features.image.device))
        unconditioned = self.model.without_memory(features)
        return self.model.select_mask(self.model.predict_masks(unconditioned, nothing, prompted=False))


@dataclass(eq=False)
class FirstMaskTracker:
    """Every object keeps its first mask: what a video costs nobody."""

    masks: Masks = field(default_factory=dict)

    def step(self, frame: int, features: Features, transform: ImageTransform, new: Masks) -> TrackedMasks:
        """See `VideoTracker`."""
        self.masks |= new
        masks = np.stack(list(self.masks.values())) if self.masks else np.zeros((0, *transform.image_size), bool)
        return TrackedMasks(list(self.masks), masks)


def prompt_object(
    tracker: Tracker, obj_id: int, mask: np.ndarray, transform: ImageTransform, prompt: str
) -> FrameOutput:
    """Prompt an object on the current frame by its mask (H, W), a box around it, or a click in its middle."""
    if prompt == "mask":
        logits = torch.where(torch.from_numpy(mask), MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT)
        return tracker.prompt(obj_id, mask=(transform.mask_to_input(logits, stride=1) > 0).float()[None, None])
    click = next_click(None, mask)
    assert click is not None
    given = box_prompt(mask) if prompt == "box" else click_prompt([click])
    return tracker.prompt(obj_id, stack_prompts([(given, transform, 0)], tracker.model.device))


def at_image_size(
    model: SAM2Model, objects: list[int], output: FrameOutput, transform: ImageTransform, non_overlap: bool
) -> TrackedMasks:
    """The objects of a frame with their masks at the image's size."""
    logits = output.logits.float().cpu()
    masks = resize_to_image(logits, transform, model.mask_threshold)
    if non_overlap:
        masks = resolve_overlaps(masks, logits, output.iou, transform)
    presence, iou = (values.float().cpu().numpy() for values in (output.presence, output.iou))
    return TrackedMasks(objects, masks.numpy(), presence, iou)
