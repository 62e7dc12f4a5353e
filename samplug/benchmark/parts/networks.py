"""What is timed of a network: its encoder, its decoder, everything, videos; and of samplug alone its switches."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from samplug.benchmark.compare import MASK_SET_TOLERANCE, VIDEO_TOLERANCE, Deviation
from samplug.benchmark.context import OBJECT_COST, PROMPT_COST, Context, Part, plural
from samplug.benchmark.runners.base import Job, Runner, generate_options
from samplug.benchmark.runners.samplug_ import Samplug
from samplug.benchmark.scene import draw_video
from samplug.benchmark.timing import rotated, timed
from samplug.nn.structs import PromptBatch
from samplug.predict.auto.crops import point_grid

FEW_PROMPTS = 8  # take no time, so they are timed in more rounds
ROUNDS_OF_FEW = 5  # times as many
TARGET_MASKS = 150  # masks of everything that survive, about
POINTS_PER_BATCH = 64
FULL_MEMORY = 7  # frames of a video that are remembered: later ones all cost the same


class Encoder(Part):
    """One image, from pixels to features; compared by the masks of one click."""

    name = "encoder"

    @property
    def weight(self) -> float:
        """One encoder a run."""
        return float(len(self.runners) * (self.context.settings.rounds + 1))

    def run(self) -> None:
        """Measure all runners."""
        image, answer = self.context.image, partial(masks_of, prompts=self.context.clicks(1))
        seconds, _ = self.interleaved(self.of_each(lambda runner: runner.encode(image)), "1 picture", 1.0)
        if self.context.reference not in self.runners.values():
            self.context.reference.encode(image)
        answers = {name: answer(runner) for name, runner in self.runners.items()}
        self.record("1 picture", seconds, answers, self.expected(answers, answer))


class Decoder(Part):
    """Prompts of one click, three masks each, up to the quarter-size logits."""

    name = "decoder"

    def rounds(self, count: int) -> int:
        """Timed runs of so many prompts."""
        return self.context.settings.rounds * (ROUNDS_OF_FEW if count <= FEW_PROMPTS else 1)

    @property
    def weight(self) -> float:
        """A share of an encoder for each prompt."""
        counts = self.context.settings.prompts
        return len(self.runners) * sum(PROMPT_COST * count * (self.rounds(count) + 1) for count in counts)

    def run(self) -> None:
        """Measure all runners."""
        for runner in {*self.runners.values(), self.context.reference}:
            runner.encode(self.context.image)
        for count in self.context.settings.prompts:
            answer, case = partial(masks_of, prompts=self.context.clicks(count)), plural(count, "prompt")
            seconds, answers = self.interleaved(self.of_each(answer), case, PROMPT_COST * count, self.rounds(count))
            self.record(case, seconds, answers, self.expected(answers, answer))


def masks_of(runner: Runner, prompts: PromptBatch) -> Tensor:
    """Logits (N, M, S/4, S/4) of prompts on the image that was encoded last."""
    return runner.answer(prompts, True)[0]


class Everything(Part):
    """All masks of an image: a grid of clicks, from the image to the masks that survive."""

    name = "everything"

    @property
    def cost(self) -> float:
        """An encoder and a grid of prompts."""
        return 1 + PROMPT_COST * self.context.settings.points_stride**2

    @property
    def weight(self) -> float:
        """The cost of all runs."""
        return self.cost * (len(self.runners) * self.context.settings.rounds)

    def run(self) -> None:
        """Measure all runners."""
        context, side = self.context, self.context.settings.points_stride
        options = generate_options(side, predicted_iou_threshold(context))

        def generate(runner: Runner) -> Tensor:
            return runner.generate(context.image, options)

        warm = context.job.device.type != "cpu"
        seconds, masks = self.interleaved(self.of_each(generate), f"{side}x{side}", self.cost, warm=warm)
        expected = self.expected(masks, generate)
        case = f"{side}x{side}, {len(expected)} masks"
        self.record(case, seconds, masks, expected, Deviation.of_mask_sets, MASK_SET_TOLERANCE)


def predicted_iou_threshold(context: Context) -> float:
    """A threshold that about `TARGET_MASKS` masks pass, in the widest gap near there: rounding moves none across."""
    runner, device = context.reference, context.job.device
    runner.encode(context.image)
    points = torch.from_numpy(point_grid(context.settings.points_stride)).float()[:, None].to(device) * context.job.size
    labels = torch.ones(len(points), 1, dtype=torch.int32, device=device)
    prompts = PromptBatch(torch.zeros(len(points), dtype=torch.int64, device=device), points=points, labels=labels)
    batches = [prompts[start : start + POINTS_PER_BATCH] for start in range(0, len(points), POINTS_PER_BATCH)]
    scores = torch.cat([runner.answer(batch, True)[1].float().flatten() for batch in batches])
    ranked = scores.sort(descending=True).values
    ranked = ranked[min(TARGET_MASKS, len(ranked)) // 2 : 2 * TARGET_MASKS]
    widest = int((ranked[:-1] - ranked[1:]).argmax())
    return float((ranked[widest] + ranked[widest + 1]) / 2)


class Video(Part):
    """A video with objects that are clicked on its first frame: that frame, and those once the memory is full."""

    name = "video"

    @property
    def weight(self) -> float:
        """Encoders and what objects cost, frame by frame."""
        if not self.context.job.has_memory:
            return 0.0
        settings = self.context.settings
        frames = settings.frames * (self.passes + self.warms_up)
        return frames * len(self.runners) * sum(1 + OBJECT_COST * count for count in settings.objects)

    @property
    def warms_up(self) -> bool:
        """Whether a pass goes before that is not timed: where kernels are chosen or compiled on the way."""
        return self.context.job.device.type != "cpu" or bool(self.context.settings.compile)

    @property
    def passes(self) -> int:
        """Timed passes: a CPU's take long, and hold enough frames."""
        return self.context.settings.rounds if self.warms_up else 1

    def run(self) -> None:
        """Measure all runners."""
        settings, job = self.context.settings, self.context.job
        frames = draw_video(job.size, settings.frames).to(job.device)
        full = min(FULL_MEMORY, settings.frames - 1)
        for count in settings.objects:
            prompts, case = self.context.clicks(count), plural(count, "object")
            passes = [self.run_pass(frames, prompts, case, i) for i in range(self.passes + self.warms_up)]
            logits = passes[-1][1]
            if self.warms_up:
                self.record(f"{case}, warming up", {name: [sum(all)] for name, all in passes.pop(0)[0].items()})
            first = {name: [seconds[name][0] for seconds, _ in passes] for name in self.runners}
            later = {name: [one for seconds, _ in passes for one in seconds[name][full:]] for name in self.runners}
            expected = self.expected(logits, partial(tracked, frames=frames, prompts=prompts))
            self.record(f"{case}, first frame", first)
            self.record(f"{case}, a frame", later, logits, expected, deviation_of_frames, VIDEO_TOLERANCE)

    def run_pass(
        self, frames: Tensor, prompts: PromptBatch, case: str, turn: int
    ) -> tuple[dict[str, list[float]], dict[str, list[Tensor]]]:
        """Run everybody over the video frame by frame, by turns: the seconds and the logits of each."""
        context, seconds, logits = self.context, defaultdict(list), defaultdict(list)
        names = rotated(list(self.runners), turn)
        steps = {name: self.runners[name].track(frames, prompts) for name in names}
        for number in range(len(frames)):
            for name in rotated(names, number):
                with context.surroundings(name):
                    taken, masks = timed(partial(next, steps[name]), context.job.device)
                seconds[name].append(taken)
                logits[name].append(masks)
                context.progress.tick(f"video, {case}, frame {number + 1}", 1 + OBJECT_COST * len(prompts))
        return seconds, logits


def tracked(runner: Runner, frames: Tensor, prompts: PromptBatch) -> list[Tensor]:
    """The logits of all frames."""
    return list(runner.track(frames, prompts))


def deviation_of_frames(logits: list[Tensor], expected: list[Tensor]) -> Deviation:
    """The worst deviation of all frames."""
    return Deviation.worst(list(map(Deviation.of_logits, logits, expected)))


class Switches(Part):
    """The encoder, many prompts and a short video of samplug alone under each switch, beside float32 without any."""

    name = "switches"

    @property
    def jobs(self) -> dict[str, Job]:
        """The network in each form that this device has, by what a user writes for it."""
        float32, mode = self.context.job.without_switches(), self.context.job.compile
        jobs = {
            Samplug.name: float32,
            "bf16": replace(float32, dtype=torch.bfloat16),
            "channels_last": replace(float32, channels_last=True),
        }
        if on_gpu := float32.device.type == "cuda":
            jobs["half"] = replace(float32, dtype=torch.float16)
        if on_gpu or mode:
            jobs["compile"] = replace(float32, compile=mode or "default")
            jobs["compile bf16"] = replace(jobs["bf16"], compile=mode or "default")
        return jobs

    def parts(self, runners: Mapping[str, Any]) -> list[Part]:
        """What these runners are measured by."""
        settings = replace(self.context.settings, prompts=(64,), objects=(1,), frames=4)
        job = self.context.job.without_switches()
        context = replace(self.context, settings=settings, job=job, runners=dict(runners), part=self.name)
        return [part for part in (Encoder(context), Decoder(context), Video(context)) if part.weight]

    @property
    def weight(self) -> float:
        """All parts; the networks are not yet built."""
        return sum(part.weight for part in self.parts(dict.fromkeys(self.jobs, Samplug)))

    def run(self) -> None:
        """Measure every form."""
        for part in self.parts({name: Samplug(job) for name, job in self.jobs.items()}):
            part.run()
