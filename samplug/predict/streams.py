"""Live streams that come faster than the predictor works: it takes the newest frame, and the others are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultralytics.data.loaders import LoadStreams

from samplug.host import LOGGER


class Waiting(list[list[Any]]):
    """The frames of each stream that wait to be taken.

    The host's threads put a newer frame in the place of one that nobody took in time.

    Attributes:
        dropped: by stream, how many frames were replaced unread.
    """

    def __init__(self, frames: Sequence[list[Any]], names: Sequence[str]) -> None:
        super().__init__(frames)
        self.names, self.dropped = names, [0] * len(frames)

    def __setitem__(self, stream: Any, frames: Any) -> None:
        missed = len(self[stream])
        if missed and not self.dropped[stream]:
            LOGGER.warning(
                f"{self.names[stream]} comes faster than the model works: the newest frame is taken, the others are "
                "dropped and counted. stream_buffer=True takes every frame, later and later."
            )
        self.dropped[stream] += missed
        super().__setitem__(stream, frames)


def counting(loader: Any) -> Any:
    """The same loader, which counts from now on what it drops if it is one of streams."""
    if isinstance(loader, LoadStreams) and hasattr(loader, "imgs") and not loader.buffer:
        loader.imgs = Waiting(loader.imgs, loader.sources)
    return loader


def dropped(loader: Any) -> dict[str, int]:
    """How many frames each stream lost so far, by its name; empty for what is no stream."""
    waiting = getattr(loader, "imgs", None)
    return dict(zip(waiting.names, waiting.dropped, strict=True)) if isinstance(waiting, Waiting) else {}
