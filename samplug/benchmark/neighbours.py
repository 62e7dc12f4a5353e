"""Other processes on the machine: busy ones beside a benchmark, and how much of it others took."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

STAT = Path("/proc/stat")
BUSY = """
import os, torch
torch.set_num_threads(1)
image, kernel, parent = torch.randn(1, 64, 128, 128), torch.randn(64, 64, 3, 3), os.getppid()
print("busy", flush=True)
while os.getppid() == parent:  # a benchmark that was killed leaves no process behind
    torch.conv2d(image, kernel)
"""


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run so many busy processes of one thread.

    Each is in a session of its own, as another user's or a container's is: Linux shares the cores between sessions, so
    that `nice` does not count.
    """
    command = [sys.executable, "-c", BUSY]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True) for _ in range(count)
    ]
    try:
        for process in processes:
            if process.stdout is None or process.stdout.readline() != "busy\n":
                raise RuntimeError(f"A busy process ended with exit code {process.wait()} before it began.")
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@dataclass
class ForeignLoad:
    """How many cores other processes than this one and its children take, from its making on."""

    start: float = field(default_factory=time.monotonic)
    before: float | None = field(default_factory=lambda: foreign_seconds())

    def cores(self) -> float | None:
        """Their mean number; None where the system does not state it."""
        after = foreign_seconds()
        if self.before is None or after is None:
            return None
        return max(0.0, (after - self.before) / max(time.monotonic() - self.start, 1e-3))


def foreign_seconds() -> float | None:
    """Seconds that cores computed since the start of the system, without those of this process and its children."""
    if not STAT.exists():
        return None
    import resource  # Windows has none

    user, nice, system, _idle, _waiting, irq, softirq = map(int, STAT.read_text("ascii").split()[1:8])
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - own
