"""Scores as images: curves, reliability, worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from samplug.files.atomic import atomic_write
from samplug.val.images import TARGET_IOUS
from samplug.val.scores import SIZES, CalibrationLog, Case, Scores

TILE = 320  # pixels, of a worst case's longer side
CAPTION = 22  # pixels below it
COLUMNS = 4
PREDICTED, TRUTH, ON, OFF, BOX = (255, 60, 160), (255, 230, 40), (60, 220, 60), (235, 40, 40), (255, 255, 255)  # RGB
BLUE = "#2c5f8a"


def plot_curves(scores: Scores, file: Path) -> None:
    """The mean IoU by clicks, and by the objects' size."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _clicks(left, scores.curve)
    _sizes(right, scores)
    figure.savefig(file, dpi=120)


def _clicks(axes: Axes, curve: Sequence[float]) -> None:
    axes.plot(range(1, len(curve) + 1), curve, color=BLUE, marker="o", markersize=4)
    for target in TARGET_IOUS:
        axes.axhline(target, color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1), title="after so many clicks")
    axes.set_xticks(range(1, len(curve) + 1, max(len(curve) // 10, 1)))


def _sizes(axes: Axes, scores: Scores) -> None:
    names = [name for name in ("click1", "click3", "box") if name in scores.means()]
    for i, name in enumerate(names):
        heights = [scores.means(size).get(name, 0.0) for size in SIZES]
        across = np.arange(len(SIZES)) + (i - (len(names) - 1) / 2) * 0.25
        axes.bar(across, heights, width=0.23, label=name, color=("#9cc3e0", "#5593c2", BLUE)[i])
    axes.set_xticks(range(len(SIZES)), [f"{size}\n{count}" for size, count in scores.sizes().items()])
    axes.set(ylabel="mean IoU", ylim=(0, 1), title="by size of the object")
    axes.legend(frameon=False)


def plot_reliability(logs: Mapping[str, CalibrationLog], file: Path) -> None:
    """Reliability diagrams: one panel a subject, bars as tall as the truth."""
    figure = Figure(figsize=(4.5 * len(logs), 4.5), layout="constrained")
    panels = figure.subplots(1, len(logs), squeeze=False)[0]
    for axes, (subject, log) in zip(panels, logs.items(), strict=True):
        bins = log.bins()
        most = max(each.count for each in bins)
        for each in bins:
            alpha = 0.25 + 0.75 * each.count / most
            axes.bar(each.low, each.true, each.high - each.low, align="edge", color=BLUE, alpha=alpha)
        axes.plot([each.claimed for each in bins], [each.true for each in bins], color="black", marker=".", linewidth=1)
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="said", ylabel="true on average")
        axes.set_title(f"{subject}: off by {log.error():.3f}, {len(log)} answers", fontsize=10)
    figure.savefig(file, dpi=120)


def draw_cases(cases: Sequence[Case], file: Path) -> None:
    """Cases side by side: the mask pink, the truth outlined in yellow, clicks green (on) or red (off), the box."""
    save_tiles([_tile(case) for case in cases], file)


def save_tiles(tiles: Sequence[np.ndarray], file: Path) -> None:
    """Write images of one size, RGB, as one with a few a row."""
    tiles = [*tiles, *[np.full_like(tiles[0], 255)] * (-len(tiles) % min(COLUMNS, len(tiles)))]
    across = min(COLUMNS, len(tiles))
    rows = [np.hstack(tiles[start : start + across]) for start in range(0, len(tiles), across)]
    _, packed = cv2.imencode(file.suffix, cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    with atomic_write(file, flush=False) as temporary:
        temporary.write_bytes(packed.tobytes())


def _tile(case: Case) -> np.ndarray:
    """One case, (TILE + CAPTION, TILE, 3) RGB."""
    height, width = case.truth.shape
    gain = TILE / max(height, width)
    size = (max(round(width * gain), 1), max(round(height * gain), 1))
    image = cv2.resize(case.image, size, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
    masks = (case.predicted.view(np.uint8), case.truth.view(np.uint8))
    predicted, truth = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in masks)
    image = np.where(predicted[..., None] > 0, image // 2 + np.array(PREDICTED, np.uint8) // 2, image)
    outlines, _ = cv2.findContours(truth, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, TRUTH, 1)
    for x, y, label in case.clicks:
        cv2.circle(image, (int((x + 0.5) * gain), int((y + 0.5) * gain)), 5, ON if label else OFF, -1)
    if case.box is not None:
        left, top, right, bottom = (int(edge * gain) for edge in case.box)
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), BOX, 1)
    canvas = np.full((TILE + CAPTION, TILE, 3), 255, np.uint8)
    canvas[: size[1], : size[0]] = image
    caption = f"{case.score:.2f}  {case.name[-38:]}"
    cv2.putText(canvas, caption, (4, TILE + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas
