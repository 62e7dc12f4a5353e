"""One object of a stream: its prompts, its records, and how both are forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from samplug.nn.frames import FrameOutput, Past
from samplug.nn.recall import Recall
from samplug.nn.types import Answer, PromptBatch
from samplug.tracking.policies import Policy, Rule


@dataclass(eq=False)
class Track:
    """One object. Its id never changes.

    Attributes:
        obj_id: the user's number for it.
        policy: how it makes use of its past.
        clicks: the user's clicks and boxes by frame; empty where a mask was given.
        records: what is remembered, by frame: with a memory, or with the pointer alone.
        prompted: frames with the time embedding of prompted ones, in the order they were given.
        starts: those of them that were answered without looking back, as they were prompted before they were tracked.
        span: the first and the last frame answered in this pass.
        current: the answer on the frame in hand.
        to_remember: whether `current` is to be remembered, and is not yet.
        last_seen: the last frame of this pass where the object was present, at first the one before its first.
    """

    obj_id: int
    policy: Policy
    clicks: dict[int, PromptBatch] = field(default_factory=dict)
    records: dict[int, FrameOutput] = field(default_factory=dict)
    prompted: list[int] = field(default_factory=list)
    starts: set[int] = field(default_factory=set)
    span: tuple[int, int] | None = None
    current: FrameOutput | None = None
    to_remember: bool = False
    last_seen: int | None = None

    def anchors(self, besides: int | None = None) -> list[int]:
        """Prompted frames that have a memory, but for one."""
        return [f for f in self.prompted if f in self.records and f != besides]

    def tracked(self) -> list[int]:
        """The other frames that are remembered."""
        return [f for f in self.records if f not in self.prompted]

    def has_come(self, frame: int, rule: Rule) -> bool:
        """Whether the object was prompted on a frame behind this one."""
        return any(rule.behind(frame, f) > 0 for f in self.anchors(frame))

    def starts_at(self, frame: int) -> bool:
        """Whether a prompt on this frame is answered without looking back: it is not a correction."""
        answered = self.span is not None and self.span[0] <= frame <= self.span[1]
        return frame in self.starts or not answered or not self.anchors(frame)

    def previous(self, frame: int) -> Tensor | None:
        """The last logits on this frame (1, 4h, 4w), while they are there."""
        last = self.current or self.records.get(frame)
        return last.logits if last is not None and last.logits.numel() else None

    def past(self, frame: int, rule: Rule) -> Past:
        """Collect what the policy looks back at."""
        chosen = self.policy.select(frame, self.anchors(frame), self.tracked(), rule)
        return Past.gather(self._in_order(chosen), self.records)

    def _in_order(self, recall: Recall) -> Recall:
        """Oldest first, so that sums do not depend on when prompts were given; memories that are gone are left out."""
        memories = [(f, slot) for f, slot in recall.memories if self.records[f].memory is not None]
        memories.sort(key=lambda memory: (-memory[1], memory[0]))
        return replace(recall, memories=tuple(memories), pointers=tuple(sorted(recall.pointers)))

    def prompt(self, frame: int, given: PromptBatch, output: FrameOutput, starts: bool, prompted: bool) -> None:
        """Take the answer to a prompt on the frame in hand, which may make it a start or a prompted frame."""
        self.clicks[frame], self.current, self.to_remember = given, output, True
        if starts:
            self.starts.add(frame)
        if prompted and frame not in self.prompted:
            self.prompted.append(frame)
        self.policy.observe(frame, output, None)

    def take(self, frame: int, output: FrameOutput, answer: Answer) -> None:
        """Take the answer on a tracked frame, and all masks that it was chosen from."""
        self.records.pop(frame, None)
        self.current = output
        self.to_remember = self.policy.observe(frame, output, answer)

    def passed(self, frame: int) -> None:
        """Note that this pass has answered a frame."""
        first, last = self.span or (frame, frame)
        self.span = min(first, frame), max(last, frame)

    def is_gone(self, frame: int, expire_after: int, rule: Rule) -> bool:
        """Whether the object, answered on this frame, has been absent for so many frames."""
        assert self.current is not None
        if self.last_seen is None:
            self.last_seen = frame - rule.direction
        if self.current.presence.item() > 0:
            self.last_seen = frame
        return rule.behind(frame, self.last_seen) >= expire_after

    def remember(self, frame: int, memory: Tensor) -> None:
        """Add the memory to the answer on the frame in hand, and keep both."""
        assert self.current is not None
        self.current, self.to_remember = replace(self.current, memory=memory), False
        self.records[frame] = self.current

    def forget(self, frame: int, rule: Rule) -> None:
        """Leave a frame: drop what none ahead of it can ask for, and the logits of tracked ones."""
        kept = self.policy.keep(frame, self.anchors(), self.tracked(), rule)
        for f in self.tracked():
            self.records[f] = without_maps(self.records[f], memory=f not in kept.memories)
        for f in self.records.keys() - kept.memories - kept.pointers:
            self.drop(f)

    def clear_around(self, frame: int, radius: int) -> None:
        """Drop what was tracked on the frames around this one."""
        for f in self.tracked():
            if 0 < abs(f - frame) <= radius:
                self.drop(f)

    def drop(self, frame: int) -> None:
        """Forget a frame, its prompts included."""
        self.records.pop(frame, None)
        self.clicks.pop(frame, None)
        self.starts.discard(frame)
        self.prompted = [f for f in self.prompted if f != frame]

    def restart(self, policy: Policy) -> None:
        """Begin another pass: what was tracked is forgotten, what was prompted stays."""
        for frame in self.tracked():
            self.drop(frame)
        self.policy, self.span, self.current, self.last_seen = policy, None, None, None

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        held = [*self.records.values(), *self.clicks.values(), self.current]
        fields = (value for item in held if item is not None for value in vars(item).values())
        return [value for value in fields if isinstance(value, Tensor)]


def without_maps(record: FrameOutput, memory: bool) -> FrameOutput:
    """A record without its logits, and without its memory too if that is said."""
    return replace(record, logits=record.logits.new_empty(1, 0, 0), memory=None if memory else record.memory)


def joined(before: PromptBatch | None, given: PromptBatch) -> PromptBatch:
    """Clicks after those that were given before; a later box replaces the one before."""
    if before is None:
        return given
    return replace(
        given,
        points=in_a_row(before.points, given.points),
        labels=in_a_row(before.labels, given.labels),
        boxes=before.boxes if given.boxes is None else given.boxes,
    )


def in_a_row(before: Tensor | None, after: Tensor | None) -> Tensor | None:
    """(1, P, …) and (1, Q, …) as (1, P + Q, …)."""
    parts = [part for part in (before, after) if part is not None]
    return torch.cat(parts, dim=1) if parts else None
