"""Ultralytics' own SAM under the clock: its predictors, asked frame by frame without their loaders."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.benchmark.runner import Grid, Job, Runner, SAM2Modules, SAMModules, as_picture, normalised
from samplug.benchmark.weights import CLASSIFIER
from samplug.nn.types import PromptBatch
from samplug.variants import VARIANTS, HieraRow, TinyViTRow


def predictor_of(kind: str, job: Job) -> Any:
    """One of its predictors with the job's weights, which it takes from a file by the file's name."""
    from ultralytics.cfg import DEFAULT_CFG_DICT
    from ultralytics.models.sam import predict

    half = {"quantize": 16} if "quantize" in DEFAULT_CFG_DICT else {"half": True}
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{job.row.variant}.pt"
        torch.save(as_published(job), path)
        overrides = {
            "model": str(path),
            "imgsz": job.size,
            "device": str(job.device),
            "save": False,
            "verbose": False,
            **(half if job.dtype == torch.float16 else {}),
        }
        predictor = getattr(predict, kind)(overrides=overrides)
        predictor.setup_model(None, verbose=False)
    torch.set_num_threads(threads)  # it leaves a core unused; here everybody has the same
    predictor.imgsz = [job.size, job.size]
    predictor.model.set_imgsz(predictor.imgsz)
    predictor._bb_feat_sizes = [(job.size // stride, job.size // stride) for stride in (4, 8, 16)]
    return predictor


def as_published(job: Job) -> dict[str, Any]:
    """A checkpoint as its publisher lays it out."""
    if isinstance(job.row, HieraRow):
        return {"model": job.state}
    if isinstance(job.row, TinyViTRow):
        return job.state | {name: torch.zeros(shape) for name, shape in CLASSIFIER.items() if name not in job.state}
    return job.state


def lacks(job: Job) -> str:
    """Why Ultralytics cannot do a job."""
    if importlib.util.find_spec("ultralytics") is None:
        return "not installed"
    return "" if VARIANTS.get(job.row.variant) == job.row and job.row.image_size == 1024 else "has no such network"


def everything(predictor: Any, pixels: Tensor, dtype: torch.dtype, grid: Grid) -> Tensor:
    """Run a predictor's `generate`, whose NMS goes by `args.iou`."""
    predictor.args.iou = grid.duplicates
    predictor.batch = ["picture"], [as_picture(pixels)], [""]
    masks, _, _ = predictor.generate(
        normalised(pixels).to(dtype),
        points_stride=grid.side,
        conf_thres=grid.predicted_iou,
        stability_score_thresh=grid.stability,
        stability_score_offset=grid.offset,
    )
    return masks.bool()


class UltralyticsSAM(SAMModules):
    """Its SAM and MobileSAM."""

    name = "ultralytics"
    kind = "Predictor"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.predictor = predictor_of(self.kind, job)
        self.model = self.predictor.model
        self.dtype = self.input_dtype  # it has no bfloat16

    def everything(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Run its predictor."""
        return everything(self.predictor, pixels, self.input_dtype, grid)

    lacks = staticmethod(lacks)


class UltralyticsSAM2(SAM2Modules):
    """Its SAM 2 and 2.1."""

    name = "ultralytics"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.predictor = predictor_of("SAM2VideoPredictor", job)
        self.still = predictor_of("SAM2Predictor", job)
        self.model = self.still.model = self.predictor.model
        self.dtype = self.input_dtype

    def everything(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Run its predictor of pictures."""
        return everything(self.still, pixels, self.input_dtype, grid)

    lacks = staticmethod(lacks)

    def follow(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the video predictor's `inference`, its reader of files replaced."""
        assert prompts.points is not None and prompts.labels is not None
        one, size = self.predictor, self.job.size
        blank = np.zeros((size, size, 3), np.uint8)
        one.dataset = SimpleNamespace(mode="video", frames=len(frames), frame=0)
        one.batch = ["film"], [blank], [""]
        one.inference_state = {}
        one.init_state(one)
        clicks = {"points": prompts.points.cpu().numpy(), "labels": prompts.labels.cpu().numpy()}
        for number, frame in enumerate(frames, start=1):  # it counts from 1
            one.dataset.frame = number
            logits, _ = one.inference(normalised(frame[None]).to(self.input_dtype), **clicks)
            yield logits


def runner_of(job: Job) -> type[Runner]:
    """The one that can do the job."""
    return UltralyticsSAM2 if isinstance(job.row, HieraRow) else UltralyticsSAM
