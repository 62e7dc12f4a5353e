"""Scores of every object, calibration of the network's own predictions (Guo et al., ICML 2017), worst cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from samplug.masks.boxes import Box

BINS = 10  # of predictions, for calibration
SIZES = {"small": 32**2 / (640 * 480), "medium": 96**2 / (640 * 480), "large": 1.0}
"""Largest shares of the image: COCO's bounds of 32² and 96² pixels, in its usual image of 640×480."""
WORST_CASES = 12  # kept of each kind


@dataclass(frozen=True)
class Row:
    """One object: its name, its share of the image, its scores by name."""

    name: str
    share: float
    scores: dict[str, float]

    @property
    def size(self) -> str:
        """The first of `SIZES` that holds it."""
        return next(name for name, most in SIZES.items() if self.share <= most)


@dataclass(frozen=True, eq=False)
class Case:
    """An answer to be drawn: image (H, W, 3) RGB, true and predicted mask (H, W), clicks xy with labels, box xyxy."""

    name: str
    score: float
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    clicks: tuple[tuple[int, int, int], ...] = ()
    box: Box | None = None


@dataclass(frozen=True)
class Bin:
    """Predictions between two values: how many, their mean, and the mean of the truth."""

    low: float
    high: float
    count: int
    claimed: float
    true: float


@dataclass(eq=False)
class CalibrationLog:
    """Predictions in 0 … 1, each with the truth in 0 … 1."""

    claimed: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)

    def add(self, claimed: float, true: float) -> None:
        """Add a prediction, clipped to 0 … 1."""
        self.claimed.append(min(max(float(claimed), 0.0), 1.0))
        self.true.append(float(true))

    def __len__(self) -> int:
        return len(self.claimed)

    def bins(self) -> list[Bin]:
        """Ten equal ranges of predictions, without the empty ones; 1 belongs to the last."""
        claimed, true = np.array(self.claimed), np.array(self.true)
        index = np.minimum((claimed * BINS).astype(int), BINS - 1)
        bins = []
        for number in np.unique(index):
            inside = index == number
            means = float(claimed[inside].mean()), float(true[inside].mean())
            bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), *means))
        return bins

    def error(self) -> float:
        """Expected calibration error: the gap between prediction and truth, over the bins by their counts."""
        return sum(each.count * abs(each.claimed - each.true) for each in self.bins()) / len(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"count": len(self), "error": self.error(), "bins": [vars(each) for each in self.bins()]}


@dataclass(eq=False)
class Scores:
    """Scores of all objects for one kind of prompt, or several."""

    rows: list[Row] = field(default_factory=list)  # one an object
    calibration: dict[str, CalibrationLog] = field(
        default_factory=dict
    )  # the network's predictions and truth by subject
    worst: dict[str, list[Case]] = field(default_factory=dict)  # the lowest scores, worst first, by the score's name
    curve: list[float] = field(default_factory=list)  # mean IoU after 1, 2, … clicks
    counts: dict[str, float] = field(default_factory=dict)  # totals over all objects, by name

    def add_case(self, name: str, case: Case) -> None:
        """Keep a case if it is among the worst of its kind."""
        self.worst[name] = sorted([case, *self.worst.get(name, [])], key=lambda each: each.score)[:WORST_CASES]

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
        values: dict[str, Any] = {"objects": len(self.rows), **self.means(), **self.counts}
        values["sizes"] = {size: {"objects": n, **self.means(size)} for size, n in self.sizes().items() if n}
        values["calibration"] = {name: log.as_dict() for name, log in self.calibration.items() if len(log)}
        return values | ({"curve": self.curve} if self.curve else {})
