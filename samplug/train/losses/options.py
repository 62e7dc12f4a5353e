"""What is minimised, and what the simulated user of training does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from samplug.data.help import SCENES
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.train.losses.probe import Probe

META, BALANCED = "meta", "balanced"
OWN_LOSS = {"samplug-nano": BALANCED}  # networks that were not trained with Meta's loss
OWN_BALANCE, OWN_IMAGE_PRESENCE = 0.3, 0.05
DRAWN: dict[str, Any] = {  # how the bundled network learns from drawn data
    "every_mask": ("box", "correction"),
    "presence": 2.0,
    "chunk": 1000,  # of a small network all fit
    "image_prompts": {"click": 1.0, "box": 1.0},
    "every_prompt": True,
    "several": {"click": 0.6, "box": 0.6},
    "prompted_frames": 1,
    "corrected_frames": 1,
    "corrected_as_prompted": False,
    "corrected": 0.4,
    "truth_clicks": 0.0,
}
FROM_NOTHING = {"balance": 1.0, "teacher_forcing": 0.5, "every_mask": ("click", *DRAWN["every_mask"])}
EVERY_MASK_STEPS = 1500  # in which a network that knows nothing trains all masks of an answer to a click


@dataclass(frozen=True)
class LossOptions:
    """Options of a step."""

    # META: focal loss of weight 20 and Dice, as the released weights were trained with; BALANCED: cross-entropy and
    # Dice, as the bundled network was. Another loss than that of pre-training moves every boundary at once.
    loss: str = META
    balance: float = OWN_BALANCE  # of the balanced loss: 1 weighs object and background alike, 0 all pixels alike
    presence: float = 1.0  # weight of presence on the frames of clips
    image_presence: float = 1.0  # the same on images, where every object is visible
    every_mask: Collection[str] = ()  # kinds of prompts of whose answers all masks are trained, not the best one alone
    full_masks: bool = False  # compare masks at the input's size, as Meta does, not at a quarter of it
    mean: bool = True  # divide the losses of a step by the number of its answers
    image_prompts: Mapping[str, float] = field(default_factory=lambda: {"click": 0.5, "box": 0.5})  # how often
    clip_prompts: Mapping[str, float] = field(default_factory=lambda: {"mask": 0.5, "click": 0.25, "box": 0.25})
    every_prompt: bool = False  # give each kind of first prompt on every step of images
    # share of the first answers with several masks, by kind of prompt; on clips the network decides
    several: Mapping[str, float] = field(default_factory=lambda: {"click": 0.75, "box": 0.25})
    corrected: float = 0.75  # share of the steps with corrections
    corrections: int = 3  # clicks that correct an answer, at most
    mask_feedback: float = 0.7  # share of the corrections that give the previous mask back
    truth_clicks: float = 0.1  # share of the corrections whose click lies anywhere on the object, not in the error
    # Let gradients pass through the masks that are given back, as in Meta's training code. All losses of a step then
    # go backward together, so memory grows with the corrections.
    attached: bool = False
    prompted_frames: int = 2  # of a clip that are prompted before it is tracked, at most
    corrected_frames: int = 2  # of a clip that are corrected, at most
    corrected_as_prompted: bool = True  # remember a corrected frame as a prompted one
    # Count the distance of pointers in lengths of the clip, as Meta's training does. Predictors, which know no clips,
    # count in spans of 16 frames.
    time_span: bool = False
    teacher_forcing: float = 0.0  # share of the steps that encode the truth into memory, not what was predicted
    chunk: int = 16  # objects that are answered at once
    probe: Probe | None = None  # a simple decoder beside the real one, for an encoder that may know nothing yet

    @staticmethod
    def of(model: SAMModel | SAM2Model, settings: Any, **changes: Any) -> LossOptions:
        """The options for a network: its own loss, and what the settings of the run say."""
        names = ("corrections", "full_masks", "chunk")
        given: dict[str, Any] = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
        loss = OWN_LOSS.get(model.variant, META)
        presence = 1.0 if loss == META else OWN_IMAGE_PRESENCE
        if loss != META and getattr(settings, "data", None) == SCENES:
            given |= {**DRAWN, **({} if settings.pretrained else FROM_NOTHING)}
        return LossOptions(**{"loss": loss, "image_presence": presence, **given, **changes})

    def in_step(self, step: int, steps: int, in_clip: bool) -> LossOptions:
        """The options in a step of so many: of drawn data, a network that began with nothing needs more at first."""
        if not self.every_prompt:
            return self
        every = self.every_mask if step < EVERY_MASK_STEPS else DRAWN["every_mask"]
        forcing = self.teacher_forcing * (1 - step / steps)
        return replace(self, mean=in_clip, every_mask=every, teacher_forcing=forcing)
