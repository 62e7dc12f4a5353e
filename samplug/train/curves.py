"""What a leg says about itself while it runs: a line on the screen, a table of all steps, a picture of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from .trainer import Figures

BAR = 20  # characters
SMOOTHED = 100  # points of a plotted curve


class Curves:
    """The figures of every step, in a CSV file that a resumed leg goes on with."""

    def __init__(self, path: Path, step: int):
        self.path, self.waiting = path, list[Figures]()
        kept = [row for row in self._read() if int(row["step"]) <= step]
        self._write("w", kept, header=True)

    def add(self, figures: Figures) -> None:
        """Take up one step; it is in the file after `flush`."""
        self.waiting.append(figures)

    def flush(self) -> list[Figures]:
        """Write what waits, and return it."""
        written, self.waiting = self.waiting, []
        self._write("a", [asdict(figures) for figures in written])
        return written

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _write(self, mode: str, rows: list[dict[str, Any]], header: bool = False) -> None:
        with self.path.open(mode, newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Figures)])
            if header:
                writer.writeheader()
            writer.writerows(rows)


def line(recent: Sequence[Figures], steps: int, seconds: float) -> str:
    """Say how the last steps went, and when the leg will be over.

    Args:
        recent: Figures of the steps since the last line.
        steps: Of the whole leg.
        seconds: That the recent ones took.
    """
    step, speed = recent[-1].step, len(recent) / max(seconds, 1e-9)
    done = "#" * (BAR * step // steps)
    words = [f"[{done:.<{BAR}}] {step}/{steps}"]
    for name in ("click_iou", "box_iou", "clip_iou", "click_loss", "box_loss", "probe_loss", "clip_loss"):
        if known := _known(recent, name):
            words.append(f"{name.replace('_', ' ')} {fmean(known):.3f}")
    left = (steps - step) / speed / 60
    return "  ".join([*words, f"{speed:.2f} steps/s", f"{left:.0f} min left"])


def _known(figures: Iterable[Figures], name: str) -> list[float]:
    return [value for one in figures if (value := getattr(one, name)) is not None]


def plot(table: Path) -> Path | None:
    """Draw the curves of a table beside it; without matplotlib there is the table alone.

    Returns:
        The picture, or None.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, ending in zip(figure.subplots(1, 2), ("_loss", "_iou"), strict=True):
        for name in (field.name for field in fields(Figures) if field.name.endswith(ending)):
            known = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            if known:
                axes.plot(*_smooth(known), label=name.removesuffix(ending))
        axes.set(xlabel="step", ylabel=ending.strip("_").replace("iou", "IoU"))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(table.with_suffix(".png"), dpi=100)
    return table.with_suffix(".png")


def _smooth(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """Means of neighbouring steps, at most `SMOOTHED` of them."""
    width = -(-len(points) // SMOOTHED)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [fmean(step for step, _ in group) for group in groups], [fmean(y for _, y in group) for group in groups]
