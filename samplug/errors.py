"""Every public error of samplug, their messages in one line, and warnings of slips. Standard library only."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

FEW = 10  # items that a message lists, before it says how many more there are
LOGGER = logging.getLogger("ultralytics")  # the host's by its name


class PromptError(ValueError, AssertionError):
    """A prompt that cannot be read; the message names the argument, what came and what was expected.

    Also an `AssertionError`, because that is what scripts written against Ultralytics catch.
    """


class UnknownSizeError(PromptError):
    """A prompt that is right as far as can be told where the size of its image is not known: a polygon."""


def shown(value: Any, length: int = 200) -> str:
    """A value as Python writes it, cut to a length; its type alone where it cannot be written, such as a deep list."""
    try:
        return f"{value!r:.{length}}"
    except Exception:  # whatever somebody's own class raises
        return f"a {type(value).__name__} that cannot be shown"


def reject(argument: str, came: str, expected: str) -> NoReturn:
    """Raise a `PromptError` with the message that all of them have."""
    raise PromptError(f"{argument}: {came}. Expected {expected}.")


class SlipLog:
    """The slips of one run, such as normalised coordinates: each is logged once, or is an error if `strict`."""

    def __init__(self, strict: bool = False) -> None:
        self.strict, self.reported = strict, set[str]()

    @contextmanager
    def active(self) -> Iterator[None]:
        """`report_slip` reports here."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    def watch(self, items: Any) -> Iterator[Any]:
        """The items of a generator; active while it makes one, not while the caller has it."""
        with closing(items):
            while True:
                with self.active():
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item


_ACTIVE: ContextVar[SlipLog | None] = ContextVar("slips", default=None)


def report_slip(message: str, error: type[Exception] = PromptError) -> None:
    """Warn of what is plainly a slip; with `strict=True` raise it as an error of this class."""
    log = _ACTIVE.get() or SlipLog()
    if log.strict:
        raise error(f"{message} (strict=True)")
    if message not in log.reported:
        log.reported.add(message)
        LOGGER.warning(message)


class UsageError(Exception):
    """A command line that cannot be run; the message says why, in one line."""


class JobError(ValueError):
    """An annotation or a training that cannot be begun or gone on with; the message says why and what to do."""


def names_of(items: Iterable[Any]) -> str:
    """The first few of what a message is about."""
    names = [str(each) for each in items]
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


class CheckpointError(ValueError):
    """A checkpoint, or the description of a network inside one, that cannot be used; the message says what to do."""


class SourceError(OSError):
    """An image or a video that cannot be read, or is too large for this machine; the message says which and why."""


class ArrayFileError(ValueError):
    """A file that is absent, damaged, or of another kind or version; the message does not name it."""


class DataError(ValueError):
    """The data set cannot be read; the message says what came, what was expected and what to do."""


class MissingSplitError(DataError):
    """The data set has no such split."""


class EmbeddingError(ValueError):
    """A file that is not an embedding, or an embedding of another network, image or size."""


class OutOfMemoryError(MemoryError):
    """Something would need more memory than there is; the message says how much."""


class MemoryBankError(ValueError):
    """A file that is not a memory bank, or the memory bank of another network."""


class WindowError(OSError):
    """No window can be opened here; the message says what to do."""


class DivergedError(FloatingPointError):
    """A training whose loss or gradient is no finite number any more; the message says what was kept."""
