"""Pictures, frames and videos that cannot be done: named and left out of a run, or the end of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from samplug.host import LOGGER
from samplug.words import in_a_line

LISTED = 10  # names in a summary before it says how many more there are


class SourceError(OSError):
    """A picture or a video that cannot be read, or is too large for this machine; the message says which and why."""


@dataclass(frozen=True)
class Fault:
    """One thing that was left out, and why."""

    name: str
    reason: str


@dataclass(eq=False)
class Faults:
    """What a run left out.

    Attributes:
        on_error: "skip" leaves out what cannot be done, "raise" ends the run there; None ends a run over one picture,
            leaves out what is bad among others, and ends with the first error where nothing was good.
        alone: whether the run is over one picture.
        all: what was left out, in order.
    """

    on_error: str | None = None
    alone: bool = False
    all: list[Fault] = field(default_factory=list)
    first: Exception | None = None

    def meet(self, name: str, error: Exception) -> None:
        """Note that something cannot be done, and say so; or raise the error."""
        if self.on_error == "raise" or self.on_error is None and self.alone:
            raise error
        self.first = self.first or error
        self.all.append(Fault(name, in_a_line(error)))
        LOGGER.warning(f"{name} is left out: {self.all[-1].reason}")

    def conclude(self, done: int) -> None:
        """End a run of which so many pictures or frames were done: sum up what was left out.

        Raises:
            Exception: the first error, when nothing was done and nobody asked to leave out what is bad.
        """
        if self.first is not None and not done and self.on_error is None:
            raise self.first
        if self.all:
            LOGGER.warning(self.summary())

    def summary(self) -> str:
        """What was left out, in a line."""
        names = ", ".join(fault.name for fault in self.all[:LISTED])
        more = f" and {len(self.all) - LISTED} more" if len(self.all) > LISTED else ""
        return f"{len(self.all)} left out: {names}{more}. The reasons stand above."


def named(name: str, error: Exception) -> Exception:
    """An error that names what it is about."""
    return error if name in str(error) or isinstance(error, TypeError) else SourceError(f"{name}: {error}")
