"""One job at a time on a folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # which Ultralytics needs too

from samplug.errors import JobError

WRITING_SECONDS = 2  # that a process takes at most from making its lock to writing into it


@contextmanager
def lock(file: Path) -> Iterator[None]:
    """Hold a lock file; one that a dead process of this machine left behind is taken over.

    Raises:
        JobError: another process holds it.
    """
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    while True:
        with suppress(FileExistsError), file.open("x", encoding="utf-8") as stream:
            stream.write(content)
            break
        remove_dead(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def remove_dead(file: Path) -> None:
    """Remove the lock of a process that has ended; that of one that may be writing it is left."""
    try:
        holder = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return
    except (ValueError, RecursionError):  # its process died while it wrote, or is about to write
        with suppress(FileNotFoundError):
            written = file.stat()
            if not written.st_size and abs(time.time() - written.st_mtime) < WRITING_SECONDS:
                time.sleep(0.05)
                return
        holder = None
    holder = holder if isinstance(holder, dict) else {}
    if holder.get("host", socket.gethostname()) != socket.gethostname() or is_alive(holder.get("pid")):
        raise JobError(
            f"Process {holder.get('pid')} on {holder.get('host')} works on {file.parent}. Wait for it, stop it, or "
            f"give part=K/N to several processes; if it does not exist any more, delete {file}."
        )
    file.unlink(missing_ok=True)


def is_alive(pid: Any) -> bool:
    """Whether there is a process of this number; 0 and below are none."""
    return isinstance(pid, int) and 0 < pid < 1 << 31 and psutil.pid_exists(pid)
