"""Long jobs: how long they take is said as soon as it is known, then a bar shows the time that is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LOGGER = logging.getLogger("ultralytics")  # the host's by its name: the benchmark runs without the host too
LONG, HOURS = 20.0, 600.0  # seconds from which a job has a bar, and from which it is announced in any case


class JobProgress:
    """The progress of a job of several kinds of work, each timed by itself.

    `totals` says how much there is of each kind, the bar counts the last; `advice`, what makes the job shorter. With
    `verbose=False` there is no bar, and only jobs of hours are announced.
    """

    def __init__(self, totals: Mapping[str, int], advice: str, verbose: bool) -> None:
        self.totals, self.advice, self.verbose = totals, advice, verbose
        self._done = dict.fromkeys(totals, 0)
        self._seconds = dict.fromkeys(totals, 0.0)
        self._announced = False
        self._bar: Any = None

    def __enter__(self) -> JobProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @contextmanager
    def timed(self, kind: str, count: int = 1) -> Iterator[None]:
        """Do so much work of a kind."""
        began = time.monotonic()
        yield
        self._seconds[kind] += time.monotonic() - began
        self._done[kind] += count
        self._report(count if kind == self._unit else 0)

    @property
    def _unit(self) -> str:
        return [*self.totals][-1]

    @property
    def estimate(self) -> float:
        """Seconds that the whole job takes, as far as kinds of work have been timed."""
        return sum(self._seconds[kind] / done * self.totals[kind] for kind, done in self._done.items() if done)

    def _report(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)
            return
        estimate = self.estimate
        if self._announced or not self._done[self._unit] or estimate < (LONG if self.verbose else HOURS):
            return
        self._announced = True
        work = ", ".join(f"{total:,} {kind}s" for kind, total in self.totals.items())
        LOGGER.info(f"{work}: about {duration(estimate)}. {self.advice}")
        if self.verbose:
            from samplug.host import TQDM

            done, total = self._done[self._unit], self.totals[self._unit]
            self._bar = TQDM(total=total, initial=done, unit=self._unit)


class TimeLeft:
    """The time that is left of a clip, from the time its frames took so far."""

    def __init__(self) -> None:
        self._began, self._done = time.monotonic(), 0

    def after_frame(self, left: float) -> str:
        """Words for a line of the log once a frame is done and so many are left; "" for a short time."""
        self._done += 1
        seconds = (time.monotonic() - self._began) / self._done * left
        return f", {duration(seconds)} left" if seconds >= LONG else ""


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} hours"
