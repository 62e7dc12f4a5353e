"""Threads that only sleep, beside which those that compute wait for each other briefly."""

import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import torch

from samplug.resources import usable_cores

CROWDED, CALM = 0.1, 0.02  # shares of the time that threads want a core in which they wait for one
PERIOD = 0.25  # seconds between two judgements
LEAST = 50_000_000  # ns of wanted time that say something
LOOKS, PAUSE = 3, 1e-3  # at what runs, before anything was counted; seconds between them
WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # environment variables that decide how OpenMP's threads wait


@dataclass
class Crowding:
    """Whether others compute on the cores that this process wants, by what Linux counts for it."""

    tasks: Path = Path("/proc/self/task")  # in each thread's `schedstat` the ns that it ran, and waited for a core
    load: Path = Path("/proc/loadavg")  # how many threads of the whole machine run at the moment
    before: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)  # by thread, when it was last judged

    def judge(self, threads: int, cores: int) -> bool | None:
        """Whether there are others, or None where what was counted since the last time does not tell."""
        try:
            before, self.before = self.before, self._counted()
            if not before:
                return self._more_run_than_cores(threads, cores)
        except (OSError, ValueError):  # a kernel that does not count, or no Linux
            return None
        both = [(*before[name], *now) for name, now in self.before.items() if name in before]
        waited = sum(now - then for _, then, _, now in both)
        wanted = sum(now - then for then, _, now, _ in both) + waited
        if wanted < LEAST or CALM <= waited / wanted <= CROWDED:
            return None
        return waited / wanted > CROWDED

    def _counted(self) -> dict[str, tuple[int, int]]:
        counted = {}
        for task in self.tasks.iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
                ran, waited = (task / "schedstat").read_text().split()[:2]
                counted[task.name] = int(ran), int(waited)
        return counted

    def _more_run_than_cores(self, threads: int, cores: int) -> bool:
        """Whether our threads would be too many, at every look: what comes and goes is passed over."""
        for _ in range(LOOKS):
            running = int(self.load.read_text().split()[3].partition("/")[0])
            if running - 1 + threads <= cores:
                return False
            sleep(PAUSE)
        return True


class IdleTeam:
    """OpenMP threads that sleep, so that those that compute wait awake for microseconds instead of milliseconds.

    A thread that has finished its share of a loop spins until the others have. If another process took their core, it
    spins on the core that they could run on. GNU's OpenMP, which torch's wheels for Linux bring, spins for up to
    300,000 turns, but for 1,000 where a process has more threads than cores (`GOMP_SPINCOUNT` in libgomp's manual):
    these are the threads too many. OMP_WAIT_POLICY=passive does the same, but is read when torch is loaded.
    """

    def __init__(self) -> None:
        self._lock, self._cores, self._crowding = threading.Lock(), usable_cores(), Crowding()
        self.next_look = 0.0  # when it is judged again whether it is crowded, by the monotonic clock
        self._end: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def adapt(self, at_once: bool = False) -> None:
        """Make the team where others want the cores, dissolve it where they do not: alone, waiting awake is faster."""
        if monotonic() < self.next_look and not at_once:
            return
        self.next_look = monotonic() + PERIOD
        crowded = self._crowding.judge(torch.get_num_threads(), self._cores)
        if crowded:
            self.start()
        elif crowded is False:
            self.stop()

    def start(self) -> None:
        """Make the team, unless it is there, has no effect here, or the user decided how threads wait."""
        threads = torch.get_num_threads()
        if sys.platform != "linux" or threads == 1 or any(name in os.environ for name in WAIT_SETTINGS):
            return
        with self._lock:
            if self._thread is None:
                ready, self._end = threading.Event(), threading.Event()
                size = max(2, self._cores - threads + 2)  # one more than the cores, with those that compute
                arguments = (size, ready, self._end)
                self._thread = threading.Thread(target=_sleep_as_team, args=arguments, name="idle team", daemon=True)
                self._thread.start()
                ready.wait()
                torch.set_num_threads(threads)  # threads to come take the number that was set last

    def stop(self) -> None:
        """Dissolve the team."""
        with self._lock:
            if self._thread is not None and self._end is not None:
                self._end.set()
                self._thread.join()
                self._thread = None


def _sleep_as_team(size: int, ready: threading.Event, end: threading.Event) -> None:
    """Run one parallel loop, whose threads stay with this one, and wait for the end."""
    torch.set_num_threads(size)  # of this thread alone
    torch.zeros(size << 16).add_(1)
    ready.set()
    end.wait()


IDLE_TEAM = IdleTeam()
