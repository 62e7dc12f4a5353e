"""Memory policies: which mask an object takes, which frames it attends to, and which it can drop.

A policy belongs to one object in one pass over a stream and may have a state. Frames are numbered from 0 without gaps;
*before* and *after* follow the direction of travel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from samplug.nn.memory.frames import FrameOutput
from samplug.nn.memory.selection import MAX_POINTERS, MemorySelection, remembered_slots, select_memories
from samplug.nn.structs import Answer


@dataclass(frozen=True)
class Rule:
    """The options of memory selection; the fields are those of `select_memories`."""

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
    def num_recent(self) -> int:
        """How many memories are selected besides those of prompted frames."""
        return self.num_maskmem - 1

    @property
    def pointer_reach(self) -> int:
        """The distance of the oldest pointer of a tracked frame."""
        return min(self.max_pointers, self.num_frames or self.max_pointers) - 1

    def distance(self, frame: int, other: int) -> int:
        """How many frames `other` lies before `frame`; negative after it."""
        return other - frame if self.reverse else frame - other


@dataclass(frozen=True)
class Kept:
    """The frames that later ones can still select."""

    memories: frozenset[int]  # frames whose memory and pointer are kept
    pointers: frozenset[int] = frozenset()  # frames of which only the pointer is kept


class Reference:
    """How one object uses its memory: SAM 2's own rule (Ravi et al., 2024). Derive policies of your own from it.

    Attributes:
        present_above: an object whose presence logit is not above this gets an empty mask and the pointer of absent
            objects.
    """

    present_above: float = 0.0

    def choose(self, frame: int, answer: Answer) -> int | None:
        """Choose one of several masks (1, M, 4h, 4w) of a tracked frame; None for the largest predicted IoU."""
        return None

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Take note of a frame's output; `answer` holds all its masks, None where the user prompted.

        Returns:
            Whether to encode its memory; that of a prompted frame is encoded in any case. A frame comes again when it
            is corrected.
        """
        return True

    def select(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> MemorySelection:
        """Select memories and pointers for `frame`, among prompted frames, at least one, and tracked ones."""
        return select_memories(frame, prompted, tracked, **vars(rule))

    def keep(self, frame: int, prompted: Collection[int], tracked: Collection[int], rule: Rule) -> Kept:
        """Return what `select` can ask for on any frame after `frame`, `frame` itself included.

        Here: the memories at the stride, the pointers in reach, and as many prompted frames as may be selected.
        """
        stored = {*prompted, *tracked}
        last = last_prompted(frame, prompted, rule)
        return Kept(last | (slots_after(frame, rule) & stored), pointers_after(frame, stored, rule))


Policy = Reference  # any class with these methods will do


class PresenceGate(Reference):
    """The reference rule without memories of frames where the object is absent: their slots stay empty."""

    def observe(self, frame: int, output: FrameOutput, answer: Answer | None) -> bool:
        """Encode frames where the object is present and has a mask."""
        return is_visible(output)


def last_prompted(frame: int, prompted: Collection[int], rule: Rule) -> frozenset[int]:
    """Prompted frames that can still be selected: all that lie ahead, and the last ones of the others."""
    if rule.max_prompted == -1 or len(prompted) <= rule.max_prompted:
        return frozenset(prompted)
    passed = sorted((f for f in prompted if rule.distance(frame, f) >= 0), key=lambda f: rule.distance(frame, f))
    return frozenset(prompted) - frozenset(passed[rule.max_prompted :])


def slots_after(frame: int, rule: Rule) -> frozenset[int]:
    """Frames up to `frame` that the reference rule selects on the frames after it."""
    direction, recent = rule.direction, rule.num_recent
    later = [frame + direction * steps for steps in range(1, recent * rule.stride + 2)]
    slots = [slot for other in later for slot in remembered_slots(other, recent, rule.stride, direction)]
    return frozenset([f for f, _ in slots if (frame - f) * direction >= 0])


def pointers_after(frame: int, stored: Collection[int], rule: Rule) -> frozenset[int]:
    """Frames up to `frame` whose pointers are in reach of the next one."""
    direction, reach = rule.direction, rule.pointer_reach
    return frozenset([f for f in stored if 0 <= (frame - f) * direction < reach])


def is_visible(output: FrameOutput) -> bool:
    """Whether an object has any pixel; one that is absent has none."""
    return bool((output.logits > 0).any())
