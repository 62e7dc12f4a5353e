"""Ultralytics' own SAM: its predictors, called frame by frame without their loaders."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.benchmark.runners.base import Job, Runner, SAM2Modules, SAMModules, as_bytes
from samplug.benchmark.weights import as_published
from samplug.checkpoints.families import VARIANTS
from samplug.nn.structs import PromptBatch
from samplug.predict.auto.generator import GenerateOptions
from samplug.transforms import normalise


def predictor_of(kind: str, job: Job) -> Any:
    """One of its predictors with the job's weights, which it takes from a file by the file's name."""
    from ultralytics.cfg import DEFAULT_CFG_DICT
    from ultralytics.models.sam import predict

    half = {"quantize": 16} if "quantize" in DEFAULT_CFG_DICT else {"half": True}
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{job.row.variant}.pt"
        torch.save(as_published(job.row.variant, job.weights), path)
        where = {"model": str(path), "imgsz": job.size, "device": str(job.device), "save": False, "verbose": False}
        predictor = getattr(predict, kind)(overrides=where | (half if job.dtype == torch.float16 else {}))
        predictor.setup_model(None, verbose=False)
    torch.set_num_threads(threads)  # it leaves a core unused; here everybody has the same
    predictor.imgsz = [job.size, job.size]
    predictor.model.set_imgsz(predictor.imgsz)
    predictor._bb_feat_sizes = [(job.size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


class UltralyticsRunner(Runner):
    """What its two families share."""

    name = package = "ultralytics"
    image_predictor: str

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.predictor = predictor_of(self.image_predictor, job)
        self.model = self.predictor.model
        self.dtype = self.input_dtype  # it has no bfloat16

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Only released networks are there."""
        released = VARIANTS.get(job.row.variant) == job.row and job.row.image_size == 1024
        return "" if released else "has no such network"

    def generate(self, pixels: Tensor, options: GenerateOptions) -> Tensor:
        """Run its predictor's `generate`, whose NMS takes its threshold from `args.iou`."""
        self.predictor.args.iou = options.iou
        self.predictor.batch = ["image"], [as_bytes(pixels)], [""]
        masks, _, _ = self.predictor.generate(
            normalise(pixels).to(self.input_dtype),
            points_stride=options.points_stride,
            conf_thres=options.conf_thres,
            stability_score_thresh=options.stability_score_thresh,
            stability_score_offset=options.stability_score_offset,
        )
        return masks.bool()


class UltralyticsSAM(UltralyticsRunner, SAMModules):
    """Its SAM and MobileSAM."""

    image_predictor = "Predictor"


class UltralyticsSAM2(UltralyticsRunner, SAM2Modules):
    """Its SAM 2 and 2.1."""

    image_predictor = "SAM2Predictor"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.video_predictor = predictor_of("SAM2VideoPredictor", job)
        self.model = self.predictor.model = self.video_predictor.model

    def track(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the video predictor's `inference`, its reader of files replaced."""
        assert prompts.points is not None and prompts.labels is not None
        predictor, size = self.video_predictor, self.job.size
        blank = np.zeros((size, size, 3), np.uint8)
        predictor.dataset = SimpleNamespace(mode="video", frames=len(frames), frame=0)
        predictor.batch = ["video"], [blank], [""]
        predictor.inference_state = {}
        predictor.init_state(predictor)
        clicks = {"points": prompts.points.cpu().numpy(), "labels": prompts.labels.cpu().numpy()}
        for number, frame in enumerate(frames, start=1):  # it counts from 1
            predictor.dataset.frame = number
            logits, _ = predictor.inference(normalise(frame[None]).to(self.input_dtype), **clicks)
            yield logits


def runner_for(job: Job) -> type[Runner]:
    """The one that can do the job."""
    return UltralyticsSAM2 if job.has_memory else UltralyticsSAM
