"""Ways of following objects through a video, one frame at a time: by memory, without it, without any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from samplug.masks import resize_to_picture
from samplug.measure.pointing import box_around, next_click
from samplug.nn.frames import FrameOutput
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.predict.tidy import settle_rivals
from samplug.prompt_batches import even_batch
from samplug.prompts import Prompt
from samplug.tracking.policies import Policy, Reference
from samplug.tracking.tracker import Tracker
from samplug.view import MASK_LOGIT, View

MASK, BOX, CLICK = "mask", "box", "click"
Shown = dict[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Seen:
    """What became of some objects on a frame.

    Attributes:
        places: Which objects they are.
        masks: (n, H, W) bool.
        presence: (n,) logits; None where nobody predicts it.
        iou: (n,) predicted overlap; None where nobody predicts it.
    """

    places: list[int]
    masks: np.ndarray
    presence: np.ndarray | None = None
    iou: np.ndarray | None = None


class Follower(Protocol):
    """Follows the objects of one video."""

    def step(self, frame: int, features: Features, view: View, shown: Shown) -> Seen:
        """Go on to the next frame, on which `shown` objects are seen for the first time: their masks (H, W)."""


@dataclass(eq=False)
class ByMemory:
    """SAM 2 as `SAM2VideoPredictor` runs it.

    Attributes:
        model: The network.
        ask: How an object is shown: by its `"mask"`, a `"box"` around it, or a `"click"` in its middle.
        policy: Which memories are used.
        non_overlap: Leave each pixel to one object.
    """

    model: SAM2Model
    ask: str = MASK
    policy: Callable[[], Policy] = Reference
    non_overlap: bool = True
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = Tracker(self.model, self.policy)

    def step(self, frame: int, features: Features, view: View, shown: Shown) -> Seen:
        """See `Follower`."""
        self.tracker.see(frame, features)
        for place, mask in shown.items():
            show(self.tracker, place, mask, view, self.ask)
        objects = self.tracker.step()
        if objects.output is None:
            return Seen([], np.zeros((0, *view.picture), bool))
        return seen(self.model, list(objects.ids), objects.output, view, self.non_overlap)


@dataclass(eq=False)
class WithoutMemory:
    """The same network with its memory switched off.

    An object is shown as ever. On every later frame the network is conditioned on nothing, as on the first frame of a
    video, without memories, pointers or prompts: it can only tell what stands out by itself, the same for all objects.
    """

    model: SAM2Model
    ask: str = MASK
    known: list[int] = field(default_factory=list)

    def step(self, frame: int, features: Features, view: View, shown: Shown) -> Seen:
        """See `Follower`."""
        answers = [self._blind(features)[[0] * len(self.known)]] if self.known else []
        if shown:
            tracker = Tracker(self.model)
            tracker.see(frame, features)
            answers += [show(tracker, place, mask, view, self.ask) for place, mask in shown.items()]
        self.known += shown
        if not answers:
            return Seen([], np.zeros((0, *view.picture), bool))
        return seen(self.model, list(self.known), FrameOutput.cat(answers), view, non_overlap=False)

    def _blind(self, features: Features) -> FrameOutput:
        nothing = PromptBatch(torch.zeros(1, dtype=torch.int64, device=features.image.device))
        unconditioned = self.model.without_past(features)
        return self.model.settle(self.model.candidates(unconditioned, nothing, prompted=False))


@dataclass(eq=False)
class Standing:
    """Every object stays as it was first seen: what a video costs nobody."""

    first: Shown = field(default_factory=dict)

    def step(self, frame: int, features: Features, view: View, shown: Shown) -> Seen:
        """See `Follower`."""
        self.first |= shown
        masks = np.stack(list(self.first.values())) if self.first else np.zeros((0, *view.picture), bool)
        return Seen(list(self.first), masks)


def show(tracker: Tracker, place: int, mask: np.ndarray, view: View, ask: str) -> FrameOutput:
    """Prompt an object on the frame in hand with its mask (H, W), a box around it, or a click in its middle."""
    if ask == MASK:
        logits = torch.where(torch.from_numpy(mask), MASK_LOGIT, -MASK_LOGIT)
        return tracker.prompt(place, mask=(view.mask(logits, stride=1) > 0).float()[None, None])
    return tracker.prompt(place, even_batch([(prompt_of(mask, ask), view, 0)], tracker.model.device))


def prompt_of(mask: np.ndarray, ask: str) -> Prompt:
    """A box around a mask, or a click in its middle."""
    no_labels = torch.zeros(0, dtype=torch.int64)
    if ask == BOX:
        return Prompt(torch.zeros(0, 2), no_labels, torch.tensor(box_around(mask), dtype=torch.float32))
    click = next_click(np.zeros_like(mask), mask)
    assert click is not None
    return Prompt(torch.tensor([[click.x, click.y]], dtype=torch.float32), torch.tensor([click.label]))


def seen(model: SAM2Model, places: list[int], output: FrameOutput, view: View, non_overlap: bool) -> Seen:
    """The objects of a frame with their masks at the picture's size."""
    logits = output.logits.float().cpu()
    masks = resize_to_picture(logits, view, model.mask_threshold)
    if non_overlap:
        masks = settle_rivals(masks, logits, output.iou, view)
    presence, iou = (values.float().cpu().numpy() for values in (output.presence, output.iou))
    return Seen(places, masks.numpy(), presence, iou)
