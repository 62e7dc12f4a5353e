"""Which inputs that cannot be segmented are skipped, and which end the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from samplug.errors import SourceError, names_of, one_line
from samplug.host import LOGGER

INPUT_ERRORS = (OSError, TypeError, ImportError)  # what reading a bad image or video raises


@dataclass(frozen=True)
class SkippedInput:
    """An image, frame or video that was skipped, and why."""

    name: str
    reason: str


@dataclass(eq=False)
class ErrorPolicy:
    """Decides for each bad input of a run whether it is skipped or ends the run.

    `on_error` "skip" skips bad inputs, "raise" ends the run at the first; None ends a run over one image, skips bad
    inputs among others, and ends with the first error if none was good.
    """

    on_error: str | None = None
    single_image: bool = False  # whether the run is over one image
    all: list[SkippedInput] = field(default_factory=list)  # the skipped inputs, in order
    first: Exception | None = None  # the first error

    def handle(self, name: str, error: Exception) -> None:
        """Skip an input with a warning, or raise its error; an error of reading it then names it."""
        if isinstance(error, OSError | ImportError) and name not in str(error):
            error = SourceError(f"{name}: {error}")
        if self.on_error == "raise" or self.on_error is None and self.single_image:
            raise error
        self.first = self.first or error
        self.all.append(SkippedInput(name, one_line(error)))
        LOGGER.warning(f"{name} is skipped: {self.all[-1].reason}")

    def conclude(self, done: int) -> None:
        """End a run of so many images or frames with the summary; with the first error if nothing was done."""
        if self.first is not None and not done and self.on_error is None:
            raise self.first
        if self.all:
            LOGGER.warning(self.summary())

    def summary(self) -> str:
        """The skipped inputs in a line."""
        count, names = len(self.all), names_of(skipped.name for skipped in self.all)
        return f"{count} {'input' if count == 1 else 'inputs'} skipped: {names}; see the warnings above."
