"""What `SAM.val` returns, and saves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samplug.files import write_aside
from samplug.measure import drawing
from samplug.measure.calibration import Claims
from samplug.measure.findings import Findings, Worst


@dataclass(eq=False)
class Measured:
    """What `SAM.val` returns; printed, it is the table.

    Attributes:
        save_dir: The folder of `results.json`, `objects.csv` and the plots.
        pictures: What was found on pictures, or None.
        videos: What was found on videos by the way objects were shown, and for baselines.
        about: What was measured, and how.
        tables: The tables.
    """

    save_dir: Path
    pictures: Findings | None = None
    videos: dict[str, Findings] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    @property
    def results(self) -> dict[str, Any]:
        """Everything as plain values: what `results.json` holds."""
        found: dict[str, Any] = dict(self.about)
        if self.pictures is not None:
            found["pictures"] = self.pictures.as_dict()
        if self.videos:
            found["videos"] = {way: findings.as_dict() for way, findings in self.videos.items()}
        return found

    @property
    def results_dict(self) -> dict[str, float]:
        """The means in one flat dict: `pictures/click1`, `videos/mask/J&F`, …, as Ultralytics' metrics have it."""
        flat = {f"pictures/{name}": value for name, value in self.pictures.means().items()} if self.pictures else {}
        for way, findings in self.videos.items():
            flat |= {f"videos/{way}/{name}": value for name, value in (findings.means() | findings.counts).items()}
        return flat

    def __str__(self) -> str:
        return "\n\n".join(self.tables)

    def save(self, plots: bool = True) -> None:
        """Write `results.json`, `objects.csv`, and the plots if they are wanted."""
        self.save_dir.mkdir(parents=True, exist_ok=True)
        with write_aside(self.save_dir / "results.json") as aside:
            aside.write_text(json.dumps(self.results, indent=2, default=str) + "\n", encoding="utf-8")
        pictures = {"pictures": self.pictures} if self.pictures else {}
        with write_aside(self.save_dir / "objects.csv") as aside:
            write_rows({**pictures, **self.videos}, aside)
        if plots:
            self._draw()

    def _draw(self) -> None:
        claims: dict[str, Claims] = {}
        worst: dict[str, Worst] = {}
        if self.pictures is not None:
            claims["predicted IoU"] = self.pictures.claims["iou"]
            worst |= self.pictures.worst
            drawing.draw_curves(self.pictures, self.save_dir / "curves.png")
        for way, findings in list(self.videos.items())[:1]:
            claims |= {"predicted IoU in videos": findings.claims["iou"], "presence": findings.claims["presence"]}
            worst[f"video_{way}"] = findings.worst["J&F"]
        claims = {subject: each for subject, each in claims.items() if len(each)}
        if claims:
            drawing.draw_reliability(claims, self.save_dir / "reliability.png")
        for name, each in worst.items():
            if each.kept:
                drawing.draw_cases(each.cases(), self.save_dir / f"worst_{name}.jpg")


def write_rows(parts: Mapping[str, Findings], file: Path) -> None:
    """One line an object and way, a column a score."""
    names = dict.fromkeys(name for part in parts.values() for row in part.rows for name in row.scores)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["way", "object", "share", "size", *names])
        for way, part in parts.items():
            for row in part.rows:
                scores = [round(row.scores[name], 4) if name in row.scores else "" for name in names]
                writer.writerow([way, row.name, round(row.share, 6), row.size, *scores])
