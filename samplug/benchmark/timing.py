"""Clocks: work on a device timed until it is done, several implementations by turns, and how long it will all take."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from samplug.runtime.progress import duration

Result = TypeVar("Result")


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds that work takes until its result is there, and the result."""
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - start, result


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    tick: Callable[[str], None],
    warm: bool = True,
    around: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Time several works in every round, so that what disturbs the machine disturbs all of them.

    Works go by the name of who does them. `tick` is called with it after each run, `around` makes the surroundings of a
    run from it, which are not timed. If `warm`, a round that is not timed goes before.

    Returns:
        The seconds of each, and the first result of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, Any] = {}
    names = list(works)
    for i in range(rounds + warm):
        for name in rotated(names, i):  # nobody always comes first
            with around(name):
                taken, result = timed(works[name], device)
            results.setdefault(name, result)
            if i >= warm:
                seconds[name].append(taken)
            tick(name)
    return seconds, results


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names, beginning with another one."""
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


class Progress:
    """A line on the screen: what runs, and how long the rest should take."""

    def __init__(self, total: float, silent: bool = False) -> None:
        """Start the clock; `total` adds up the weights of all that will run, in any unit."""
        self.total, self.done, self.start = total, 0.0, time.monotonic()
        self.silent, self.live = silent, sys.stderr.isatty()

    def tick(self, what: str, weight: float) -> None:
        """Count something as done."""
        self.done += weight
        if not self.silent and self.live:
            print(f"\r\033[K{self.line(what)}", end="", file=sys.stderr, flush=True)

    def line(self, what: str) -> str:
        """The share of all that is done, the time that the rest should take, and what was done last."""
        share = min(1.0, self.done / self.total) if self.total else 1.0
        left = (time.monotonic() - self.start) * (1 / share - 1) if share else 0.0
        return f"{100 * share:3.0f} %, {duration(left)} left: {what}"

    def write(self, line: str) -> None:
        """Print a line that stays."""
        if not self.silent:
            print(("\r\033[K" if self.live else "") + line, flush=True)
