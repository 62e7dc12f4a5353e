"""The results: measurements as a table, as JSON, as a plot."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from samplug.benchmark.compare import Deviation
from samplug.files.atomic import atomic_write

SAMPLUG = "samplug"  # the runner that peers are compared with
COLUMN_WIDTH = 22  # characters
DEVIATIONS = (
    "Answers beside samplug's in float32: the largest difference of logits as a share of the largest (everything: the",
    "share of masks without a partner), and the smallest IoU of masks. `!` is further apart than rounding explains.",
)


@dataclass(frozen=True)
class Measurement:
    """The figures of one implementation in one case."""

    part: str  # what was measured, one of `settings.PARTS`
    case: str  # of it, such as "64 points"
    runner: str  # the implementation
    values: tuple[float, ...]  # one for each round
    unit: str = "s"  # or MB
    dtype: str = "float32"  # what was computed in
    deviation: Deviation | None = None  # from samplug's answer in float32, where there is one
    far: bool = False  # whether that is further than rounding explains

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    def __str__(self) -> str:
        """The median with its unit."""
        if self.unit == "MB":
            return f"{self.value:.0f} MB"
        return f"{self.value:.2f} s" if self.value >= 10 else f"{1000 * self.value:.{1 if self.value < 0.1 else 0}f} ms"


@dataclass
class Report:
    """All measurements, and the circumstances."""

    about: dict[str, Any]
    rows: list[Measurement] = field(default_factory=list)

    def find(self, part: str, case: str, runner: str) -> Measurement | None:
        """A measurement, if it is there."""
        return next((r for r in self.rows if (r.part, r.case, r.runner) == (part, case, runner)), None)

    def ratio(self, row: Measurement) -> float | None:
        """A measurement over samplug's of the same case; None where that is absent."""
        own = self.find(row.part, row.case, SAMPLUG)
        return row.value / own.value if own else None

    @property
    def runners(self) -> list[str]:
        """The implementations, samplug first."""
        return list(dict.fromkeys([SAMPLUG, *(row.runner for row in self.rows)]))

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(part, case) in the order measured."""
        return list(dict.fromkeys((row.part, row.case) for row in self.rows))

    def table(self) -> str:
        """Medians, each peer's with its ratio to samplug's; `!` marks an answer that is another one."""
        lines: list[str] = [self.about["heading"]]
        before: list[str] = []
        for part, case in self.cases:
            columns = self._columns(part)
            lines += [] if columns == before else ["", table_line(["", "", *columns])]
            lines.append(self.line(part, case))
            before = columns
        absent = [f"  {name}: {why}" for name, why in self.about.get("absent", {}).items()]
        return "\n".join([*lines, *self._deviations(), *(["", "Not measured:", *absent] if absent else [])])

    def _columns(self, part: str) -> list[str]:
        """The implementations measured in a part, samplug first."""
        return list(dict.fromkeys([SAMPLUG, *(row.runner for row in self.rows if row.part == part)]))

    def line(self, part: str, case: str) -> str:
        """One case's line of the table."""
        return table_line([part, case, *(self._cell(self.find(part, case, each)) for each in self._columns(part))])

    def _cell(self, row: Measurement | None) -> str:
        if row is None:
            return "-"
        ratio = None if row.runner == SAMPLUG else self.ratio(row)
        return f"{row}{'' if ratio is None else f' {ratio:.2f}x'}{' !' if row.far else ''}"

    def _deviations(self) -> list[str]:
        """The worst deviation of each implementation in each part."""
        deviations: dict[tuple[int, str], list[Deviation]] = defaultdict(list)
        for row in self.rows:
            if row.deviation is not None:
                deviations[self.runners.index(row.runner), row.part].append(row.deviation)
        lines = []
        for (runner, part), each in sorted(deviations.items(), key=lambda item: item[0][0]):
            worst = Deviation.worst(each)
            lines.append(f"  {self.runners[runner]:<18}{part:<12}{worst.distance:.1e}   {worst.overlap:.4f}")
        return ["", *DEVIATIONS, *lines] if lines else []

    def save(self, folder: Path) -> None:
        """Write the table and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        table = self.table()
        content = json.dumps({**self.about, "table": table, "rows": [asdict(row) for row in self.rows]}, indent=2)
        for name, text in {"benchmark.json": content, "benchmark.txt": table}.items():
            with atomic_write(folder / name) as aside:
                aside.write_text(text + "\n", encoding="utf-8")

    def plot(self, path: Path) -> None:
        """Draw the peers' ratios to samplug as bars; nothing without matplotlib, peers or figures of samplug."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        peers = [(row, ratio) for row in self.rows if row.runner != SAMPLUG and (ratio := self.ratio(row)) is not None]
        if not peers:
            return
        figure = Figure(figsize=(9, 1.5 + 0.3 * len(peers)), layout="constrained")
        axes = figure.subplots()
        colors = [f"C{self.runners.index(row.runner) - 1}" for row, _ in peers]
        bars = axes.barh(range(len(peers)), [ratio for _, ratio in peers], color=colors)
        axes.bar_label(bars, [f" {row}" for row, _ in peers], fontsize=7)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(range(len(peers)), [f"{row.part}, {row.case}: {row.runner}" for row, _ in peers])
        axes.invert_yaxis()
        axes.set_xlabel("times samplug's figure")
        axes.set_title(self.about["heading"], fontsize=8)
        figure.savefig(path, dpi=120)


def table_line(cells: Sequence[str]) -> str:
    """Cells in columns."""
    part, case, *rest = cells
    return (f"{part:<11}{case:<24}" + "".join(f"{cell:<{COLUMN_WIDTH}}" for cell in rest)).rstrip()
