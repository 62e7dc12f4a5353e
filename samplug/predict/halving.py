"""Work in parts that a GPU's memory can hold: as many at once as were asked for, or half of that, and so on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from samplug.host import LOGGER
from samplug.room import ON_A_GPU, RoomError

SHORT = f"The GPU has not enough memory for one {{what}}: {ON_A_GPU}"


class DeviceRoomError(RoomError, torch.OutOfMemoryError):
    """A GPU has not enough memory even for the smallest part."""


class Share:
    """How many are done at once; it only shrinks.

    Attributes:
        size: how many.
        what: one of them in a word, for messages.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size, self.what = max(1, size), what

    def of(self, count: int, work: Callable[[slice], None]) -> None:
        """Do `work` on 0 … count - 1, a slice at a time; where memory runs out, go on with half as many, and say so.

        Raises:
            DeviceRoomError: it runs out with one alone.
        """
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            if self._fits(part, work):
                start = part.stop

    def _fits(self, part: slice, work: Callable[[slice], None]) -> bool:
        try:
            work(part)
        except torch.OutOfMemoryError as error:
            several = part.stop - part.start
            if several == 1:
                raise DeviceRoomError(SHORT.format(what=self.what)) from error
            self.size = several // 2
        else:
            return True
        # Behind the handler: what the error's traceback held is free by now.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        plural = "s" if self.size > 1 else ""
        LOGGER.warning(
            f"The GPU's memory is full: going on with {self.size} {self.what}{plural} at once, not {several}."
        )
        return False
