"""How much memory there is, asked before it is taken: an allocation that fails can be told, the kernel's killer cannot.

Standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

SPARE = 0.1  # of what is free stays free: others allocate too
GROUPS = (  # of a container: its limit and what is used of it, of control groups in version 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
MEMINFO = Path("/proc/meminfo")
ON_A_GPU = (  # what to do where a GPU has too little
    "give a smaller imgsz, half=True or a smaller network, free memory that other programs hold, or run on the CPU "
    "with device=cpu."
)


class RoomError(MemoryError):
    """Something would need more memory than there is; the message says how much."""


def check(need: float, what: str, instead: str) -> None:
    """Refuse what would not fit.

    Args:
        need: Bytes that are about to be taken.
        what: What for, as the beginning of a sentence.
        instead: What to do instead, as the end of it.

    Raises:
        RoomError: If less is free. Where nobody knows how much is free, nothing is refused.
    """
    free = available()
    if free is not None and need > free * (1 - SPARE):
        raise RoomError(f"{what} needs about {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: {instead}.")


def available() -> int | None:
    """Bytes that this process may still take: what the machine has free, and no more than its container may."""
    free = [left for left in (_of_machine(), *map(_of_group, *zip(*GROUPS, strict=True))) if left is not None]
    return min(free, default=None)


def _of_machine() -> int | None:
    found = re.search(r"MemAvailable:\s*(\d+) kB", _text(MEMINFO))
    return int(found[1]) * 1024 if found else None


def _of_group(limit: Path, used: Path) -> int | None:
    """What a container has left; files in its cache count as free, as far as this version tells them."""
    most, now = _text(limit).strip(), _text(used).strip()
    if not (most.isdecimal() and now.isdecimal()):
        return None  # there is no group, or no limit ("max")
    cache = re.search(r"^inactive_file (\d+)", _text(limit.with_name("memory.stat")), re.MULTILINE)
    return max(0, int(most) - int(now) + (int(cache[1]) if cache else 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
