"""Everything: a grid of clicks, from the picture to the masks that survive."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from samplug.benchmark.compare import Deviation
from samplug.benchmark.runner import Grid, Runner
from samplug.benchmark.scene import picture
from samplug.benchmark.stage import Part
from samplug.benchmark.timing import by_turns
from samplug.nn.types import PromptBatch

OF_AN_ENCODER = 0.03  # what a click costs, roughly
SURVIVE = 150  # masks, about, before duplicates are dropped
UNPAIRED = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}  # share of masks that rounding may change


class Everything(Part):
    """All masks of a picture."""

    name = "everything"

    @property
    def weight(self) -> float:
        """An encoder and a grid of prompts, a run."""
        settings = self.stage.settings
        return (1 + OF_AN_ENCODER * settings.points_stride**2) * (len(self.runners) * settings.rounds)

    def run(self) -> None:
        """Measure."""
        stage = self.stage
        side = stage.settings.points_stride
        drawn = picture(stage.job.size, stage.job.size).to(stage.job.device)
        grid = Grid(side, threshold(stage.reference, drawn, side))
        works = {name: partial(runner.everything, drawn, grid) for name, runner in self.runners.items()}
        tick = stage.ticker(f"everything, {side}x{side}", 1 + OF_AN_ENCODER * side**2)
        warm = stage.job.device.type != "cpu"
        seconds, masks = by_turns(works, stage.settings.rounds, stage.job.device, tick, warm)
        own = stage.reference in self.runners.values()
        right = masks[stage.reference.name] if own else stage.reference.everything(drawn, grid)
        deviations = {name: Deviation.of_masks(found, right) for name, found in masks.items()}
        case = f"{side}x{side}, {len(right)} masks"
        stage.note("everything", case, seconds, deviations, UNPAIRED)


def threshold(runner: Runner, drawn: Tensor, side: int) -> float:
    """A predicted IoU that about SURVIVE masks are above, in the widest gap near there: rounding moves none across."""
    runner.encode(drawn)
    size = drawn.shape[-1]
    middles = (torch.arange(side, device=drawn.device) + 0.5) / side * size
    points = torch.cartesian_prod(middles, middles)[:, None]
    labels = torch.ones(len(points), 1, dtype=torch.int32, device=drawn.device)
    owner = torch.zeros(len(points), dtype=torch.int64, device=drawn.device)
    slices = [slice(start, start + 64) for start in range(0, len(points), 64)]
    prompts = [PromptBatch(owner[part], points=points[part], labels=labels[part]) for part in slices]
    scores = torch.cat([runner.answer(few, True)[1].float().flatten() for few in prompts])
    ranked = scores.sort(descending=True).values
    ranked = ranked[min(SURVIVE, len(ranked)) // 2 : 2 * SURVIVE]
    gaps = ranked[:-1] - ranked[1:]
    widest = int(gaps.argmax())
    return float((ranked[widest] + ranked[widest + 1]) / 2)
