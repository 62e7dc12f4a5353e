"""What came out: rows of figures, as a table, as JSON, as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from samplug.benchmark.compare import Deviation
from samplug.files import write_aside

OURS = "samplug"
WIDTH = 22  # characters of a column
COMPARED = (
    "Answers beside samplug's in float32: the largest difference of logits as a share of the largest (everything: the",
    "share of masks without a partner), and the smallest IoU of masks. `!` is further apart than rounding explains.",
)


@dataclass(frozen=True)
class Row:
    """The figures of one implementation in one case.

    Attributes:
        part: what was measured, a word of `settings.PARTS`.
        case: of it, such as "64 points".
        runner: who did it.
        values: what was read in each round.
        unit: "s" or "MB".
        dtype: what was computed in.
        deviation: from samplug's answer in float32; None where there is none to compare.
        far: whether that is further than rounding explains.
        note: in place of values, why there are none.
    """

    part: str
    case: str
    runner: str
    values: tuple[float, ...] = ()
    unit: str = "s"
    dtype: str = "float32"
    deviation: Deviation | None = None
    far: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def shown(self) -> str:
        """The median with its unit."""
        if not self.values:
            return self.note
        if self.unit == "MB":
            return f"{self.value:.0f} MB"
        return f"{self.value:.2f} s" if self.value >= 10 else f"{1000 * self.value:.{1 if self.value < 0.1 else 0}f} ms"


@dataclass
class Report:
    """All rows and how they were got."""

    about: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def cell(self, part: str, case: str, runner: str) -> Row | None:
        """A row, if it is there."""
        return next((r for r in self.rows if (r.part, r.case, r.runner) == (part, case, runner)), None)

    @property
    def runners(self) -> list[str]:
        """Who was measured, samplug first."""
        return list(dict.fromkeys([OURS, *(row.runner for row in self.rows)]))

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(part, case) in the order measured."""
        return list(dict.fromkeys((row.part, row.case) for row in self.rows))

    def table(self) -> str:
        """Medians, each peer's with its ratio to samplug's; `!` marks an answer that is another one."""
        lines: list[str] = [self.about["heading"]]
        before: list[str] = []
        for part, case in self.cases:
            columns = self.columns(part)
            lines += [] if columns == before else ["", aligned(["", "", *columns])]
            lines.append(self.line(part, case))
            before = columns
        return "\n".join([*lines, *self._remarks()])

    def columns(self, part: str) -> list[str]:
        """Who was measured in a part, samplug first."""
        return list(dict.fromkeys([OURS, *(row.runner for row in self.rows if row.part == part)]))

    def line(self, part: str, case: str) -> str:
        """One case's line of the table."""
        own = self.cell(part, case, OURS)
        return aligned([part, case, *(self._cell(self.cell(part, case, runner), own) for runner in self.columns(part))])

    @staticmethod
    def _cell(row: Row | None, own: Row | None) -> str:
        if row is None:
            return "-"
        ratio = f" {row.value / own.value:.2f}x" if own and own is not row and own.values and row.values else ""
        return row.shown + ratio + (" !" if row.far else "")

    def _remarks(self) -> list[str]:
        """What the figures do not say: how far apart the answers are, and who was not measured."""
        compared = [row for row in self.rows if row.deviation is not None]
        lines = ["", *COMPARED] if compared else []
        for runner in dict.fromkeys(row.runner for row in compared):
            for part in dict.fromkeys(row.part for row in compared if row.runner == runner):
                few = [row.deviation for row in compared if (row.runner, row.part) == (runner, part)]
                worst = Deviation.worst([each for each in few if each])
                lines.append(f"  {runner:<18}{part:<12}{worst.distance:.1e}   {worst.overlap:.4f}")
        absent = [f"  {name}: {why}" for name, why in self.about.get("absent", {}).items()]
        return [*lines, *(["", "Not measured:", *absent] if absent else [])]

    def as_json(self) -> str:
        """Everything, for machines."""
        return json.dumps({**self.about, "rows": [asdict(row) for row in self.rows]}, indent=2) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write the table, JSON and, where matplotlib is installed, a plot."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {folder / "benchmark.json": self.as_json(), folder / "benchmark.txt": self.table() + "\n"}
        for path, text in texts.items():
            with write_aside(path) as aside:
                aside.write_text(text, encoding="utf-8")
        return [*texts, *plot(self, folder / "benchmark.png")]


def aligned(cells: Sequence[str]) -> str:
    """Columns of a table."""
    first, second, *rest = cells
    return (f"{first:<11}{second:<24}" + "".join(f"{cell:<{WIDTH}}" for cell in rest)).rstrip()


def plot(report: Report, path: Path) -> Iterable[Path]:
    """Bars of how long the peers take over how long samplug takes; nothing where there is nothing to draw."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    peers = [runner for runner in report.runners if runner != OURS]
    cases = [
        (part, case) for part, case in report.cases if (own := report.cell(part, case, OURS)) is not None and own.values
    ]
    if not peers or not cases:
        return []
    figure = Figure(figsize=(9, 1.5 + 0.3 * len(cases) * len(peers)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        for at, (part, case) in enumerate(cases):
            row, own = report.cell(part, case, peer), report.cell(part, case, OURS)
            if row is None or own is None or not row.values:
                continue
            ratio = row.value / own.value
            axes.barh(at + i * height, ratio, height, color=f"C{i}", label=peer if at == 0 else None)
            axes.text(ratio, at + i * height, f" {row.shown}", va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([at + 0.4 - height / 2 for at in range(len(cases))], [f"{part}, {case}" for part, case in cases])
    axes.invert_yaxis()
    axes.set_xlabel("times samplug's figure")
    axes.set_title(report.about["heading"], fontsize=8)
    axes.legend(*unique(axes.get_legend_handles_labels()), fontsize=7)
    figure.savefig(path, dpi=120)
    return [path]


def unique(handles_and_labels: tuple[list[Any], list[str]]) -> tuple[list[Any], list[str]]:
    """A legend's entries, each once."""
    each = {label: handle for handle, label in zip(*handles_and_labels, strict=True)}
    return list(each.values()), list(each)
