"""Processes on this machine that annotate shards; one that dies or hangs is replaced."""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from samplug.annotate.engines.process import Event, Process
from samplug.annotate.plan import Shard
from samplug.annotate.progress import Progress
from samplug.annotate.settings import Settings
from samplug.errors import JobError
from samplug.host import LOGGER
from samplug.resources import usable_cores

CORES_OF_A_PROCESS = 4  # more speed up one network less than another process does
MOST_DEATHS = 20  # in a row, without one shard done
DEATH_AT_START = 7  # counts as so many: it was no image's fault
POLL_SECONDS = 0.5
Commit = Callable[[Shard, int], None]  # is called with each shard that is done, and how many of its sources failed


class Pool:
    """So many processes that annotate shards."""

    def __init__(
        self, settings: Settings, shards: Sequence[Shard], size: int, progress: Progress, commit: Commit
    ) -> None:
        self.settings, self.waiting, self.progress, self.commit = settings, deque(shards), progress, commit
        self.processes: list[Process] = []
        self._devices, self._size, self._deaths = devices_of(settings), size, 0
        self._threads = max(1, usable_cores() // size)
        self._events: queue.Queue[tuple[Process, Event]] = queue.Queue()

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Annotate all shards, or, once it is stopping, only those that were begun."""
        self.progress.workers = self._status
        try:
            self._start(0)  # alone: it may have to fetch the network
            while any(process.shard for process in self.processes) or (self.waiting and not is_stopping()):
                self._feed(is_stopping())
                try:
                    process, event = self._events.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    self._kill_hung()
                else:
                    self._handle(process, event)
        finally:
            for process in self.processes:
                process.stop()

    def _start(self, slot: int) -> None:
        device = self._devices[slot % len(self._devices)]
        settings = pickle.dumps(replace(self.settings, device=device))
        process = Process(settings, str(device or "cpu"), self._threads, self._events)
        self.processes.insert(slot, process)

    def _feed(self, stopping: bool) -> None:
        for process in self.processes:
            if process.is_ready and process.shard is None and self.waiting and not stopping:
                process.give(self.waiting.popleft())

    def _handle(self, process: Process, event: Event) -> None:
        """Take note of what a process says."""
        process.heard = time.monotonic()
        kind, *details = event
        if kind == "ready":
            process.is_ready = True
            for slot in range(len(self.processes), self._size):
                self._start(slot)
        elif kind == "tick" and process.shard is not None:
            self.progress.tick(process.shard, details[0])
        elif kind == "done" and process.shard is not None:
            shard, process.shard, self._deaths = process.shard, None, 0
            self.commit(shard, details[0])
        elif kind == "error":
            raise details[0] from RuntimeError(f"in process {process.pid}:\n{details[1]}")
        elif kind == "end" and process in self.processes:
            self._replace(process, details[0])

    def _replace(self, process: Process, code: int) -> None:
        """Start another process in the place of one that died; its shard is begun again, first of all."""
        self._deaths += 1 if process.is_ready else DEATH_AT_START
        if self._deaths >= MOST_DEATHS:
            raise JobError(
                f"Processes die one after the other, and no shard is done (the last exit code is {code}). Is there "
                "enough memory for them? Give fewer workers=, or workers=0, which annotates in this process."
            )
        slot = self.processes.index(process)
        self.processes.remove(process)
        if process.shard is not None:
            LOGGER.warning(f"Process {process.pid} died with exit code {code}; another takes up its shard.")
            self.progress.drop(process.shard)
            self.waiting.appendleft(process.shard)
        self._start(slot)

    def _kill_hung(self) -> None:
        """End processes that have given no sign of life for too long: their end is an event."""
        for process in self.processes:
            if process.shard is not None and time.monotonic() - process.heard > self.settings.timeout:
                LOGGER.warning(f"Process {process.pid} has done nothing for {self.settings.timeout:g} s (timeout=).")
                process.kill()

    def _status(self) -> list[dict[str, Any]]:
        now, rows = time.monotonic(), [(each, each.shard and each.shard.id) for each in self.processes]
        return [
            {"pid": each.pid, "device": each.device, "shard": shard, "quiet_seconds": round(now - each.heard, 1)}
            for each, shard in rows
        ]


def pool_size(settings: Settings, shards: int) -> int:
    """How many processes annotate shards; 0 where this one does: one shard, or arguments that no other can have."""
    wanted = settings.worker_range
    if wanted is None:
        devices = devices_of(settings)
        count = len(devices) if len(devices) > 1 else max(1, usable_cores() // CORES_OF_A_PROCESS)
        size = 0 if shards == 1 else min(count, shards)
    else:
        size = min(wanted[1], shards)
    if size and not travels(settings):
        LOGGER.warning("The prompter or the model is an object of this program alone: no other process can have it.")
        return 0
    return size


def travels(settings: Settings) -> bool:
    """Whether another process can have the settings: what is defined in the program itself is not found there."""
    try:
        return b"__main__" not in pickle.dumps(settings)
    except Exception:  # whatever an object's own way to be pickled raises
        return False


def devices_of(settings: Settings) -> list[Any]:
    """The device of each process: the GPUs that were given, or all; otherwise what was given."""
    device = settings.device
    if device is None:
        import torch

        return [str(i) for i in range(torch.cuda.device_count())] or [None]
    given = device if isinstance(device, list | tuple) else str(device).removeprefix("cuda:").split(",")
    names = [str(name).strip() for name in given]
    return names if all(map(str.isdecimal, names)) else [device]
