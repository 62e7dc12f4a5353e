"""Many rows in one batch, or in parts: how many at once is the caller's matter, who knows what memory can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

R = TypeVar("R")
S = TypeVar("S")
InSlices = Callable[[int, Callable[[slice], None]], None]  # does some work on 0 … count - 1, a slice at a time


def all_at_once(count: int, work: Callable[[slice], None]) -> None:
    """Do work on everything in one slice."""
    work(slice(0, count))


def in_parts(rows: Sequence[R], work: Callable[[Sequence[R]], S], in_slices: InSlices) -> list[tuple[Sequence[R], S]]:
    """Do some work on rows; return each part with what came of it, in order.

    Work that runs out of memory may be done again on fewer rows, so it must not change anything.
    """
    done: list[tuple[Sequence[R], S]] = []

    def each(some: slice) -> None:
        done.append((rows[some], work(rows[some])))

    in_slices(len(rows), each)
    return done
