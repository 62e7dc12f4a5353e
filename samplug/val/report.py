"""What `SAM.val` returns: the table, `results.json`, `objects.csv`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samplug.files.atomic import atomic_write
from samplug.val import plots
from samplug.val.scores import SIZES, CalibrationLog, Case, Scores
from samplug.val.videos import FIRST_MASK, MEMORY_OFF

IMAGE_ROWS = {  # score and its label
    "click1": "1 click",
    "click1_best": "1 click, best of three",
    "click1_chosen": "1 click, chosen of three",
    "click3": "3 clicks",
    "click5": "5 clicks",
    "box": "box",
    "box_best": "box, best of three",
    "box_chosen": "box, chosen of three",
    "noc85": "clicks to reach 0.85",
    "failed85": "  never reached it",
    "noc90": "clicks to reach 0.90",
    "failed90": "  never reached it",
    "everything": "everything, best mask",
    "everything75": "everything, recall at 0.75",
    "flood_fill": "no network: flood fill",
    "box_as_mask": "no network: box as mask",
    "grabcut": "no network: GrabCut in box",
}
VIDEO_COLUMNS = {"J&F": "J&F", "J": "J", "F": "F", "gone": "noticed", "found": "found", "switches": "switches"}
TRACKER_LABELS = {MEMORY_OFF: "memory off", FIRST_MASK: "no network: first mask"}
LABEL_WIDTH, CELL_WIDTH = 28, 9


@dataclass(eq=False)
class ValReport:
    """What `SAM.val` returns; printed, it is the table.

    Attributes:
        save_dir: the folder of `results.json`, `objects.csv` and the plots.
        pictures: the scores on images, or None.
        videos: the scores on videos by the kind of prompt, and of baselines.
        about: what was evaluated, and how.
        tables: the tables.
    """

    save_dir: Path
    pictures: Scores | None = None
    videos: dict[str, Scores] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    @property
    def results(self) -> dict[str, Any]:
        """Everything as plain values: the content of `results.json`."""
        results: dict[str, Any] = dict(self.about)
        if self.pictures is not None:
            results["pictures"] = self.pictures.as_dict()
        if self.videos:
            results["videos"] = {name: scores.as_dict() for name, scores in self.videos.items()}
        return results

    @property
    def results_dict(self) -> dict[str, float]:
        """The means in one flat dict: `pictures/click1`, `videos/mask/J&F`, …, as Ultralytics' metrics have it."""
        flat = {f"pictures/{name}": value for name, value in self.pictures.means().items()} if self.pictures else {}
        for tracker, scores in self.videos.items():
            flat |= {f"videos/{tracker}/{name}": value for name, value in (scores.means() | scores.counts).items()}
        return flat

    def __str__(self) -> str:
        return "\n\n".join(self.tables)

    def save(self, plots: bool = True) -> None:
        """Write `results.json`, `objects.csv`, and on demand the plots."""
        self.save_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.save_dir / "results.json") as file:
            file.write_text(json.dumps(self.results, indent=2, default=str) + "\n", encoding="utf-8")
        images = {"pictures": self.pictures} if self.pictures else {}
        with atomic_write(self.save_dir / "objects.csv") as file:
            _write_rows({**images, **self.videos}, file)
        if plots:
            self._plot()

    def _plot(self) -> None:
        logs: dict[str, CalibrationLog] = {}
        worst: dict[str, list[Case]] = {}
        if self.pictures is not None:
            logs["predicted IoU"] = self.pictures.calibration["iou"]
            worst |= self.pictures.worst
            plots.plot_curves(self.pictures, self.save_dir / "curves.png")
        for name, scores in list(self.videos.items())[:1]:
            calibration = scores.calibration
            logs |= {"predicted IoU in videos": calibration["iou"], "presence": calibration["presence"]}
            worst[f"video_{name}"] = scores.worst.get("J&F", [])
        logs = {subject: log for subject, log in logs.items() if len(log)}
        if logs:
            plots.plot_reliability(logs, self.save_dir / "reliability.png")
        for name, cases in worst.items():
            if cases:
                plots.draw_cases(cases, self.save_dir / f"worst_{name}.jpg")


def _write_rows(parts: Mapping[str, Scores], path: Path) -> None:
    """One line for each object and kind of prompt, a column a score."""
    names = dict.fromkeys(name for part in parts.values() for row in part.rows for name in row.scores)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["way", "object", "share", "size", *names])
        for part, scores in parts.items():
            for row in scores.rows:
                values = [round(row.scores[name], 4) if name in row.scores else "" for name in names]
                writer.writerow([part, row.name, round(row.share, 6), row.size, *values])


def images_table(scores: Scores, count: int) -> str:
    """The table of images, overall and by size, with boundary F in the last column."""
    lines = [
        f"{count} images, {len(scores.rows)} objects (mean IoU; F of the boundary)",
        _line("", ["all", *SIZES, "F"]),
        _line("objects", [len(scores.rows), *scores.sizes().values()]),
    ]
    columns = [scores.means(), *(scores.means(size) for size in SIZES)]
    for name, label in IMAGE_ROWS.items():
        if name in columns[0]:
            cells = [_cell(column.get(name), name) for column in columns]
            lines.append(_line(label, [*cells, _cell(columns[0].get(f"{name}_F"))]))
    return "\n".join([*lines, *_calibration_lines(scores)])


def videos_table(videos: Mapping[str, Scores], count: int) -> str:
    """The table of videos, a line for each kind of prompt and each baseline."""
    first = next(iter(videos.values()))
    lines = [
        f"{count} videos, {len(first.rows)} objects, {first.counts['left']:.0f} of them leave for 3 frames or more, "
        f"{first.counts['returned']:.0f} return",
        _line("", [*VIDEO_COLUMNS.values(), *SIZES]),
    ]
    for tracker, scores in videos.items():
        means = scores.means() | scores.counts
        cells = [_cell(means.get(name), name) for name in VIDEO_COLUMNS]
        sizes = [_cell(scores.means(size).get("J&F")) for size in SIZES]
        lines.append(_line(TRACKER_LABELS.get(tracker, f"shown by {tracker}"), [*cells, *sizes]))
    return "\n".join([*lines, *_calibration_lines(first)])


def _calibration_lines(scores: Scores) -> list[str]:
    names = {"iou": "predicted IoU", "presence": "presence"}
    return [
        f"{names[name]}: off by {log.error():.3f} on average (calibration error, {len(log)} answers)"
        for name, log in scores.calibration.items()
        if len(log)
    ]


def _line(label: str, cells: Sequence[object]) -> str:
    return f"  {label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)


def _cell(value: float | None, name: str = "") -> str:
    if value is None:
        return "-"
    if name.startswith("failed"):
        return f"{value:.0%}"
    return f"{value:.0f}" if name == "switches" else f"{value:.1f}" if name.startswith("noc") else f"{value:.3f}"
