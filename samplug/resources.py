"""Free memory and usable cores.

Memory is checked before it is allocated: a failing allocation can be reported, a process killed by the kernel cannot.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from samplug.errors import OutOfMemoryError

RESERVED = 0.1  # share of the free memory that is left for others
CGROUPS = (  # limit and usage of a container, in version 2 and 1 of control groups
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
MEMINFO = Path("/proc/meminfo")
GPU_MEMORY_ADVICE = (
    "give a smaller imgsz, half=True or a smaller network, free memory that other programs hold, or run on the CPU "
    "with device=cpu."
)


def require_memory(need: float, what: str, instead: str) -> None:
    """Refuse what needs more bytes than are free: OutOfMemoryError, never raised where free memory is unknown.

    `what` they are for is the subject of the message, what to do `instead` its end.
    """
    free = free_memory()
    if free is not None and need > free * (1 - RESERVED):
        raise OutOfMemoryError(
            f"{what} needs about {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: {instead}."
        )


def free_memory() -> int | None:
    """Bytes that are free on the machine and within the limit of its container; None where neither is known."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read(MEMINFO))
    known = [int(found[1]) * 1024] if found else []
    for limit, usage in CGROUPS:
        most = _read(limit).strip()  # empty where there is no group, "max" where there is no limit
        if most.isdecimal() and (used := _read(usage).strip()).isdecimal():
            cache = re.search(r"^inactive_file (\d+)", _read(limit.with_name("memory.stat")), re.MULTILINE)
            known.append(max(0, int(most) - int(used) + (int(cache[1]) if cache else 0)))  # a file cache is free
    return min(known, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
