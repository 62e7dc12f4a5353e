"""samplug under the clock."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import Tensor

from samplug.benchmark.runner import Grid, Job, Reply, Runner, normalised
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.predict.compiled import compiled
from samplug.predict.everything import Settings, segment_everything
from samplug.predict.precision import Form, in_form
from samplug.tracking import Tracker
from samplug.view import View


class Ours(Runner):
    """Our networks, called as our predictors call them."""

    name = "samplug"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        model = job.row.build()
        model.load_state_dict(job.state, strict=True)
        self.form = Form(job.dtype, job.channels_last, job.compile)
        self.model = in_form(model.to(job.device).eval(), self.form)
        if job.compile:
            size = job.size, job.size
            self.model, why = compiled(self.model, job.compile, size, follows=isinstance(model, SAM2Model))
            if why:
                warnings.warn(f"compile={job.compile}: {why}. Going on without.", stacklevel=2)

    def _input(self, pixels: Tensor) -> Tensor:
        return self.form.shape(normalised(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image encoder."""
        self.features: Features = self.model.encode(self._input(pixels))
        return self.features.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        answer = self.model.answer(self.features, prompts, multimask)
        return answer.logits, answer.iou, answer.presence

    def everything(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Run what `generate` runs."""
        size = self.job.size
        settings = Settings(
            points_stride=grid.side,
            conf_thres=grid.predicted_iou,
            stability_score_thresh=grid.stability,
            stability_score_offset=grid.offset,
            iou=grid.duplicates,
        )
        view = View((size, size), (size, size))
        return segment_everything(self.model, self._input(pixels), view, settings, None).masks

    def follow(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the tracker."""
        assert isinstance(self.model, SAM2Model)
        tracker = Tracker(self.model)
        for number, frame in enumerate(frames):
            tracker.see(number, self.model.see(self._input(frame[None])))
            if number == 0:
                for i in range(len(prompts)):
                    tracker.prompt(i, prompts[i])
            output = tracker.step().output
            assert output is not None
            yield output.logits
