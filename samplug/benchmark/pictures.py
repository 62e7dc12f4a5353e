"""The encoder and the decoder on one picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from samplug.benchmark.compare import FAR, Deviation
from samplug.benchmark.scene import clicks, on, picture
from samplug.benchmark.stage import Part
from samplug.benchmark.timing import by_turns
from samplug.nn.types import PromptBatch

OF_AN_ENCODER = 0.03  # what a prompt costs, roughly
QUICK = 5  # times as many rounds for few prompts, which take no time
FEW = 8


class Encoder(Part):
    """One picture, from normalised pixels to features; compared by what one click on them finds."""

    name = "encoder"

    @property
    def weight(self) -> float:
        """One encoder a run."""
        return float(len(self.runners) * (self.stage.settings.rounds + 1))

    def run(self) -> None:
        """Measure."""
        stage = self.stage
        pixels = picture_of(self)
        one = on(clicks(1, stage.job.size), stage.job.device)
        works = {name: partial(runner.encode, pixels) for name, runner in self.runners.items()}
        seconds, _ = by_turns(works, stage.settings.rounds, stage.job.device, stage.ticker("encoder", 1.0))
        stage.note("encoder", "1 picture", seconds, deviations(self, one), FAR)


class Decoder(Part):
    """Prompts of one click, three masks each, up to the quarter-size logits."""

    name = "decoder"

    @property
    def weight(self) -> float:
        """A share of an encoder for each prompt."""
        runs = len(self.runners) * (self.stage.settings.rounds + 1)
        return runs * sum(self.cost(count) for count in self.stage.settings.prompts)

    @staticmethod
    def cost(count: int) -> float:
        """Of one run."""
        return OF_AN_ENCODER * count * (QUICK if count <= FEW else 1)

    def run(self) -> None:
        """Measure."""
        stage = self.stage
        pixels = picture_of(self)
        for runner in {**self.runners, "reference": stage.reference}.values():
            runner.encode(pixels)
        for count in stage.settings.prompts:
            prompts = on(clicks(count, stage.job.size), stage.job.device)
            works = {name: partial(runner.answer, prompts, True) for name, runner in self.runners.items()}
            case = f"{count} prompt{'s' if count > 1 else ''}"
            repeats = stage.settings.rounds * (QUICK if count <= FEW else 1)
            tick = stage.ticker(f"decoder, {case}", OF_AN_ENCODER * count)
            seconds, answers = by_turns(works, repeats, stage.job.device, tick)
            stage.note("decoder", case, seconds, deviations(self, prompts, answers), FAR)


def picture_of(part: Part) -> Tensor:
    """The picture that everybody looks at."""
    job = part.stage.job
    return picture(job.size, job.size).to(job.device)


def deviations(part: Part, prompts: PromptBatch, answers: Mapping[str, Any] | None = None) -> dict[str, Deviation]:
    """How far everybody's answers are from the reference."""
    runners, reference = part.runners, part.stage.reference
    if reference not in runners.values() and answers is None:
        reference.encode(picture_of(part))
    right, *_ = reference.answer(prompts, True)
    given = {name: runner.answer(prompts, True) for name, runner in runners.items()} if answers is None else answers
    return {name: Deviation.of(logits, right) for name, (logits, *_) in given.items()}
