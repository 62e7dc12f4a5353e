"""One object of a stream: its prompts, its records, and which of both are dropped."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.structs import Answer, PromptBatch
from samplug.tracking.policies.base import Policy, Rule

STRUCTS: dict[str, Any] = {"clicks": PromptBatch, "records": FrameOutput}  # fields that hold tensors by frame
UNCHANGING, SHARED = (int, float, bool, str, tuple, type(None)), (Tensor, nn.Module)  # what no policy needs a copy of


@dataclass(eq=False)
class Track:
    """One object."""

    obj_id: int  # the user's number for it
    policy: Policy  # chooses its masks and memories
    clicks: dict[int, PromptBatch] = field(default_factory=dict)  # and boxes by frame; empty where a mask was given
    records: dict[int, FrameOutput] = field(default_factory=dict)  # by frame: with a memory, or with the pointer alone
    prompted: list[int] = field(default_factory=list)  # frames with the time embedding of prompted ones, as they came
    initial: set[int] = field(default_factory=set)  # those segmented without memory: prompted before they were tracked
    span: tuple[int, int] | None = None  # the first and the last frame of this pass with an output
    current: FrameOutput | None = None  # the output on the current frame
    memory_pending: bool = False  # whether the memory of `current` is still to be encoded
    last_seen: int | None = None  # the last frame of this pass with the object, at first the one before its first

    def prompted_frames(self, besides: int | None = None) -> list[int]:
        """Prompted frames that have a memory, but for one."""
        return [f for f in self.prompted if f in self.records and f != besides]

    def tracked_frames(self) -> list[int]:
        """The other frames that have a record."""
        return [f for f in self.records if f not in self.prompted]

    def can_be_tracked(self, frame: int, rule: Rule) -> bool:
        """Whether the object was prompted on a frame before this one."""
        return any(rule.distance(frame, f) > 0 for f in self.prompted_frames(frame))

    def is_initial(self, frame: int) -> bool:
        """Whether a prompt on this frame is segmented without memory: it is not a correction."""
        has_output = self.span is not None and self.span[0] <= frame <= self.span[1]
        return frame in self.initial or not has_output or not self.prompted_frames(frame)

    def previous_logits(self, frame: int) -> Tensor | None:
        """The last logits on this frame (1, 4h, 4w), while they are stored."""
        last = self.current or self.records.get(frame)
        return last.logits if last is not None and last.logits.numel() else None

    def memory_context(self, frame: int, rule: Rule) -> MemoryContext:
        """Collect the memories and pointers that the policy selects, oldest first.

        The order keeps sums independent of when prompts were given. Memories that were dropped are left out.
        """
        selection = self.policy.select(frame, self.prompted_frames(frame), self.tracked_frames(), rule)
        memories = [(f, slot) for f, slot in selection.memories if self.records[f].memory is not None]
        memories.sort(key=lambda memory: (-memory[1], memory[0]))
        pointers = tuple(sorted(selection.pointers))
        return MemoryContext.gather(replace(selection, memories=tuple(memories), pointers=pointers), self.records)

    def add_prompted(
        self, frame: int, prompts: PromptBatch, output: FrameOutput, initial: bool, prompted: bool
    ) -> None:
        """Add the output of a prompt on the current frame, which may make it an initial or a prompted frame."""
        self.clicks[frame], self.current, self.memory_pending = prompts, output, True
        if initial:
            self.initial.add(frame)
        if prompted and frame not in self.prompted:
            self.prompted.append(frame)
        self.policy.observe(frame, output, None)

    def add_tracked(self, frame: int, output: FrameOutput, answer: Answer) -> None:
        """Add the output on a tracked frame, and all masks that it was chosen from."""
        self.records.pop(frame, None)
        self.current = output
        self.memory_pending = self.policy.observe(frame, output, answer)

    def add_memory(self, frame: int, memory: Tensor) -> None:
        """Add the memory to the output on the current frame, and record both."""
        assert self.current is not None
        self.current, self.memory_pending = replace(self.current, memory=memory), False
        self.records[frame] = self.current

    def extend_span(self, frame: int) -> None:
        """Note that this pass has an output on a frame."""
        first, last = self.span or (frame, frame)
        self.span = min(first, frame), max(last, frame)

    def is_expired(self, frame: int, expire_after: int, rule: Rule) -> bool:
        """Whether the object, with an output on this frame, has been absent for so many frames."""
        assert self.current is not None
        if self.last_seen is None:
            self.last_seen = frame - rule.direction
        if self.current.presence.item() > 0:
            self.last_seen = frame
        return rule.distance(frame, self.last_seen) >= expire_after

    def prune(self, frame: int, rule: Rule) -> None:
        """Drop what no frame after this one can select, and the logits of tracked frames."""
        tracked = self.tracked_frames()
        kept = self.policy.keep(frame, self.prompted_frames(), tracked, rule)
        for f in tracked:
            record = self.records[f]
            memory = record.memory if f in kept.memories else None
            self.records[f] = replace(record, logits=record.logits.new_empty(1, 0, 0), memory=memory)
        for f in self.records.keys() - kept.memories - kept.pointers:
            self.drop(f)

    def drop_tracked_around(self, frame: int, radius: int) -> None:
        """Drop the tracked frames around this one."""
        for f in self.tracked_frames():
            if 0 < abs(f - frame) <= radius:
                self.drop(f)

    def drop(self, frame: int) -> None:
        """Drop a frame, its prompts included."""
        self.records.pop(frame, None)
        self.clicks.pop(frame, None)
        self.initial.discard(frame)
        self.prompted = [f for f in self.prompted if f != frame]

    def restart(self, policy: Policy) -> None:
        """Start another pass: tracked frames are dropped, prompted ones stay."""
        for frame in self.tracked_frames():
            self.drop(frame)
        self.policy, self.span, self.current, self.last_seen = policy, None, None, None

    def copied(self) -> Track:
        """The object as it is now, with the same tensors: what is done to this one does not change it."""
        policy = copy_state(self.policy, {}) if getattr(self.policy, "__dict__", None) else self.policy
        clicks, records = {**self.clicks}, {**self.records}
        return replace(
            self, policy=policy, clicks=clicks, records=records, prompted=[*self.prompted], initial={*self.initial}
        )

    def state(self) -> dict[str, Any]:
        """All but the current output, as plain values and tensors."""
        assert not self.memory_pending, "a state is that after a step"
        values = {"obj_id": self.obj_id, "prompted": [*self.prompted], "span": self.span, "last_seen": self.last_seen}
        structs = {name: {f: dict(vars(each)) for f, each in getattr(self, name).items()} for name in STRUCTS}
        return {**values, **structs, "initial": sorted(self.initial), "policy": vars(copy_state(self.policy, {}))}

    @staticmethod
    def of_state(state: dict[str, Any], policy: Policy) -> Track:
        """The object of a state, with a new policy that takes over the state of its own."""
        vars(policy).update(state["policy"])
        structs = {name: {f: kind(**each) for f, each in state[name].items()} for name, kind in STRUCTS.items()}
        return Track(**{**state, **structs, "initial": set(state["initial"]), "policy": policy})


def copy_state(value: Any, copies: dict[int, Any]) -> Any:
    """A policy, or a part of one, with its containers and objects copied, at any depth; `copies`: those made so far.

    Tensors, networks and what cannot be copied are shared: this is done on every frame.
    """
    if type(value) in UNCHANGING or isinstance(value, SHARED):
        return value
    if id(value) in copies:
        return copies[id(value)]
    try:
        copied = copies[id(value)] = copy(value)
    except TypeError:  # a lock, an open file
        return value
    if isinstance(value, dict):
        copied.update({key: copy_state(item, copies) for key, item in value.items()})
    elif isinstance(value, list):
        copied[:] = [copy_state(item, copies) for item in value]
    elif hasattr(value, "__dict__") and copied is not value:  # functions and classes are their own copies
        vars(copied).update(copy_state(vars(value), copies))
    return copied


def add_clicks(before: PromptBatch | None, prompts: PromptBatch) -> PromptBatch:
    """Clicks after those that were given before; a later box replaces the one before."""
    if before is None:
        return prompts

    def join(earlier: Tensor | None, later: Tensor | None) -> Tensor | None:
        parts = [part for part in (earlier, later) if part is not None]
        return torch.cat(parts, dim=1) if parts else None

    return replace(
        prompts,
        points=join(before.points, prompts.points),
        labels=join(before.labels, prompts.labels),
        boxes=before.boxes if prompts.boxes is None else prompts.boxes,
    )
