"""Curves of a run, and batches with their prompts and truth, as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from samplug.files.atomic import atomic_write
from samplug.nn.structs import Answer, PromptBatch
from samplug.train.data.batches import Batch
from samplug.val.plots import BOX, OFF, ON, TILE, TRUTH, save_tiles

MOST_TILES = 16
COLOURS = tuple((int(r), int(g), int(b)) for r, g, b in np.random.default_rng(5).integers(60, 256, (32, 3)))


def plot_results(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw losses and scores over the epochs, a panel each."""
    from matplotlib.figure import Figure

    names = dict.fromkeys(name for row in rows for name in row if name.endswith("_loss") or name.startswith("metrics/"))
    if not names:
        return
    across = -(-len(names) // 2)
    figure = Figure(figsize=(2.6 * across + 1, 6), layout="constrained")
    for axes, name in zip(figure.subplots(2, across, squeeze=False).ravel(), names, strict=False):
        known = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*known, strict=True), marker=".")
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
    with atomic_write(file, flush=False) as temporary:
        figure.savefig(temporary, dpi=120)


@dataclass(eq=False)
class BatchPlot:
    """Notes the prompts of a step, and draws its images with them and with the truth."""

    batch: Batch
    prompts: list[PromptBatch] = field(default_factory=list)  # in the order in which the network answered them

    def note(self, prompts: PromptBatch, _: Answer | None = None) -> None:
        """Remember prompts."""
        self.prompts.append(prompts)

    def draw(self, file: Path) -> None:
        """Write the image: masks tinted, outlines of the truth, clicks green (on) or red (off), boxes white."""
        save_tiles([self._tile(index) for index in range(min(self.batch.images.shape[1], MOST_TILES))], file)

    def _tile(self, index: int) -> np.ndarray:
        """One image, or the first frame of a clip."""
        image = np.ascontiguousarray(self.batch.images[0, index].permute(1, 2, 0).cpu().numpy())
        gain = TILE / max(image.shape[:2])
        own = self.batch.image_index == index
        for number, mask in enumerate(self.batch.masks[0, own].cpu().numpy()):
            colour = np.array(COLOURS[number % len(COLOURS)], np.uint8)
            image = np.where(mask[..., None], image // 2 + colour // 2, image)
            outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, outlines, -1, TRUTH, 1)
        size = (round(image.shape[1] * gain), round(image.shape[0] * gain))
        tile = cv2.resize(image, size, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
        for prompts in self.prompts:
            _draw_prompts(tile, prompts, prompts.image_index == index, gain)
        return tile


def _draw_prompts(tile: np.ndarray, prompts: PromptBatch, own: Tensor, gain: float) -> None:
    own = own.cpu()
    if prompts.boxes is not None:
        for left, top, right, bottom in (prompts.boxes.cpu()[own] * gain).int().tolist():
            cv2.rectangle(tile, (left, top), (right, bottom), BOX, 1)
    if prompts.points is not None and prompts.labels is not None:
        points, labels = prompts.points.cpu()[own].flatten(0, 1), prompts.labels.cpu()[own].flatten()
        for (x, y), label in zip(((points + 0.5) * gain).int().tolist(), labels.tolist(), strict=True):
            if label in (0, 1):
                cv2.circle(tile, (x, y), 4, ON if label else OFF, -1)
