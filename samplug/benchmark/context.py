"""What every part of a benchmark works with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from samplug.benchmark.compare import LOGIT_TOLERANCE, Deviation, Tolerance
from samplug.benchmark.report import Measurement, Report
from samplug.benchmark.runners.base import Job, Runner
from samplug.benchmark.runners.samplug_ import Samplug
from samplug.benchmark.scene import draw_clicks, draw_image
from samplug.benchmark.settings import Settings
from samplug.benchmark.timing import Progress, interleaved
from samplug.nn.structs import PromptBatch
from samplug.runtime.idle_team import IDLE_TEAM

PROMPT_COST = 0.03  # of one prompt, in runs of an image encoder, roughly
OBJECT_COST = 1.5  # of one object in a frame, likewise

Result = TypeVar("Result")


@dataclass
class Context:
    """The settings, the runners, and where figures go."""

    settings: Settings
    job: Job
    runners: dict[str, Runner]
    report: Report
    progress: Progress = field(default_factory=lambda: Progress(0.0, silent=True))
    part: str = ""  # under which figures are reported, in place of each part's own name

    @cached_property
    def reference(self) -> Runner:
        """Our network in float32 without switches, which answers are compared with."""
        return Samplug(self.job.without_switches()) if self.job.has_switches else self.runners[Samplug.name]

    @cached_property
    def image(self) -> Tensor:
        """The image that everybody is given."""
        return draw_image(self.job.size, self.job.size).to(self.job.device)

    def clicks(self, count: int) -> PromptBatch:
        """So many objects of one click each."""
        return draw_clicks(count, self.job.size, self.job.device)

    @contextmanager
    def surroundings(self, name: str) -> Iterator[None]:
        """Let OpenMP's threads wait as each implementation has it: samplug's briefly, a peer's as they always do."""
        if self.runners.get(name) is None or isinstance(self.runners[name], Samplug):
            IDLE_TEAM.adapt(at_once=True)
        try:
            yield
        finally:
            IDLE_TEAM.stop()


class Part:
    """A part of the benchmark."""

    name: str

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def runners(self) -> dict[str, Runner]:
        """The runners that take part."""
        return {name: runner for name, runner in self.context.runners.items() if self.name not in runner.skips}

    @property
    def weight(self) -> float:
        """How long it should take, in runs of an image encoder; 0 where the network has nothing of the kind."""
        raise NotImplementedError

    def run(self) -> None:
        """Measure all runners and record the figures."""
        raise NotImplementedError

    def of_each(self, work: Callable[[Runner], Result]) -> dict[str, Callable[[], Result]]:
        """The same work for every runner."""
        return {name: partial(work, runner) for name, runner in self.runners.items()}

    def interleaved(
        self, works: Mapping[str, Callable[[], Any]], case: str, cost: float, rounds: int = 0, warm: bool = True
    ) -> tuple[dict[str, list[float]], dict[str, Any]]:
        """Time works by turns as `timing.interleaved`, by default for the rounds of the settings.

        The `case` and the `cost` of one run, in runs of an image encoder, are for the line of progress.
        """
        context = self.context

        def tick(name: str) -> None:
            context.progress.tick(f"{self.name}, {case}, {name}", cost)

        rounds = rounds or context.settings.rounds
        return interleaved(works, rounds, context.job.device, tick, warm, context.surroundings)

    def expected(self, answers: Mapping[str, Result], answer: Callable[[Runner], Result]) -> Result:
        """What the reference answers: one of the runners, or asked now."""
        reference = self.context.reference
        return answers[reference.name] if reference in self.runners.values() else answer(reference)

    def record(
        self,
        case: str,
        values: Mapping[str, Sequence[float]],
        answers: Mapping[str, Result] | None = None,
        expected: Result | None = None,
        compare: Callable[[Any, Any], Deviation] = Deviation.of_logits,
        tolerance: Tolerance = LOGIT_TOLERANCE,
        unit: str = "s",
    ) -> None:
        """Add what was measured in a case to the report, by runner.

        Where there are `answers`, each is compared with the `expected` one, the reference's; further apart than the
        `tolerance` is more than rounding explains.
        """
        part, report = self.context.part or self.name, self.context.report
        for name, measured in values.items():
            runner = self.context.runners.get(name)
            dtype = torch.float32 if runner is None else runner.dtype
            deviation = None if answers is None else compare(answers[name], expected)
            far = deviation is not None and not deviation.distance <= tolerance[dtype]
            dtype_name = str(dtype).removeprefix("torch.")
            report.rows.append(Measurement(part, case, name, tuple(measured), unit, dtype_name, deviation, far))
        self.context.progress.write(report.line(part, case))


def plural(count: int, noun: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{count} {noun}{'s' if count > 1 else ''}"
