"""Objects followed through a film."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from samplug.benchmark.compare import DRIFTED, Deviation
from samplug.benchmark.scene import clicks, film, on
from samplug.benchmark.stage import Part
from samplug.benchmark.timing import rotated, timed
from samplug.nn.types import PromptBatch
from samplug.variants import HieraRow

OF_AN_ENCODER = 1.5  # what a frame of one object costs beside its encoder, roughly
FULL = 7  # frames that are remembered: later ones all cost the same


@dataclass
class Walk:
    """One pass over the film by everybody, frame by frame: who took how long, and the answers."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    logits: dict[str, list[Tensor]] = field(default_factory=dict)


class Video(Part):
    """A film with objects that are clicked on its first frame: that frame, and those once the memory is full."""

    name = "video"

    @property
    def weight(self) -> float:
        """Encoders and what objects cost, frame by frame."""
        stage = self.stage
        if not isinstance(stage.job.row, HieraRow):
            return 0.0
        frames = stage.settings.frames * (self.passes + self.warms_up)
        return frames * len(self.runners) * sum(1 + OF_AN_ENCODER * count for count in stage.settings.objects)

    @property
    def warms_up(self) -> bool:
        """Whether a pass goes before that is not timed: where kernels are chosen or compiled on the way."""
        return self.stage.job.device.type != "cpu" or bool(self.stage.job.compile)

    @property
    def passes(self) -> int:
        """Timed passes: a CPU's take long, and hold enough frames."""
        return self.stage.settings.rounds if self.warms_up else 1

    def run(self) -> None:
        """Measure."""
        stage = self.stage
        frames = film(stage.job.size, stage.settings.frames).to(stage.job.device)
        for count in stage.settings.objects:
            prompts = on(clicks(count, stage.job.size), stage.job.device)
            case = f"{count} object{'s' if count > 1 else ''}"
            walks = [self.walk(frames, prompts, case, i) for i in range(self.passes + self.warms_up)]
            right = walks[-1].logits.get(stage.reference.name) if stage.reference in self.runners.values() else None
            right = right or list(stage.reference.follow(frames, prompts))
            if self.warms_up:
                self.note(walks[:1], f"{case}, warming up", None)
                walks = walks[1:]
            self.note(walks, case, right)

    def walk(self, frames: Tensor, prompts: PromptBatch, case: str, turn: int) -> Walk:
        """Let everybody answer frame by frame, by turns."""
        stage, walk = self.stage, Walk()
        names = rotated(list(self.runners), turn)
        steps = {name: self.runners[name].follow(frames, prompts) for name in names}
        for number in range(len(frames)):
            for name in rotated(names, number):
                seconds, logits = timed(partial(next, steps[name]), stage.job.device)
                walk.seconds.setdefault(name, []).append(seconds)
                walk.logits.setdefault(name, []).append(logits)
                stage.progress.tick(f"video, {case}, frame {number + 1}", 1 + OF_AN_ENCODER * len(prompts))
        return walk

    def note(self, walks: list[Walk], case: str, right: list[Tensor] | None) -> None:
        """Write down the first frame and the steady ones, or a whole pass that warmed up."""
        stage, names = self.stage, self.runners
        if right is None:
            stage.note("video", case, {name: [sum(walk.seconds[name]) for walk in walks] for name in names})
            return
        late = min(FULL, len(right) - 1)
        first = {name: [walk.seconds[name][0] for walk in walks] for name in names}
        steady = {name: [one for walk in walks for one in walk.seconds[name][late:]] for name in names}
        drift = {
            name: Deviation.worst(
                [Deviation.of(answer, true) for answer, true in zip(walks[-1].logits[name], right, strict=True)]
            )
            for name in names
        }
        stage.note("video", f"{case}, first frame", first)
        stage.note("video", f"{case}, a frame", steady, drift, DRIFTED)
