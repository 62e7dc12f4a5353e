"""What every part of a benchmark works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from samplug.benchmark.compare import Deviation
from samplug.benchmark.ours import Ours
from samplug.benchmark.report import Report, Row
from samplug.benchmark.runner import Job, Runner
from samplug.benchmark.settings import Settings
from samplug.benchmark.timing import Progress


@dataclass
class Stage:
    """The settings, who takes part, and where figures go."""

    settings: Settings
    job: Job
    runners: dict[str, Runner]
    report: Report
    progress: Progress = field(default_factory=lambda: Progress(0.0, silent=True))

    @cached_property
    def reference(self) -> Runner:
        """Our network in float32 as it comes, which answers are compared with."""
        plain = replace(self.job, dtype=torch.float32, compile="", channels_last=False)
        same = (plain.dtype, plain.compile, plain.channels_last)
        as_it_runs = (self.job.dtype, self.job.compile, self.job.channels_last)
        return self.runners[Ours.name] if same == as_it_runs else Ours(plain)

    def ticker(self, what: str, weight: float) -> Callable[[str], None]:
        """What is told who has done a run of a weight."""
        return lambda name: self.progress.tick(f"{what}, {name}", weight)

    def note(
        self,
        part: str,
        case: str,
        seconds: Mapping[str, Sequence[float]],
        deviations: Mapping[str, Deviation] | None = None,
        allowed: Mapping[torch.dtype, float] | None = None,
        unit: str = "s",
        runners: Mapping[str, Runner] | None = None,
    ) -> None:
        """Write down what a case took, seconds or megabytes.

        Args:
            part: what was measured.
            case: of it.
            seconds: by who did it.
            deviations: how far their answers are from the reference.
            allowed: how far is near enough, by what is computed in.
            unit: of what was read.
            runners: who they are; left out: those that take part in everything.
        """
        runners = self.runners if runners is None else runners
        for name, values in seconds.items():
            deviation = (deviations or {}).get(name)
            dtype = runners[name].dtype if name in runners else torch.float32
            self.report.rows.append(
                Row(
                    part,
                    case,
                    name,
                    tuple(values),
                    unit,
                    dtype=str(dtype).removeprefix("torch."),
                    deviation=deviation,
                    far=deviation is not None and not deviation.distance <= (allowed or {})[dtype],
                )
            )
        self.progress.say(self.report.line(part, case))


class Part:
    """A part of the benchmark."""

    name: str

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def runners(self) -> dict[str, Runner]:
        """Those who have something of the kind."""
        return {name: runner for name, runner in self.stage.runners.items() if self.name not in runner.skips}

    @property
    def weight(self) -> float:
        """How long it should take, in runs of an image encoder; 0 where the network has nothing of the kind."""
        raise NotImplementedError

    def run(self) -> None:
        """Measure everybody and write down the figures."""
        raise NotImplementedError
