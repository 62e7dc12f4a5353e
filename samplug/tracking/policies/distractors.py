"""Distractor-aware memory: the rule of DAM4SAM (Videnovic et al., 2024, arXiv 2411.17576).

Where an alternative mask reaches far beyond the chosen one while the object has its usual area, a distractor is near:
such a frame becomes an *anchor*, which is attended to like a prompted frame.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from statistics import median

from torch import Tensor

from samplug.masks.boxes import mask_box
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.memory.selection import MemorySelection
from samplug.nn.structs import Answer
from samplug.tracking.policies.base import Kept, Reference, Rule, is_visible, last_prompted, pointers_after
from samplug.tracking.policies.boxes import alternative_masks, iou_of_pair, largest_part, masks_of

MAX_AREAS = 300  # frames whose areas are stored
MEDIAN_OF = 10  # of them, the last ones with the object, whose median is its usual area
STEADY_RATIO = (0.8, 1.2)  # of the usual area


class Distractors(Reference):
    """DAM4SAM's rule, with areas in pixels of the network's input, not of the video."""

    def __init__(
        self, *, stride: int = 5, interval: int = 5, max_anchors: int = 4, sure_iou: float = 0.8, rival_iou: float = 0.7
    ) -> None:
        """Set the thresholds.

        Args:
            stride: frames between two recent memories, the newest one apart.
            interval: frames that must lie between two anchors.
            max_anchors: how many anchors are selected, prompted frames included.
            sure_iou: an anchor has a predicted IoU above this.
            rival_iou: the IoU of the chosen mask's box with the box that an alternative mask extends is at most this.
        """
        self.stride, self.interval, self.max_anchors = stride, interval, max_anchors
        self.sure_iou, self.rival_iou = sure_iou, rival_iou
        self.areas: dict[int, int] = {}
        self.found: list[int] = []

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Find out whether the frame is an anchor; memories of frames without the object are not encoded."""
        if answer is not None:
            chosen = masks_of(output.logits[:, None])[0]
            rivals = alternative_masks(answer, self.present_above)
            self.consider(frame, int(chosen.sum()), output.iou.item(), lambda: least_box_iou(chosen, rivals))
        return is_visible(output)

    def consider(self, frame: int, area: int, iou: float, rival: Callable[[], float]) -> None:
        """Decide on a tracked frame by its mask's area and predicted IoU, and the box IoU of the worst rival."""
        self.areas.pop(frame, None)
        self.areas[frame] = area
        for old in list(self.areas)[:-MAX_AREAS]:
            del self.areas[old]
        self.found = [f for f in self.found if f != frame]
        far = not self.found or abs(frame - self.found[-1]) > self.interval
        steady = STEADY_RATIO[0] <= self.area_ratio(area) <= STEADY_RATIO[1]
        if iou > self.sure_iou and far and steady and rival() <= self.rival_iou:
            self.found.append(frame)

    def area_ratio(self, area: int) -> float:
        """The newest area by the usual one; -1 on the first frame and where the object is absent."""
        seen = [known for known in self.areas.values() if known][-MEDIAN_OF:]
        return area / median(seen) if area and len(self.areas) > 1 else -1.0

    def anchors(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> list[int]:
        """Select anchors: the last before the frame just before, the first prompt, then the nearest."""
        first = max(prompted, key=lambda f: rule.distance(frame, f))
        found = (f for f in self._anchor_frames(prompted, tracked) if f != first)
        others = [f for f in found if rule.distance(frame, f) not in (0, 1)]
        passed = [f for f in (first, *others) if rule.distance(frame, f) > 1]
        last = min(passed, key=lambda f: rule.distance(frame, f), default=first)
        nearest = sorted((f for f in others if f != last), key=lambda f: abs(frame - f))
        return [*dict.fromkeys((last, first, *nearest))][: self.max_anchors]

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> MemorySelection:
        """Select the anchors, the frame just before or the last one with the object, and others at the stride."""
        anchors = self.anchors(frame, prompted, tracked, rule)
        ordinary = [f for f in self._ordinary(frame, tracked, rule) if f != frame]
        before = frame - rule.direction
        newest = [before] if before not in anchors and before in {*prompted, *tracked} else ordinary[:1]
        recent = newest + [f for f in ordinary if f not in newest and f % self.stride == 0]
        few = recent[: rule.num_recent - (len(anchors) - 1)]
        return selection_of(frame, anchors, few, {*prompted, *tracked}, rule)

    def _anchor_frames(self, prompted: Collection[int], tracked: Collection[int]) -> list[int]:
        return [*prompted, *(f for f in self.found if f in tracked)]

    def _ordinary(self, frame: int, tracked: Collection[int], rule: Rule) -> list[int]:
        """Frames up to this one that are not anchors, newest first."""
        passed = [f for f in tracked if f not in self.found and rule.distance(frame, f) >= 0]
        return sorted(passed, key=lambda f: rule.distance(frame, f))

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep the newest anchors and the first prompt, the newest frames at the stride and the newest of all."""
        self.found = [f for f in self.found if f in tracked]
        first = max(prompted, key=lambda f: rule.distance(frame, f), default=frame)
        newest = replace(rule, max_prompted=self.max_anchors)
        anchors = last_prompted(frame, self._anchor_frames(prompted, tracked), newest)
        ordinary = self._ordinary(frame, tracked, rule)
        spaced = [f for f in ordinary if f % self.stride == 0][: rule.num_recent]
        memories = anchors | {first, frame, *ordinary[:1], *spaced}
        return Kept(memories, pointers_after(frame, {*prompted, *tracked}, rule))


def selection_of(
    frame: int, anchors: list[int], recent: list[int], stored: Collection[int], rule: Rule
) -> MemorySelection:
    """Anchors in the last slot, recent memories, given newest first, from slot 0 on, and the pointers in reach."""
    memories = [(f, rule.num_recent) for f in anchors]
    memories += reversed([(f, slot) for slot, f in enumerate(recent)])
    pointers = [(f, rule.distance(frame, f)) for f in anchors if rule.distance(frame, f) >= 0]
    near = (f for f in stored if f not in anchors and 0 < rule.distance(frame, f) <= rule.pointer_reach)
    pointers += sorted(((f, rule.distance(frame, f)) for f in near), key=lambda pointer: pointer[1])
    return MemorySelection(tuple(memories), tuple(pointers), span=max(rule.pointer_reach, 1))


def least_box_iou(chosen: Tensor, rivals: Tensor) -> float:
    """The least IoU of a mask's box with that of the mask and a rival's largest other part; masks are (H, W)."""
    others = [rival & ~chosen for rival in rivals]
    boxes = [mask_box(chosen | largest_part(other)) for other in others if other.any()]
    return min((iou_of_pair(mask_box(chosen), box) for box in boxes), default=1.0)
