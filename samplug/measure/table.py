"""Findings as a table of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from samplug.measure.findings import SIZES, Findings
from samplug.measure.videos import FIRST_MASK, MEMORY_OFF

OF_PICTURES = {
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
OF_VIDEOS = {"J&F": "J&F", "J": "J", "F": "F", "gone": "noticed", "found": "found", "switches": "switches"}
WAYS = {MEMORY_OFF: "memory off", FIRST_MASK: "no network: first mask"}
LABEL, CELL = 28, 9


def pictures_table(findings: Findings, count: int) -> str:
    """The table of pictures, overall and by size, with boundary F in the last column."""
    counts = findings.sizes()
    lines = [
        f"{count} pictures, {len(findings.rows)} objects (mean IoU; F of the boundary)",
        line("", ["all", *SIZES, "F"]),
        line("objects", [len(findings.rows), *counts.values()]),
    ]
    columns = [findings.means(), *(findings.means(size) for size in SIZES)]
    for name, label in OF_PICTURES.items():
        if name in columns[0]:
            cells = [number(column.get(name), name) for column in columns]
            lines.append(line(label, [*cells, number(columns[0].get(f"{name}_F"))]))
    return "\n".join([*lines, *said(findings)])


def videos_table(ways: Mapping[str, Findings], count: int) -> str:
    """The table of videos, a line for each way of showing objects and each baseline."""
    first = next(iter(ways.values()))
    lines = [
        f"{count} videos, {len(first.rows)} objects, {first.counts['left']:.0f} of them leave for 3 frames or more, "
        f"{first.counts['returned']:.0f} return",
        line("", [*OF_VIDEOS.values(), *SIZES]),
    ]
    for way, findings in ways.items():
        scores = findings.means() | findings.counts
        cells = [number(scores.get(name), name) for name in OF_VIDEOS]
        sizes = [number(findings.means(size).get("J&F")) for size in SIZES]
        lines.append(line(WAYS.get(way, f"shown by {way}"), [*cells, *sizes]))
    return "\n".join([*lines, *said(first)])


def said(findings: Findings) -> list[str]:
    """How far what the network says of itself lies from the truth."""
    names = {"iou": "predicted IoU", "presence": "presence"}
    return [
        f"{names[name]}: off by {claims.error():.3f} on average (calibration error, {len(claims)} answers)"
        for name, claims in findings.claims.items()
        if len(claims)
    ]


def line(label: str, cells: Sequence[object]) -> str:
    """A line of the table."""
    return f"  {label:<{LABEL}}" + "".join(f"{cell:>{CELL}}" for cell in cells)


def number(value: float | None, name: str = "") -> str:
    """A cell: nothing where nothing was measured."""
    if value is None:
        return "-"
    if name.startswith("failed"):
        return f"{value:.0%}"
    return f"{value:.0f}" if name == "switches" else f"{value:.1f}" if name.startswith("noc") else f"{value:.3f}"
