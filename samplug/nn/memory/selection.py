"""Which frames a tracker attends to: integers in, integers out, no network.

Frames are numbered from 0. A *prompted* frame got a click, a box or a mask from the user; a *tracked* one did not. A
*slot* is a row of the network's time embedding: row 0 for the newest tracked frame, the last row for prompted frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

MAX_POINTERS = 16  # as trained, the prompted frame's included


@dataclass(frozen=True)
class MemorySelection:
    """The memories and pointers that one object attends to on one frame.

    A pointer's distance counts frames back along the direction of travel: it is negative for a frame still ahead.
    """

    memories: tuple[tuple[int, int], ...]  # (frame, slot) of each, prompted frames first, then oldest to newest
    pointers: tuple[tuple[int, int], ...]  # (frame, distance) of each
    span: int = MAX_POINTERS - 1  # the distance whose time code is 1


def select_memories(
    frame: int, prompted: Collection[int], tracked: Collection[int], *, num_frames: int | None = None,
    num_maskmem: int = 7, max_prompted: int = -1, max_pointers: int = MAX_POINTERS, stride: int = 1,
    reverse: bool = False, past_pointers_only: bool = True,
) -> MemorySelection:  # fmt: skip
    """Choose by the reference rule of SAM 2 (Ravi et al., 2024).

    Args:
        frame: the frame to be segmented.
        prompted: prompted frames that have a memory, in the order they were given.
        tracked: tracked frames that have a memory.
        num_frames: length of the video; None for a stream, which has no end.
        num_maskmem: rows of the time embedding: one for prompted frames, the others for tracked ones.
        max_prompted: how many prompted frames count, at least 2; -1 for all of them.
        max_pointers: how many pointers at most, save that all chosen prompted frames have theirs.
        stride: frames between two remembered ones; the frame just before always counts.
        reverse: whether the video is walked from its end to its start.
        past_pointers_only: leave out the pointers of prompted frames that were not reached yet.

    Raises:
        ValueError: no prompted frame, or `max_prompted` is 0 or 1.
    """
    if not prompted:
        raise ValueError(f"Frame {frame} has no prompted frame to attend to: prompt a frame before tracking.")
    direction = -1 if reverse else 1
    reach = max_pointers if num_frames is None else min(num_frames, max_pointers)
    chosen = nearest_prompted(frame, prompted, max_prompted)
    # A prompted frame that was not chosen still counts where a tracked frame would.
    stored = set(tracked) | (set(prompted) - set(chosen))

    slots = remembered_slots(frame, num_maskmem - 1, stride, direction)
    memories = [(f, num_maskmem - 1) for f in chosen] + [(f, slot) for f, slot in slots if f in stored]
    distances = [(f, (frame - f) * direction) for f in chosen]
    pointers = [(f, d) for f, d in distances if d >= 0 or not past_pointers_only]
    pointers += [(f, d) for d in range(1, reach) if (f := frame - d * direction) in stored]
    return MemorySelection(tuple(memories), tuple(pointers), span=max(reach - 1, 1))


def nearest_prompted(frame: int, prompted: Collection[int], most: int = -1) -> list[int]:
    """Choose up to `most` prompted frames: the last before `frame`, the first at or after it, then the nearest."""
    if most in (0, 1) or most < -1:
        raise ValueError(
            f"max_prompted={most} does not allow for a prompted frame on either side: give 2 or more, or -1 for all."
        )
    if most == -1 or len(prompted) <= most:
        return list(prompted)
    before = sorted(f for f in prompted if f < frame)
    after = sorted(f for f in prompted if f >= frame)
    chosen = before[-1:] + after[:1]
    others = sorted((f for f in prompted if f not in chosen), key=lambda f: abs(f - frame))
    return chosen + others[: most - len(chosen)]


def remembered_slots(frame: int, count: int, stride: int = 1, direction: int = 1) -> Iterator[tuple[int, int]]:
    """Yield (frame, slot) of the `count` tracked frames the rule asks for, oldest first, whether they exist or not."""
    for slot in reversed(range(count)):
        # Counted along the direction of travel, both directions round towards the frames already seen.
        behind = (frame * direction - 2) // stride * stride - (slot - 1) * stride
        yield (frame - direction if slot == 0 else behind * direction), slot
