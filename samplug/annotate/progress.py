"""How far a job is: a bar on the screen, and status.json for whoever looks from outside."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from samplug.annotate.plan import Shard
from samplug.files.atomic import atomic_write
from samplug.host import TQDM

STATUS_INTERVAL = 0.5  # seconds, at least, from one status.json to the next
RATE_SECONDS = 60.0  # what is older hardly counts in the rate


class MeanRateBar(TQDM):
    """A bar whose rate is the mean so far: Ultralytics' own falls while a video runs, its ETA to centuries."""

    def _display(self, final: bool = False) -> None:
        now = time.time()
        mean = (self.n - self.initial) / (now - self.start_t) if now > self.start_t else 0.0
        self.last_rate, self.last_print_n = mean, self.n - mean * (now - self.last_print_t)
        super()._display(final)


class Progress:
    """Counts images and videos; of videos that are not done, frames.

    Args:
        total: how many images and videos there are.
        done: how many were done before.
        failed: how many of those failed.
        file: status.json.
        verbose: show a bar.

    Attributes:
        workers: what each process does, for status.json.
    """

    def __init__(self, total: int, done: int, failed: int, file: Path, verbose: bool) -> None:
        self.total, self.done, self.failed, self.file = total, done, failed, file
        self.frames, self._running = 0, Counter[str]()
        self.workers: Callable[[], list[dict[str, Any]]] = list
        self._last, self._written = time.monotonic(), 0.0
        self._count = self._seconds = 0.0
        self._bar = MeanRateBar(total=total, initial=done, desc="annotate", disable=not verbose, unit="image")

    def tick(self, shard: Shard, count: int) -> None:
        """Count images or frames of a shard that is being annotated; 0 is a sign of life."""
        if shard.is_video:
            self.frames += count
            self._bar.desc = f"annotate, {self.frames} frames of videos"
        else:
            self._running[shard.id] += count
            self._add(count)
        self._show()

    def drop(self, shard: Shard) -> None:
        """Forget the images of a shard that is begun again."""
        del self._running[shard.id]

    def commit(self, shard: Shard, failed: int) -> None:
        """Count the sources of a shard that is on the disk."""
        self._add(len(shard.sources) - self._running[shard.id])
        self.drop(shard)
        self.done, self.failed = self.done + len(shard.sources), self.failed + failed
        self._show()

    def _add(self, count: int) -> None:
        """Let the rate know of images: a mean in which older ones count less and less."""
        now = time.monotonic()
        kept = math.exp((self._last - now) / RATE_SECONDS)
        self._count, self._seconds = self._count * kept + count, self._seconds * kept + now - self._last
        self._last = now

    @property
    def status(self) -> dict[str, Any]:
        """Counts, images per second, seconds left, and the processes."""
        rate = self._count / self._seconds if self._seconds else 0.0
        left = (self.total - self.done - self._running.total()) / rate if rate else None
        counts = {"done": self.done, "total": self.total, "failed": self.failed, "frames": self.frames}
        return {**counts, "rate": rate, "seconds_left": left, "workers": self.workers()}

    def _show(self, now: bool = False) -> None:
        self._bar.update(max(0, self.done + self._running.total() - int(self._bar.n)))
        if now or time.monotonic() - self._written > STATUS_INTERVAL:
            self._written = time.monotonic()
            with suppress(OSError), atomic_write(self.file, flush=False) as temporary:  # a full disk is told elsewhere
                temporary.write_text(json.dumps(self.status) + "\n", encoding="utf-8")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._show(now=True)
        self._bar.close()
