"""Findings as pictures: curves, reliability, worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from samplug.measure.calibration import Claims
from samplug.measure.findings import SIZES, Case, Findings
from samplug.measure.pictures import TARGETS

TILE = 320  # pixels, of a worst case's longer side
STRIP = 22  # pixels, for the words below it
COLUMNS = 4
FOUND, TRUTH, ON, OFF, BOX = (255, 60, 160), (255, 230, 40), (60, 220, 60), (235, 40, 40), (255, 255, 255)  # RGB
INK = "#2c5f8a"


def draw_curves(findings: Findings, file: Path) -> None:
    """The mean overlap by clicks, and the objects' overlaps by their size."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _clicks(left, findings.curve)
    _sizes(right, findings)
    figure.savefig(file, dpi=120)


def _clicks(axes: Axes, curve: Sequence[float]) -> None:
    axes.plot(range(1, len(curve) + 1), curve, color=INK, marker="o", markersize=4)
    for target in TARGETS:
        axes.axhline(target, color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1), title="after so many clicks")
    axes.set_xticks(range(1, len(curve) + 1, max(len(curve) // 10, 1)))


def _sizes(axes: Axes, findings: Findings) -> None:
    names = [name for name in ("click1", "click3", "box") if name in findings.means()]
    for place, name in enumerate(names):
        heights = [findings.means(size).get(name, 0.0) for size in SIZES]
        across = np.arange(len(SIZES)) + (place - (len(names) - 1) / 2) * 0.25
        axes.bar(across, heights, width=0.23, label=name, color=("#9cc3e0", "#5593c2", INK)[place])
    axes.set_xticks(range(len(SIZES)), [f"{size}\n{count}" for size, count in findings.sizes().items()])
    axes.set(ylabel="mean IoU", ylim=(0, 1), title="by size of the object")
    axes.legend(frameon=False)


def draw_reliability(claims: Mapping[str, Claims], file: Path) -> None:
    """What the network says of itself beside the truth: one panel a subject, bars as tall as the truth."""
    figure = Figure(figsize=(4.5 * len(claims), 4.5), layout="constrained")
    panels = figure.subplots(1, len(claims), squeeze=False)[0]
    for axes, (subject, each) in zip(panels, claims.items(), strict=True):
        bins = each.bins()
        most = max(one.count for one in bins)
        for one in bins:
            axes.bar(
                one.low, one.true, one.high - one.low, align="edge", color=INK, alpha=0.25 + 0.75 * one.count / most
            )
        axes.plot([one.claimed for one in bins], [one.true for one in bins], color="black", marker=".", linewidth=1)
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="said", ylabel="true on average")
        axes.set_title(f"{subject}: off by {each.error():.3f}, {len(each)} answers", fontsize=10)
    figure.savefig(file, dpi=120)


def draw_cases(cases: Sequence[Case], file: Path) -> None:
    """The cases side by side: the mask in pink, the truth outlined in yellow, clicks green on and red off, the box."""
    tiles = [tile(case) for case in cases]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % min(COLUMNS, len(tiles)))
    across = min(COLUMNS, len(tiles))
    rows = [np.hstack(tiles[start : start + across]) for start in range(0, len(tiles), across)]
    _, packed = cv2.imencode(file.suffix, cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    file.write_bytes(packed.tobytes())


def tile(case: Case) -> np.ndarray:
    """One case, (TILE + STRIP, TILE, 3) RGB."""
    height, width = case.wanted.shape
    gain = TILE / max(height, width)
    size = (max(round(width * gain), 1), max(round(height * gain), 1))
    image = cv2.resize(case.image, size, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
    found, wanted = (
        cv2.resize(m.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) for m in (case.found, case.wanted)
    )
    image = np.where(found[..., None] > 0, image // 2 + np.array(FOUND, np.uint8) // 2, image)
    outlines, _ = cv2.findContours(wanted, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, TRUTH, 1)
    for x, y, label in case.clicks:
        cv2.circle(image, (int((x + 0.5) * gain), int((y + 0.5) * gain)), 5, ON if label else OFF, -1)
    if case.box is not None:
        left, top, right, bottom = (int(edge * gain) for edge in case.box)
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), BOX, 1)
    canvas = np.full((TILE + STRIP, TILE, 3), 255, np.uint8)
    canvas[: size[1], : size[0]] = image
    words = f"{case.score:.2f}  {case.name[-38:]}"
    cv2.putText(canvas, words, (4, TILE + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas
