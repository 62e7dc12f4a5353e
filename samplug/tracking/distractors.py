"""Distractor-aware memory: the rule of DAM4SAM (Videnovic et al., 2024, arXiv 2411.17576), and what it composes with.

Where a rival mask reaches far beyond the chosen one while the object looks as it always did, something like the object
is near: such a frame becomes an *anchor*, looked back at like a prompted frame.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from statistics import median

from torch import Tensor

from samplug.nn.frames import FrameOutput
from samplug.nn.recall import Recall
from samplug.nn.types import Answer
from samplug.tracking.boxes import box_of, candidates_of, largest_part, masks_of, overlap
from samplug.tracking.motion import Motion
from samplug.tracking.policies import Kept, Policy, Reference, Rule, is_visible, last_prompted, pointers_ahead

AREAS = 300  # frames whose areas are known
TYPICAL = 10  # of them, the last ones with the object, whose median is its usual area
STEADY = (0.8, 1.2)  # share of the usual area that a steady object has


class Distractors(Reference):
    """DAM4SAM's rule; areas and parts are taken in pixels of the network's input, not of the video."""

    def __init__(
        self, *, stride: int = 5, interval: int = 5, max_anchors: int = 4, sure_iou: float = 0.8, rival_iou: float = 0.7
    ) -> None:
        """Set the thresholds.

        Args:
            stride: frames between two recent memories, the newest one apart.
            interval: frames that must lie between two anchors that are found.
            max_anchors: how many anchors are looked back at, prompted frames included.
            sure_iou: an anchor has a predicted IoU above this.
            rival_iou: and a rival with which its box overlaps the chosen mask's by at most this.
        """
        self.stride, self.interval, self.max_anchors = stride, interval, max_anchors
        self.sure_iou, self.rival_iou = sure_iou, rival_iou
        self.areas: dict[int, int] = {}
        self.found: list[int] = []

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Find out whether the frame is an anchor; frames without the object are not remembered."""
        if answer is not None:
            chosen = masks_of(output.logits[:, None])[0]
            rivals = candidates_of(answer, self.present_above)
            self.consider(frame, int(chosen.sum()), output.iou.item(), lambda: least_overlap(chosen, rivals))
        return is_visible(output)

    def consider(self, frame: int, area: int, iou: float, rival: Callable[[], float]) -> None:
        """Judge a tracked frame by the area and predicted IoU of its mask and the overlap with the worst rival."""
        self.areas.pop(frame, None)
        self.areas[frame] = area
        for old in list(self.areas)[:-AREAS]:
            del self.areas[old]
        self.found = [f for f in self.found if f != frame]
        rested = not self.found or abs(frame - self.found[-1]) > self.interval
        if iou > self.sure_iou and rested and STEADY[0] <= self.share(area) <= STEADY[1] and rival() <= self.rival_iou:
            self.found.append(frame)

    def share(self, area: int) -> float:
        """The newest area as a share of the usual one; -1 on the first frame and where nothing is seen."""
        seen = [known for known in self.areas.values() if known][-TYPICAL:]
        return area / median(seen) if area and len(self.areas) > 1 else -1.0

    def anchors(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> list[int]:
        """Anchors to look back at: the last before the frame just before, the first prompt, then the nearest."""
        first = max(prompted, key=lambda f: rule.behind(frame, f))
        others = [f for f in self._candidates(prompted, tracked) if f != first and rule.behind(frame, f) not in (0, 1)]
        passed = [f for f in (first, *others) if rule.behind(frame, f) > 1]
        last = min(passed, key=lambda f: rule.behind(frame, f), default=first)
        nearest = sorted((f for f in others if f != last), key=lambda f: abs(frame - f))
        return [*dict.fromkeys((last, first, *nearest))][: self.max_anchors]

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Recall:
        """Look back at the anchors, the frame just before or the last one seen, and others at the stride."""
        anchors = self.anchors(frame, prompted, tracked, rule)
        recent = self._recent(frame, anchors, prompted, tracked, rule)[: rule.recent - (len(anchors) - 1)]
        return recalled(frame, anchors, recent, {*prompted, *tracked}, rule)

    def _candidates(self, prompted: Collection[int], tracked: Collection[int]) -> list[int]:
        return [*prompted, *(f for f in self.found if f in tracked)]

    def _ordinary(self, frame: int, tracked: Collection[int], rule: Rule) -> list[int]:
        """Frames that are no anchors, up to this one, newest first."""
        passed = [f for f in tracked if f not in self.found and rule.behind(frame, f) >= 0]
        return sorted(passed, key=lambda f: rule.behind(frame, f))

    def _recent(
        self, frame: int, anchors: list[int], prompted: Collection[int], tracked: Collection[int], rule: Rule
    ) -> list[int]:
        """Recent memories, newest first."""
        ordinary = [f for f in self._ordinary(frame, tracked, rule) if f != frame]
        before = frame - rule.direction
        newest = [before] if before not in anchors and before in {*prompted, *tracked} else ordinary[:1]
        return newest + [f for f in ordinary if f not in newest and f % self.stride == 0]

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep the newest anchors and the first prompt, the newest frames at the stride and the newest of all."""
        self.found = [f for f in self.found if f in tracked]
        first = max(prompted, key=lambda f: rule.behind(frame, f), default=frame)
        anchors = last_prompted(
            frame, self._candidates(prompted, tracked), replace(rule, max_prompted=self.max_anchors)
        )
        ordinary = self._ordinary(frame, tracked, rule)
        spaced = [f for f in ordinary if f % self.stride == 0][: rule.recent]
        memories = anchors | {first, frame, *ordinary[:1], *spaced}
        return Kept(memories, pointers_ahead(frame, {*prompted, *tracked}, rule))


def recalled(frame: int, anchors: list[int], recent: list[int], stored: Collection[int], rule: Rule) -> Recall:
    """Anchors in the last slot, recent memories, given newest first, from slot 0 on, and the pointers in reach."""
    memories = [(f, rule.recent) for f in anchors]
    memories += reversed([(f, slot) for slot, f in enumerate(recent)])
    pointers = [(f, rule.behind(frame, f)) for f in anchors if rule.behind(frame, f) >= 0]
    near = (f for f in stored if f not in anchors and 0 < rule.behind(frame, f) <= rule.reach)
    pointers += sorted(((f, rule.behind(frame, f)) for f in near), key=lambda pointer: pointer[1])
    return Recall(tuple(memories), tuple(pointers), span=max(rule.reach, 1))


def least_overlap(chosen: Tensor, rivals: Tensor) -> float:
    """How little the box of a mask (H, W) overlaps with its box joined with a rival's largest other part."""
    others = [rival & ~chosen for rival in rivals]
    boxes = [box_of(chosen | largest_part(other)) for other in others if other.any()]
    return min((overlap(box_of(chosen), box) for box in boxes), default=1.0)


class Hybrid(Reference):
    """The choice and the recent memories of one policy beside the anchors of `Distractors` (arXiv 2512.22624)."""

    def __init__(self, short: Policy | None = None, long: Distractors | None = None) -> None:
        """Compose.

        Args:
            short: chooses masks and recent memories; None for `Motion`.
            long: finds anchors; None for `Distractors` as published.
        """
        self.short, self.long = Motion() if short is None else short, Distractors() if long is None else long
        self.present_above = self.short.present_above

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Leave it to the policy of recent memories."""
        return self.short.choose(frame, answer)

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Remember what both would."""
        remembered = [policy.observe(frame, output, answer) for policy in (self.short, self.long)]
        return all(remembered)

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Recall:
        """Look back at the anchors, and at as many recent memories as there is room for, the newest in slot 0."""
        anchors = self.long.anchors(frame, prompted, tracked, rule)
        memories = self.short.select(frame, prompted, tracked, rule).memories
        recent = [f for f, slot in reversed(memories) if slot < rule.recent and f not in anchors]
        room = rule.recent - (len(anchors) - 1)
        return recalled(frame, anchors, recent[:room], {*prompted, *tracked}, rule)

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep what either can ask for."""
        kept = [policy.keep(frame, prompted, tracked, rule) for policy in (self.short, self.long)]
        return Kept(kept[0].memories | kept[1].memories, kept[0].pointers | kept[1].pointers)
