"""What was found out: scores of every object, what the network claimed, the worst cases."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean
from typing import Any

import numpy as np

from samplug.measure.calibration import Claims

SIZES = {"small": 32**2 / (640 * 480), "medium": 96**2 / (640 * 480), "large": 1.0}
"""Largest shares of the picture: COCO's bounds of 32² and 96² pixels, in its usual picture of 640×480."""
KEPT = 12  # worst cases


@dataclass(frozen=True)
class Row:
    """One object: where it is from, its share of the picture, its scores by name."""

    name: str
    share: float
    scores: dict[str, float]

    @property
    def size(self) -> str:
        """The first of `SIZES` that holds it."""
        return next(name for name, most in SIZES.items() if self.share <= most)


@dataclass(frozen=True, eq=False)
class Case:
    """An answer to be looked at: picture (H, W, 3) RGB, truth and mask (H, W), clicks xy with labels, box xyxy."""

    name: str
    score: float
    image: np.ndarray
    wanted: np.ndarray
    found: np.ndarray
    clicks: tuple[tuple[int, int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None


@dataclass(eq=False)
class Worst:
    """The cases with the lowest scores of all that were shown."""

    kept: list[tuple[float, int, Case]] = field(default_factory=list)
    _number: Iterable[int] = field(default_factory=count)

    def show(self, case: Case) -> None:
        """Keep a case if it is among the worst."""
        heapq.heappush(self.kept, (-case.score, next(iter(self._number)), case))
        if len(self.kept) > KEPT:
            heapq.heappop(self.kept)

    def cases(self) -> list[Case]:
        """The worst first."""
        return [case for _, _, case in sorted(self.kept, key=lambda item: item[2].score)]


@dataclass(eq=False)
class Findings:
    """Everything about one way of asking, or several.

    Attributes:
        rows: One an object.
        claims: What the network said of itself beside what was true, by subject.
        worst: The worst cases, by the score that says so.
        curve: Mean overlap after 1, 2, … clicks.
        counts: What is counted over all, by name.
    """

    rows: list[Row] = field(default_factory=list)
    claims: dict[str, Claims] = field(default_factory=dict)
    worst: dict[str, Worst] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)

    def means(self, size: str | None = None) -> dict[str, float]:
        """The mean of every score over the objects that have it, of one size or of all."""
        rows = [row for row in self.rows if size in (None, row.size)]
        names = dict.fromkeys(name for row in rows for name in row.scores)
        return {name: fmean(row.scores[name] for row in rows if name in row.scores) for name in names}

    def sizes(self) -> dict[str, int]:
        """How many objects there are of each size."""
        return {size: sum(row.size == size for row in self.rows) for size in SIZES}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain: dict[str, Any] = {"objects": len(self.rows), **self.means(), **self.counts}
        plain["sizes"] = {size: {"objects": n, **self.means(size)} for size, n in self.sizes().items() if n}
        plain["calibration"] = {name: claims.as_dict() for name, claims in self.claims.items() if len(claims)}
        return plain | ({"curve": self.curve} if self.curve else {})
