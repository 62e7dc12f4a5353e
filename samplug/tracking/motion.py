"""Motion-aware choice and memory: SAMURAI (Yang et al., 2024, arXiv 2411.11922).

A Kalman filter with constant velocity predicts the object's box. The mask that agrees with it is preferred, and frames
where the network was sure and the motion was plausible are looked back at.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from samplug.nn.frames import FrameOutput
from samplug.nn.recall import Recall
from samplug.nn.types import Answer
from samplug.tracking.boxes import Box, box_of, candidates_of, overlap
from samplug.tracking.policies import Kept, Reference, Rule, last_prompted, pointers_ahead

POSITION_NOISE = 1 / 20  # of the box's height
VELOCITY_NOISE = 1 / 160
ASPECT_NOISE, ASPECT_VELOCITY_NOISE, ASPECT_MEASURE_NOISE = 1e-2, 1e-5, 1e-1


@dataclass
class Coordinate:
    """One number and its change per frame.

    Attributes:
        value: the number.
        variance: its variance.
        drift: the velocity's variance.
        velocity: change per frame.
        shared: covariance of value and velocity.
    """

    value: float
    variance: float
    drift: float
    velocity: float = 0.0
    shared: float = 0.0

    def predict(self, noise: float, jitter: float) -> None:
        """Move one frame on, with standard deviations of what may happen to value and velocity."""
        self.value += self.velocity
        self.variance += 2 * self.shared + self.drift + noise**2
        self.shared += self.drift
        self.drift += jitter**2

    def update(self, measured: float, noise: float) -> None:
        """Take a measurement with its standard deviation."""
        spread = self.variance + noise**2
        gain, velocity_gain = self.variance / spread, self.shared / spread
        surprise = measured - self.value
        self.value += gain * surprise
        self.velocity += velocity_gain * surprise
        self.drift -= velocity_gain * self.shared
        self.variance -= gain * self.variance
        self.shared -= gain * self.shared


class BoxFilter:
    """A box's centre, aspect (width / height) and height over time.

    They do not hear of each other but for the noise, which grows with the height.
    """

    def __init__(self, box: Box) -> None:
        """Start from a box at rest."""
        measured = centre_aspect_height(box)
        noise, drift = 2 * POSITION_NOISE * measured[3], 10 * VELOCITY_NOISE * measured[3]
        noises, drifts = (noise, noise, ASPECT_NOISE, noise), (drift, drift, ASPECT_VELOCITY_NOISE, drift)
        self.coordinates = [Coordinate(value, n**2, d**2) for value, n, d in zip(measured, noises, drifts, strict=True)]

    @property
    def height(self) -> float:
        """The height that all noise is in proportion to."""
        return self.coordinates[3].value

    @property
    def box(self) -> Box:
        """The box as it is now."""
        x, y, aspect, height = (coordinate.value for coordinate in self.coordinates)
        width = aspect * height
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def predict(self) -> None:
        """Move one frame on."""
        noise, drift = POSITION_NOISE * self.height, VELOCITY_NOISE * self.height
        noises, drifts = (noise, noise, ASPECT_NOISE, noise), (drift, drift, ASPECT_VELOCITY_NOISE, drift)
        for coordinate, n, d in zip(self.coordinates, noises, drifts, strict=True):
            coordinate.predict(n, d)

    def update(self, box: Box) -> None:
        """Take the box that was found."""
        noise = POSITION_NOISE * self.height
        noises = (noise, noise, ASPECT_MEASURE_NOISE, noise)
        for coordinate, value, n in zip(self.coordinates, centre_aspect_height(box), noises, strict=True):
            coordinate.update(value, n)


def centre_aspect_height(box: Box) -> tuple[float, float, float, float]:
    """Of a box; a flat one counts as one pixel high."""
    x1, y1, x2, y2 = box
    height = y2 - y1 or 1.0
    return (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / height, height


class Motion(Reference):
    """SAMURAI's rule, the filter being this object's own and starting anew when the user prompts."""

    present_above = -1.0

    def __init__(
        self, *, stable_frames: int = 15, stable_iou: float = 0.3, motion_weight: float = 0.15, memory_iou: float = 0.5
    ) -> None:
        """Set the thresholds.

        Args:
            stable_frames: the filter has a say after so many frames in a row with a good mask.
            stable_iou: predicted IoU of a good mask.
            motion_weight: the filter's say against that of the predicted IoU, 0 … 1.
            memory_iou: frames are looked back at if the predicted IoU was above this.
        """
        self.stable_frames, self.stable_iou = stable_frames, stable_iou
        self.motion_weight, self.memory_iou = motion_weight, memory_iou
        self.stable = 0
        self.filter: BoxFilter | None = None
        self.agreement: float | None = None
        self.good: list[int] = []

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Take the mask where network and motion agree."""
        boxes = [box_of(mask) for mask in candidates_of(answer, self.present_above)]
        return self.choose_box(answer.iou[0].tolist(), boxes)

    def choose_box(self, ious: list[float], boxes: list[Box | None]) -> int:
        """Choose among candidates with predicted IoUs and boxes, None for an empty mask, and learn from the choice."""
        self.agreement = None
        best = max(range(len(ious)), key=ious.__getitem__)
        if self.filter is None or self.stable == 0:
            self._start(boxes[best])
            return best
        self.filter.predict()
        if self.stable >= self.stable_frames:
            fits = [overlap(self.filter.box, box) for box in boxes]
            weighed = [
                self.motion_weight * fit + (1 - self.motion_weight) * iou for fit, iou in zip(fits, ious, strict=True)
            ]
            best = max(range(len(ious)), key=weighed.__getitem__)
            self.agreement = fits[best]
        self._learn(boxes[best], ious[best] > self.stable_iou)
        return best

    def _start(self, box: Box | None) -> None:
        if box is not None:
            self.filter, self.stable = BoxFilter(box), self.stable + 1

    def _learn(self, box: Box | None, good: bool) -> None:
        """Follow a good mask; a bad one takes the filter's say away. An absent object has no box to learn from."""
        if not good:
            self.stable = 0
        elif box is not None and self.filter is not None:
            self.filter.update(box)
            self.stable = min(self.stable + 1, self.stable_frames)

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Note whether the frame is worth looking back at; remember it in any case, for the next frame."""
        if answer is None:
            self.filter, self.stable, self.agreement = None, 0, None
        self.note(frame, output.iou.item(), output.presence.item(), self.agreement)
        return True

    def note(self, frame: int, iou: float, presence: float, agreement: float | None) -> None:
        """Judge a frame by its predicted IoU, its presence logit, and how well it agreed with the motion."""
        self.good = [f for f in self.good if f != frame]
        if iou > self.memory_iou and presence > 0 and (agreement is None or agreement > 0):
            self.good.append(frame)

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Recall:
        """Look back at the last good frames and the one before, the newest in slot 0; else as the reference does."""
        usual = super().select(frame, prompted, tracked, rule)
        anchors = tuple(memory for memory in usual.memories if memory[1] == rule.recent)
        passed = [f for f in self._last_good(frame, tracked, rule) if rule.behind(frame, f) > 0]
        before = frame - rule.direction
        if before in tracked and before not in passed:
            passed.insert(0, before)
        recent = [(f, slot) for slot, f in enumerate(passed[: rule.recent])]
        return replace(usual, memories=anchors + tuple(reversed(recent)))

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep the last good frames, this one, the prompted ones that count, and the pointers in reach."""
        passed = self._last_good(frame, tracked, rule)[: rule.recent]
        self.good = [f for f in self.good if f in tracked]
        anchors = last_prompted(frame, prompted, rule)
        return Kept(anchors | {*passed, frame}, pointers_ahead(frame, {*prompted, *tracked}, rule))

    def _last_good(self, frame: int, tracked: Collection[int], rule: Rule) -> list[int]:
        """Good frames up to this one, newest first."""
        passed = [f for f in self.good if f in tracked and rule.behind(frame, f) >= 0]
        return sorted(passed, key=lambda f: rule.behind(frame, f))
