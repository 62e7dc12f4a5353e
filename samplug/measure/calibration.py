"""Whether a network knows how good it is: what it claims, beside what is true (reliability, Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Claims between two values: how many, what they say on average, what is true on average."""

    low: float
    high: float
    count: int
    claimed: float
    true: float


@dataclass(eq=False)
class Claims:
    """Numbers in 0 … 1 that a network said, each with the truth in 0 … 1."""

    said: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)

    def add(self, said: float, true: float) -> None:
        """Take in a claim; what lies outside 0 … 1 is the nearest of the two."""
        self.said.append(min(max(float(said), 0.0), 1.0))
        self.true.append(float(true))

    def __len__(self) -> int:
        return len(self.said)

    def bins(self) -> list[Bin]:
        """Ten equal ranges of what was said, without the empty ones; 1 belongs to the last."""
        said, true = np.array(self.said), np.array(self.true)
        place = np.minimum((said * BINS).astype(int), BINS - 1)
        made = []
        for number in np.unique(place):
            here = place == number
            count, claimed, found = int(here.sum()), float(said[here].mean()), float(true[here].mean())
            made.append(Bin(number / BINS, (number + 1) / BINS, count, claimed, found))
        return made

    def error(self) -> float:
        """Expected calibration error: how far claim and truth lie apart, over the bins by their counts."""
        return sum(one.count * abs(one.claimed - one.true) for one in self.bins()) / len(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"count": len(self), "error": self.error(), "bins": [vars(one) for one in self.bins()]}
