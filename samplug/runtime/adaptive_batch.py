"""Work in parts that a GPU's memory can hold: as many at once as were asked for, or half of that, and so on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from samplug.errors import OutOfMemoryError
from samplug.resources import GPU_MEMORY_ADVICE

LOGGER = logging.getLogger("ultralytics")  # the host's by its name: the benchmark runs without the host too
SHORT = f"The GPU has not enough memory for one {{what}}: {GPU_MEMORY_ADVICE}"


class DeviceOutOfMemoryError(OutOfMemoryError, torch.OutOfMemoryError):
    """A GPU has not enough memory even for the smallest part."""


class AdaptiveBatch:
    """How many are done at once, `size`, which only shrinks; `what` is one of them in a word, for messages."""

    def __init__(self, size: int, what: str) -> None:
        self.size, self.what = max(1, size), what

    @staticmethod
    def of_images(device: torch.device, asked: int, given: int, what: str = "image") -> AdaptiveBatch:
        """How many images are encoded at once: as many as were asked for, on a GPU all that were given together."""
        return AdaptiveBatch(asked if device.type == "cpu" else max(asked, given), what)

    def run(self, count: int, work: Callable[[slice], None]) -> None:
        """Do `work` on 0 … count - 1, a slice at a time; where memory runs out, go on with half as many, and say so.

        With one alone that is a `DeviceOutOfMemoryError`.
        """
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                work(part)
                start = part.stop
                continue
            except torch.OutOfMemoryError as error:
                several = part.stop - start
                if several == 1:
                    raise DeviceOutOfMemoryError(SHORT.format(what=self.what)) from error
            self._halve(several)  # behind the handler: what the error's traceback held is free by now

    def _halve(self, several: int) -> None:
        self.size = several // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        plural = "s" if self.size > 1 else ""
        LOGGER.warning(
            f"The GPU's memory is full: going on with {self.size} {self.what}{plural} at once, not {several}."
        )
