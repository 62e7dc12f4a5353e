"""A process that annotates the shards that come through its standard input, and the other end of it."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from typing import Any

from samplug.annotate.plan import Shard
from samplug.annotate.settings import Settings

BEGIN = (  # the program of a process; it needs no `if __name__ == "__main__":` in the user's
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from samplug.annotate.engines.process import serve; serve()"
)
STOP_SECONDS = 5
# ("ready",), ("tick", count), ("done", failed), ("error", error, its traceback), ("end", exit code)
Event = tuple[Any, ...]


class Process:
    """A process that annotates one shard after the other; its events come to a queue, each behind the process.

    Attributes:
        shard: what it annotates, None if it waits.
        is_ready: whether its network is loaded.
        heard: when it gave the last sign of life.
    """

    def __init__(self, settings: bytes, device: str, threads: int, events: queue.Queue) -> None:
        self.shard: Shard | None = None
        self.device, self.is_ready, self.heard = device, False, time.monotonic()
        options: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}  # Ctrl-C is not for it
        options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        options["env"] = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._process = subprocess.Popen([sys.executable, "-c", BEGIN], **options)
        self.pid = self._process.pid
        self._send(pickle.dumps(sys.path) + settings)
        threading.Thread(target=self._listen, args=[events], daemon=True).start()

    def give(self, shard: Shard) -> None:
        """Let it annotate a shard."""
        self.shard, self.heard = shard, time.monotonic()
        self._send(pickle.dumps(shard))

    def kill(self) -> None:
        """End it as a hung process is ended."""
        self._process.kill()

    def stop(self) -> None:
        """End it: it notes that nothing died."""
        self._close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()

    def _close(self) -> None:
        with suppress(OSError):  # it has died with some of it unread
            self._process.stdin.close()  # type: ignore[union-attr]

    def _send(self, content: bytes) -> None:
        with suppress(OSError):  # it has died: its end is an event
            self._process.stdin.write(content)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _listen(self, events: queue.Queue) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while True:
                events.put((self, pickle.load(stream)))
        except Exception:  # its end, or half of what it said
            stream.close()
            self._close()
            events.put((self, ("end", self._process.wait())))


# In the process -------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Annotate what comes until the other end closes, and then end at once: what is committed is kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print is not for the other end

    def tell(*event: Any) -> None:
        events.write(pickle.dumps(event))
        events.flush()

    shards: queue.Queue[Shard] = queue.Queue()
    current: list[Any] = []
    try:
        from samplug.annotate.work.worker import Worker

        settings: Settings = pickle.load(sys.stdin.buffer)
        threading.Thread(target=listen, args=[shards, current], daemon=True).start()
        worker = Worker(settings, supervised=True)
        current.append(worker)
        tell("ready")
        while True:
            tell("done", worker.annotate(shards.get(), partial(tell, "tick")))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # one that does not travel
            error = RuntimeError(str(error))
        tell("error", error, text)


def listen(shards: queue.Queue[Shard], current: list[Any]) -> None:
    """Take what comes, to the end."""
    try:
        while True:
            shards.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        for worker in current:
            if worker.journal is not None:
                worker.journal.stop()
        os._exit(0)
