"""samplug's own networks."""

import warnings
from collections.abc import Iterator

from torch import Tensor

from samplug.benchmark.runners.base import Job, Reply, Runner
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.predict.auto.crops import InputSpace
from samplug.predict.auto.generator import GenerateOptions, generate_masks
from samplug.runtime.compiled import compiled
from samplug.runtime.precision import ComputeOptions, convert
from samplug.tracking import Tracker
from samplug.transforms import ImageTransform, normalise


class Samplug(Runner):
    """Our networks, called as our predictors call them."""

    name = "samplug"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        model = job.row.build()
        model.load_state_dict(job.weights, strict=True)
        self.form = ComputeOptions(job.dtype, job.channels_last, job.compile)
        self.model = convert(model.to(job.device).eval(), self.form)
        if job.compile:
            self.model, why = compiled(self.model, job.compile, (job.size, job.size), tracks=job.has_memory)
            if why:
                warnings.warn(f"compile={job.compile}: {why}. Going on without.", stacklevel=2)

    def _input(self, pixels: Tensor) -> Tensor:
        return self.form.prepare_images(normalise(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image encoder."""
        self.features: Features = self.model.encode(self._input(pixels))
        return self.features.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        answer = self.model.answer(self.features, prompts, multimask)
        return answer.logits, answer.iou, answer.presence

    def generate(self, pixels: Tensor, options: GenerateOptions) -> Tensor:
        """Run what `Predictor.generate` runs."""
        size = self.job.size, self.job.size
        space = InputSpace(self._input(pixels), ImageTransform(size, size))
        return generate_masks(self.model, space, options).packed(size).unpack()

    def track(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the tracker."""
        assert isinstance(self.model, SAM2Model)
        tracker = Tracker(self.model)
        for number, frame in enumerate(frames):
            tracker.start_frame(number, self.model.encode_image(self._input(frame[None])))
            if number == 0:
                for i in range(len(prompts)):
                    tracker.prompt(i, prompts[i])
            output = tracker.step().output
            assert output is not None
            yield output.logits
