"""Live streams that come faster than the predictor works: the newest frame is used, the others are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultralytics.data.loaders import LoadStreams

from samplug.host import LOGGER


class FrameQueue(list[list[Any]]):
    """The latest frames of each stream: Ultralytics' threads replace one that was not read in time by a newer one."""

    def __init__(self, frames: Sequence[list[Any]], names: Sequence[str]) -> None:
        super().__init__(frames)
        self.names, self.dropped = names, [0] * len(frames)  # by stream, how many frames were replaced unread

    def __setitem__(self, stream: Any, frames: Any) -> None:
        missed = len(self[stream])
        if missed and not self.dropped[stream]:
            LOGGER.warning(
                f"{self.names[stream]} comes faster than the model works: the newest frame is used, the others are "
                "dropped and counted. stream_buffer=True takes every frame, later and later."
            )
        self.dropped[stream] += missed
        super().__setitem__(stream, frames)


def count_dropped(loader: Any) -> Any:
    """Let a loader of streams count the frames that it drops, and return it; any other as it is."""
    if isinstance(loader, LoadStreams) and hasattr(loader, "imgs") and not loader.buffer:
        loader.imgs = FrameQueue(loader.imgs, loader.sources)
    return loader
