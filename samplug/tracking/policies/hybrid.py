"""A policy composed of two: one for recent memories, one for anchors (arXiv 2512.22624)."""

from __future__ import annotations

from collections.abc import Collection

from samplug.nn.memory.frames import FrameOutput
from samplug.nn.memory.selection import MemorySelection
from samplug.nn.structs import Answer
from samplug.tracking.policies.base import Kept, Policy, Reference, Rule
from samplug.tracking.policies.distractors import Distractors, selection_of
from samplug.tracking.policies.motion import Motion


class Hybrid(Reference):
    """The choice and the recent memories of one policy beside the anchors of `Distractors` (arXiv 2512.22624)."""

    def __init__(self, short: Policy | None = None, long: Distractors | None = None) -> None:
        """Compose.

        Args:
            short: chooses masks and recent memories; None for `Motion`.
            long: finds anchors; None for `Distractors` as published.
        """
        self.short, self.long = short or Motion(), long or Distractors()
        self.present_above = self.short.present_above

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Leave it to the short-term policy."""
        return self.short.choose(frame, answer)

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Encode what both would."""
        return all([policy.observe(frame, output, answer) for policy in (self.short, self.long)])  # noqa: C419, both observe

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> MemorySelection:
        """Select the anchors, and recent memories for the slots that are left, the newest in slot 0."""
        anchors = self.long.anchors(frame, prompted, tracked, rule)
        memories = self.short.select(frame, prompted, tracked, rule).memories
        recent = [f for f, slot in reversed(memories) if slot < rule.num_recent and f not in anchors]
        return selection_of(frame, anchors, recent[: rule.num_recent - (len(anchors) - 1)], {*prompted, *tracked}, rule)

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep what either can select."""
        short, long = (policy.keep(frame, prompted, tracked, rule) for policy in (self.short, self.long))
        return Kept(short.memories | long.memories, short.pointers | long.pointers)
