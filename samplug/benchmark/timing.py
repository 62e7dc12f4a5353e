"""Clocks: work on a device timed until it is done, several implementations by turns, and how long it will all take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds that work takes until its result is there, and the result."""
    finish(device)
    start = time.perf_counter()
    result = work()
    finish(device)
    return time.perf_counter() - start, result


def by_turns(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    tick: Callable[[str], None],
    warm: bool = True,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Time several works in every round, so that what disturbs the machine disturbs all of them.

    Args:
        works: by the name of who does them.
        rounds: timed ones.
        device: where they run.
        tick: told who is done, after each run.
        warm: whether another round goes before and is not timed.

    Returns:
        The seconds of each, and what each gave first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, Any] = {}
    names = list(works)
    for i in range(rounds + warm):
        for name in rotated(names, i):  # nobody always comes first
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
    """A line on the screen that says what runs and how long the rest should take."""

    def __init__(self, total: float, silent: bool = False) -> None:
        """Begin.

        Args:
            total: the weights of all that will run, in any unit.
            silent: say nothing.
        """
        self.total, self.done, self.start = total, 0.0, time.monotonic()
        self.silent, self.live = silent, sys.stderr.isatty()

    def tick(self, what: str, weight: float) -> None:
        """Count something as done."""
        self.done += weight
        if not self.silent and self.live:
            print(f"\r\033[K{self.line(what)}", end="", file=sys.stderr, flush=True)

    def line(self, what: str) -> str:
        """What was done last, the share of all, and the time that the rest should take."""
        share = min(1.0, self.done / self.total) if self.total else 1.0
        left = (time.monotonic() - self.start) * (1 / share - 1) if share else 0.0
        return f"{100 * share:3.0f} %, {spoken(left)} left: {what}"

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if not self.silent:
            print(("\r\033[K" if self.live else "") + line, flush=True)


def spoken(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
