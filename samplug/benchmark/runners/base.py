"""A runner: an implementation of a network behind an interface that all of them share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.checkpoints.families.base import Row
from samplug.checkpoints.families.sam2 import HieraRow
from samplug.nn.structs import PromptBatch
from samplug.predict.auto.generator import GenerateOptions
from samplug.transforms import normalise

Reply = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, eq=False)
class Job:
    """What an implementation is built for."""

    row: Row  # the network's sizes
    weights: dict[str, Tensor]  # under their official names
    size: int  # side of the input
    device: torch.device
    dtype: torch.dtype = torch.float32  # what it should compute in, also float16 or bfloat16
    compile: str = ""  # mode of torch.compile; empty for none
    channels_last: bool = False  # maps with channels last

    @property
    def has_memory(self) -> bool:
        """Whether the network tracks objects through videos."""
        return isinstance(self.row, HieraRow)

    @property
    def has_switches(self) -> bool:
        """Whether it computes in anything but float32 as it comes."""
        return self.dtype != torch.float32 or bool(self.compile) or self.channels_last

    def without_switches(self) -> Job:
        """The same job in float32 as it comes."""
        return replace(self, dtype=torch.float32, compile="", channels_last=False)


def generate_options(points_stride: int, conf_thres: float) -> GenerateOptions:
    """Options of every mask generator: no crops, and no duplicate is dropped, so that all masks can be compared."""
    options = GenerateOptions(points_stride=points_stride, conf_thres=conf_thres)
    return replace(options, stability_score_thresh=0.05, stability_score_offset=1.0, iou=1.0)


class Runner:
    """One implementation."""

    name: str  # in tables
    package: str = "samplug"  # that has to be installed
    model: Any  # its network
    skips: tuple[str, ...] = ()  # parts of the benchmark that it has nothing for

    def __init__(self, job: Job) -> None:
        self.job, self.dtype = job, job.dtype  # what it computes in

    @classmethod
    def missing(cls, job: Job) -> str:
        """Why it cannot do a job; empty if it can."""
        return cls.unsupported(job) if importlib.util.find_spec(cls.package) else "not installed"

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Why it cannot do a job although it is installed; empty if it can."""
        return ""

    def encode(self, pixels: Tensor) -> Any:
        """Encode an image (1, 3, S, S), RGB 0 … 255, for `answer`."""
        raise NotImplementedError

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Logits (N, M, S/4, S/4), predicted IoU (N, M), and presence (N, 1) or None, of prompts on that image."""
        raise NotImplementedError

    def track(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Track objects, prompted on the first of (T, 3, S, S) frames: logits (N, S/4, S/4) frame by frame."""
        raise NotImplementedError

    def generate(self, pixels: Tensor, options: GenerateOptions) -> Tensor:
        """All masks (N, S, S) bool of an image (1, 3, S, S), RGB 0 … 255."""
        raise NotImplementedError

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the weights, which modules take."""
        return next(self.model.parameters()).dtype

    def autocast(self) -> AbstractContextManager:
        """Let modules with weights in float32 compute in the runner's dtype."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.job.device.type, dtype=self.dtype)


def as_bytes(pixels: Tensor) -> np.ndarray:
    """(S, S, 3) bytes of RGB."""
    return pixels[0].permute(1, 2, 0).byte().cpu().numpy()


def corners_first(prompts: PromptBatch) -> tuple[Tensor, Tensor] | None:
    """SAM 2's points: a box is two of them, labelled 2 and 3, ahead of the clicks.

    Written apart from `samplug.nn.inputs`, so that a mistake there does not reach the peers that it is compared with.
    """
    if prompts.boxes is None:
        return None if prompts.points is None or prompts.labels is None else (prompts.points, prompts.labels)
    corners = prompts.boxes.view(-1, 2, 2)
    labels = torch.tensor([[2, 3]], dtype=torch.int32, device=corners.device).expand(len(prompts), 2)
    if prompts.points is None or prompts.labels is None:
        return corners, labels
    return torch.cat([corners, prompts.points], 1), torch.cat([labels, prompts.labels], 1)


class SAMModules(Runner):
    """SAM out of modules that keep Meta's names, called one after another as the predictors around them do."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image encoder."""
        with self.autocast():
            self.image = self.model.image_encoder(normalise(pixels).to(self.input_dtype))
        return self.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        points = None if prompts.points is None else (prompts.points, prompts.labels)
        with self.autocast():
            sparse, dense = self.model.prompt_encoder(points=points, boxes=prompts.boxes, masks=prompts.masks)
            grid = self.model.prompt_encoder.get_dense_pe()
            return *self.model.mask_decoder(self.image, grid, sparse, dense, multimask), None


class SAM2Modules(Runner):
    """SAM 2 on images, out of modules that keep Meta's names."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image encoder and add the embedding that stands for no memory."""
        with self.autocast():
            maps = self.model.forward_image(normalise(pixels).to(self.input_dtype))
            _, tokens, _, sizes = self.model._prepare_backbone_features(maps)
            tokens[-1] = tokens[-1] + self.model.no_mem_embed
            *self.fine, self.image = (
                level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(tokens, sizes, strict=True)
            )
        return self.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        if prompts.points is None and prompts.boxes is None:  # they repeat the image for points only
            answers = [self._answer(prompts[i], multimask) for i in range(len(prompts))]
            logits, iou, presence = (torch.cat(parts) for parts in zip(*answers, strict=True))
            return logits, iou, presence
        return self._answer(prompts, multimask)

    def _answer(self, prompts: PromptBatch, multimask: bool) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        with self.autocast():
            sparse, dense = model.sam_prompt_encoder(points=corners_first(prompts), boxes=None, masks=prompts.masks)
            logits, iou, _, presence = model.sam_mask_decoder(
                self.image,
                model.sam_prompt_encoder.get_dense_pe(),
                sparse,
                dense,
                multimask_output=multimask,
                repeat_image=len(prompts) > 1,
                high_res_features=self.fine,
            )
        return logits, iou, presence
