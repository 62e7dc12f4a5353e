"""The switches of samplug alone, each beside float32 as it comes: what it gains and what it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from samplug.benchmark.compare import DRIFTED, FAR, Deviation
from samplug.benchmark.ours import Ours
from samplug.benchmark.report import OURS
from samplug.benchmark.runner import Job
from samplug.benchmark.scene import clicks, film, on, picture
from samplug.benchmark.stage import Part
from samplug.benchmark.timing import by_turns
from samplug.variants import HieraRow

PROMPTS = 64
FRAMES = 4
COST = {"encoder": 1.0, f"{PROMPTS} prompts": 2.0, f"1 object, {FRAMES} frames": 2.0 * FRAMES}


class Switches(Part):
    """The encoder, many prompts and a short film under each switch that this device has."""

    name = "switches"

    @property
    def jobs(self) -> dict[str, Job]:
        """The network in each form, by what a user writes for it."""
        plain = replace(self.stage.job, dtype=torch.float32, compile="", channels_last=False)
        jobs = {
            OURS: plain,
            "bf16": replace(plain, dtype=torch.bfloat16),
            "channels_last": replace(plain, channels_last=True),
        }
        on_gpu = plain.device.type == "cuda"
        if on_gpu:
            jobs["half"] = replace(plain, dtype=torch.float16)
        if on_gpu or self.stage.job.compile:
            mode = self.stage.job.compile or "default"
            jobs["compile"] = replace(plain, compile=mode)
            jobs["compile bf16"] = replace(plain, compile=mode, dtype=torch.bfloat16)
        return jobs

    @property
    def cases(self) -> list[str]:
        """What is measured: no film of a network without memory."""
        return list(COST) if isinstance(self.stage.job.row, HieraRow) else list(COST)[:2]

    @property
    def weight(self) -> float:
        """All cases for each form."""
        return len(self.jobs) * (self.stage.settings.rounds + 1) * sum(COST[case] for case in self.cases)

    def run(self) -> None:
        """Measure."""
        stage = self.stage
        runners = {name: Ours(job) for name, job in self.jobs.items()}
        size, device = stage.job.size, stage.job.device
        drawn, moving = picture(size, size).to(device), film(size, FRAMES).to(device)
        many, one = on(clicks(PROMPTS, size), device), on(clicks(1, size), device)
        works: dict[str, Callable[[Ours], Any]] = {
            "encoder": lambda runner: runner.encode(drawn),
            f"{PROMPTS} prompts": lambda runner: runner.answer(many, True)[0],
            f"1 object, {FRAMES} frames": lambda runner: torch.cat(list(runner.follow(moving, one))),
        }
        for case in self.cases:
            ready = {name: partial(works[case], runner) for name, runner in runners.items()}
            seconds, answers = by_turns(
                ready, stage.settings.rounds, device, stage.ticker(f"switches, {case}", COST[case])
            )
            if case == "encoder":
                answers = {name: runner.answer(one, True)[0] for name, runner in runners.items()}
            deviations = {name: Deviation.of(answer, answers[OURS]) for name, answer in answers.items()}
            stage.note("switches", case, seconds, deviations, DRIFTED if "frames" in case else FAR, runners=runners)
