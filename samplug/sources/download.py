"""Images and videos from an address: what a server sends, within bounds of time and size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, NoReturn

from samplug import host
from samplug.errors import SourceError, one_line

SILENT_SECONDS = 30  # without a byte of what was asked for
DOWNLOAD_SECONDS, DOWNLOAD_BYTES = 120, 1 << 30  # of one image, at most
VIDEO_SECONDS, VIDEO_STEP, VIDEO_BYTES = 120, 1 << 20, 4 << 30  # of a video: for so many bytes each; in all
PART_BYTES, WAITING_PARTS = 1 << 16, 64  # read at once; received and not yet written


@dataclass(frozen=True)
class Limits:
    """How much a server may send, and how long it may take."""

    what: str  # is downloaded: an image or a video
    size: int  # in bytes, at most
    seconds: float  # in all, or for each step
    step: int | None = None  # in bytes, after which the seconds are counted anew; None for never

    @property
    def too_slow(self) -> str:
        """What is said of a server that takes longer."""
        if self.step is None:
            return f"takes more than {self.seconds:g} s"
        return f"sends less than {self.step >> 10} kB in {self.seconds:g} s"


def download_image(address: str) -> Any:
    """A PIL image, not yet decoded, from an address; SourceError where it cannot be read."""
    limits = Limits("image", DOWNLOAD_BYTES, DOWNLOAD_SECONDS)
    image = host.pil_image(BytesIO(b"".join(receive(address, limits))))
    if image is None:
        raise SourceError(f"{address}: what the server sent is not an image.")
    return image


def download_video(address: str, file: Path) -> None:
    """Write a video from an address into a file; SourceError where it cannot be read or written."""
    limits = Limits("video", VIDEO_BYTES, VIDEO_SECONDS, VIDEO_STEP)
    try:
        with file.open("wb") as stream:
            for part in receive(address, limits):
                stream.write(part)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{address} cannot be written to {file}: {one_line(error)}") from error


def receive(address: str, limits: Limits) -> Iterator[bytes]:
    """The parts of what a server sends; SourceError where it is silent, takes too long or sends too much.

    A thread reads them. One that waits for a server that answers byte by byte is left to itself: whatever has no limit
    of its own, as the header of an answer, is bounded here.
    """
    parts: Queue[bytes | Exception] = Queue(WAITING_PARTS)
    given_up = Event()
    Thread(target=_read_into, args=(parts, address, given_up), daemon=True).start()
    received, step, end = 0, limits.step, time.monotonic() + limits.seconds
    try:
        while part := _next_part(parts, address, limits, end):
            received += len(part)
            if received > limits.size:
                _give_up(address, limits, f"sends more than {limits.size >> 20} MB")
            if step is not None and limits.step is not None and received >= step:
                step, end = received + limits.step, time.monotonic() + limits.seconds
            yield part
    finally:
        given_up.set()
        with suppress(Empty):  # the thread may wait for a place
            while True:
                parts.get_nowait()


def _next_part(parts: Queue[bytes | Exception], address: str, limits: Limits, end: float) -> bytes:
    """The next part, empty at the end."""
    left = end - time.monotonic()
    try:
        part = parts.get(timeout=max(0.0, min(left, SILENT_SECONDS))) if left > 0 else None
    except Empty:
        part = None
    if part is None:
        is_silent = left > SILENT_SECONDS
        _give_up(address, limits, f"has sent nothing for {SILENT_SECONDS:g} s" if is_silent else limits.too_slow)
    if isinstance(part, Exception):
        raise SourceError(f"{address} cannot be read: {one_line(part)}") from part
    return part


def _give_up(address: str, limits: Limits, reason: str) -> NoReturn:
    raise SourceError(f"{address}: its server {reason}. Download the {limits.what} first.")


def _read_into(parts: Queue[bytes | Exception], address: str, given_up: Event) -> None:
    """Read an answer part by part, an empty part or the error last."""
    import requests  # slow, and rarely needed

    # its own timeout only ends a thread that was left: who waits for the parts gives up before
    try:
        with requests.get(address, timeout=2 * SILENT_SECONDS, stream=True) as response:
            response.raise_for_status()
            read = getattr(response.raw, "read1", response.raw.read)  # what is there; older releases wait for more
            while not given_up.is_set() and (part := read(PART_BYTES, decode_content=True)):
                parts.put(part)
        parts.put(b"")
    except Exception as error:  # raised again where the parts are taken
        parts.put(error)
