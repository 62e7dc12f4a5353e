"""Motion-aware choice and memory: SAMURAI (Yang et al., 2024, arXiv 2411.11922).

A Kalman filter with constant velocity predicts the object's box. Masks that agree with it are preferred, and frames of
high predicted IoU and plausible motion are selected as memories.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from samplug.masks.boxes import mask_box
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.memory.selection import MemorySelection
from samplug.nn.structs import Answer
from samplug.tracking.policies.base import Kept, Reference, Rule, last_prompted, pointers_after
from samplug.tracking.policies.boxes import Box, alternative_masks, iou_of_pair

POSITION_NOISE = 1 / 20  # of the box's height
VELOCITY_NOISE = 1 / 160
ASPECT_NOISE, ASPECT_VELOCITY_NOISE, ASPECT_MEASURE_NOISE = 1e-2, 1e-5, 1e-1


@dataclass
class Coordinate:
    """A Kalman filter of one number and its change per frame."""

    value: float
    variance: float
    velocity_variance: float
    velocity: float = 0.0
    covariance: float = 0.0

    def predict(self, noise: float, velocity_noise: float) -> None:
        """Move one frame on, with the standard deviations of the process noise."""
        self.value += self.velocity
        self.variance += 2 * self.covariance + self.velocity_variance + noise**2
        self.covariance += self.velocity_variance
        self.velocity_variance += velocity_noise**2

    def update(self, measured: float, noise: float) -> None:
        """Take a measurement with its standard deviation."""
        total = self.variance + noise**2
        gain, velocity_gain = self.variance / total, self.covariance / total
        residual = measured - self.value
        self.value += gain * residual
        self.velocity += velocity_gain * residual
        self.velocity_variance -= velocity_gain * self.covariance
        self.variance -= gain * self.variance
        self.covariance -= gain * self.covariance


class BoxFilter:
    """A box's centre, aspect (width / height) and height over time, each filtered by itself.

    The noise is in proportion to the height.
    """

    def __init__(self, box: Box) -> None:
        """Start from a box at rest."""
        measured = centre_aspect_height(box)
        noises = zip(measured, *noises_at(measured[3], 2, 10), strict=True)
        self.coordinates = [Coordinate(value, position**2, velocity**2) for value, position, velocity in noises]

    @property
    def box(self) -> Box:
        """The current box."""
        x, y, aspect, height = (coordinate.value for coordinate in self.coordinates)
        width = aspect * height
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def predict(self) -> None:
        """Move one frame on."""
        noises = noises_at(self.coordinates[3].value)
        for coordinate, noise, velocity_noise in zip(self.coordinates, *noises, strict=True):
            coordinate.predict(noise, velocity_noise)

    def update(self, box: Box) -> None:
        """Take the box that was found."""
        noise = POSITION_NOISE * self.coordinates[3].value
        noises = (noise, noise, ASPECT_MEASURE_NOISE, noise)
        for coordinate, value, n in zip(self.coordinates, centre_aspect_height(box), noises, strict=True):
            coordinate.update(value, n)


def noises_at(height: float, position_scale: float = 1, velocity_scale: float = 1) -> list[tuple[float, ...]]:
    """Standard deviations of centre, aspect and height, and of their velocities."""
    noise, velocity_noise = position_scale * POSITION_NOISE * height, velocity_scale * VELOCITY_NOISE * height
    velocities = velocity_noise, velocity_noise, ASPECT_VELOCITY_NOISE, velocity_noise
    return [(noise, noise, ASPECT_NOISE, noise), velocities]


def centre_aspect_height(box: Box) -> tuple[float, float, float, float]:
    """A box as centre x, centre y, aspect and height; a flat one counts as one pixel high."""
    x1, y1, x2, y2 = box
    height = y2 - y1 or 1.0
    return (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / height, height


class Motion(Reference):
    """SAMURAI's rule, with a filter for each object that restarts when the user prompts."""

    present_above = -1.0

    def __init__(
        self, *, stable_frames: int = 15, stable_iou: float = 0.3, motion_weight: float = 0.15, memory_iou: float = 0.5
    ) -> None:
        """Set the thresholds.

        Args:
            stable_frames: the filter is used after so many frames in a row with a good mask.
            stable_iou: predicted IoU of a good mask.
            motion_weight: weight of the filter beside the predicted IoU, 0 … 1.
            memory_iou: frames with a predicted IoU above this are selected.
        """
        self.stable_frames, self.stable_iou = stable_frames, stable_iou
        self.motion_weight, self.memory_iou = motion_weight, memory_iou
        self.stable = 0
        self.filter: BoxFilter | None = None
        self.agreement: float | None = None
        self.good: list[int] = []

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Choose the mask of the largest weighted IoU, predicted and with the filter's box."""
        boxes = [mask_box(mask) for mask in alternative_masks(answer, self.present_above)]
        return self.choose_box(answer.iou[0].tolist(), boxes)

    def choose_box(self, ious: list[float], boxes: Sequence[Box | None]) -> int:
        """Choose among candidates with predicted IoUs and boxes, None for an empty mask, and update the filter."""
        self.agreement = None
        best = max(range(len(ious)), key=ious.__getitem__)
        if self.filter is None or self.stable == 0:
            if (box := boxes[best]) is not None:
                self.filter, self.stable = BoxFilter(box), self.stable + 1
            return best
        self.filter.predict()
        if self.stable >= self.stable_frames:
            fits = [iou_of_pair(self.filter.box, box) for box in boxes]
            pairs, weight = zip(fits, ious, strict=True), self.motion_weight
            weighed = [weight * fit + (1 - weight) * iou for fit, iou in pairs]
            best = max(range(len(ious)), key=weighed.__getitem__)
            self.agreement = fits[best]
        self._learn(boxes[best], ious[best] > self.stable_iou)
        return best

    def _learn(self, box: Box | None, good: bool) -> None:
        """Update the filter with a good mask; after a bad one it is not used. An absent object has no box."""
        if not good:
            self.stable = 0
        elif box is not None and self.filter is not None:
            self.filter.update(box)
            self.stable = min(self.stable + 1, self.stable_frames)

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Note whether the frame is good; encode its memory in any case, for the next frame."""
        if answer is None:
            self.filter, self.stable, self.agreement = None, 0, None
        self.note(frame, output.iou.item(), output.presence.item(), self.agreement)
        return True

    def note(self, frame: int, iou: float, presence: float, agreement: float | None) -> None:
        """Note a frame as good by its predicted IoU, its presence logit, and its box IoU with the filter."""
        self.good = [f for f in self.good if f != frame]
        if iou > self.memory_iou and presence > 0 and (agreement is None or agreement > 0):
            self.good.append(frame)

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> MemorySelection:
        """Select the last good frames and the one before, the newest in slot 0; otherwise as the reference does."""
        usual = super().select(frame, prompted, tracked, rule)
        prompts = tuple(memory for memory in usual.memories if memory[1] == rule.num_recent)
        passed = [f for f in self._last_good(frame, tracked, rule) if rule.distance(frame, f) > 0]
        before = frame - rule.direction
        if before in tracked and before not in passed:
            passed.insert(0, before)
        recent = [(f, slot) for slot, f in enumerate(passed[: rule.num_recent])]
        return replace(usual, memories=prompts + tuple(reversed(recent)))

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep the last good frames, this one, the prompted ones that can be selected, and the pointers in reach."""
        passed = self._last_good(frame, tracked, rule)[: rule.num_recent]
        self.good = [f for f in self.good if f in tracked]
        memories = last_prompted(frame, prompted, rule) | {*passed, frame}
        return Kept(memories, pointers_after(frame, {*prompted, *tracked}, rule))

    def _last_good(self, frame: int, tracked: Collection[int], rule: Rule) -> list[int]:
        """Good frames up to this one, newest first."""
        passed = [f for f in self.good if f in tracked and rule.distance(frame, f) >= 0]
        return sorted(passed, key=lambda f: rule.distance(frame, f))
