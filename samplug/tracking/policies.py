"""Which mask an object takes, which frames it looks back at, and which it can forget: a policy's three decisions.

A policy belongs to one object in one pass over a stream and may remember what it has seen. Frames are numbered from 0
without gaps; *behind* and *ahead* follow the direction of travel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from samplug.nn.frames import FrameOutput
from samplug.nn.recall import MAX_POINTERS, Recall, recall, remembered_slots
from samplug.nn.types import Answer


@dataclass(frozen=True)
class Rule:
    """What the network and the stream say about looking back; the fields are those of `recall`."""

    num_maskmem: int = 7
    max_pointers: int = MAX_POINTERS
    max_prompted: int = -1
    stride: int = 1
    num_frames: int | None = None
    reverse: bool = False
    past_pointers_only: bool = True

    @property
    def direction(self) -> int:
        """1 forwards, -1 backwards."""
        return -1 if self.reverse else 1

    @property
    def recent(self) -> int:
        """How many memories besides those of prompted frames."""
        return self.num_maskmem - 1

    @property
    def reach(self) -> int:
        """How many frames back the oldest pointer of a tracked frame lies."""
        return min(self.max_pointers, self.num_frames or self.max_pointers) - 1

    def behind(self, frame: int, other: int) -> int:
        """How many steps of travel `other` lies behind `frame`."""
        return (frame - other) * self.direction


@dataclass(frozen=True)
class Kept:
    """What later frames can still ask for.

    Attributes:
        memories: frames whose memory they may look back at; their pointers stay too.
        pointers: frames of which only the pointer may be.
    """

    memories: frozenset[int]
    pointers: frozenset[int] = frozenset()


class Policy(Protocol):
    """How one object makes use of its past. Write your own by deriving from `Reference`."""

    present_above: float
    """An object whose presence logit is not above this gets an empty mask and the pointer of absent objects."""

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Take one of several masks (1, M, 4h, 4w) of a tracked frame; None for the one of largest predicted IoU."""

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Learn a frame's answer; `answer` holds all its masks, None where the user prompted.

        Returns:
            Whether to remember it. A prompted frame is remembered in any case. A frame may come again when it is
            corrected.
        """

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Recall:
        """Choose what to look back at from `frame`: of the prompted frames, at least one, and the tracked ones."""

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Say what `select` can ask for on any frame ahead of `frame`, `frame` itself included among the answers."""


class Reference:
    """SAM 2's own rule (Ravi et al., 2024): the best mask; the prompted frames, and the frames just before."""

    present_above = 0.0

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Leave it to the predicted IoU."""
        return None

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Remember every frame."""
        return True

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Recall:
        """See `samplug.nn.recall.recall`."""
        return recall(frame, prompted, tracked, **vars(rule))

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Keep the memories at the stride, the pointers in reach, and as many prompted frames as may be chosen."""
        stored = {*prompted, *tracked}
        anchors = last_prompted(frame, prompted, rule)
        return Kept(anchors | (slots_ahead(frame, rule) & stored), pointers_ahead(frame, stored, rule))


def last_prompted(frame: int, prompted: Collection[int], rule: Rule) -> frozenset[int]:
    """Prompted frames that still count: all that lie ahead, and the last ones of the others."""
    passed = sorted((f for f in prompted if rule.behind(frame, f) >= 0), key=lambda f: rule.behind(frame, f))
    return frozenset(prompted) - frozenset([] if rule.max_prompted == -1 else passed[rule.max_prompted :])


def slots_ahead(frame: int, rule: Rule) -> frozenset[int]:
    """Frames up to `frame` that the reference rule asks for on the frames ahead of it."""
    ahead = range(1, rule.recent * rule.stride + 2)
    slots = (remembered_slots(frame + d * rule.direction, rule.recent, rule.stride, rule.direction) for d in ahead)
    return frozenset(f for each in slots for f, _ in each if rule.behind(frame, f) >= 0)


def pointers_ahead(frame: int, stored: Collection[int], rule: Rule) -> frozenset[int]:
    """Frames up to `frame` whose pointers are in reach of the next one."""
    return frozenset(f for f in stored if 0 <= rule.behind(frame, f) < rule.reach)


class PresenceGate(Reference):
    """The reference rule, but frames without the object are not remembered: their slots stay empty."""

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Remember frames where the object is present and has a mask."""
        return is_visible(output)


def is_visible(output: FrameOutput) -> bool:
    """Whether an object has any pixel; one that is absent has none."""
    return bool((output.logits > 0).any())
