"""What is compared: an implementation of a network behind a surface that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.benchmark.weights import decided, random_state
from samplug.nn.types import PromptBatch
from samplug.variants import Row

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Reply = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, eq=False)
class Job:
    """What an implementation is built for.

    Attributes:
        row: the network's sizes.
        weights: its tensors under their official names; None draws random ones.
        size: side of the input.
        device: where it runs.
        dtype: what it should compute in, float32, float16 or bfloat16.
        compile: mode of torch.compile; empty for none.
        channels_last: maps with channels last.
    """

    row: Row
    weights: dict[str, Tensor] | None
    size: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    compile: str = ""
    channels_last: bool = False

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The weights, those drawn if none were given."""
        if self.weights is not None:
            return self.weights
        with torch.device("meta"):
            shapes = self.row.build().state_dict()
        return decided(random_state(shapes))

    def drawn(self) -> Job:
        """The same job with its weights at hand."""
        return replace(self, weights=self.state)


@dataclass(frozen=True)
class Grid:
    """What everybody's generator is told; there are no crops.

    Attributes:
        side: clicks along a side.
        predicted_iou: lowest predicted IoU of a mask that is kept.
        stability: lowest stability of one.
        offset: how far the threshold moves, in logits, to judge it.
        duplicates: IoU of boxes above which a mask is dropped: none is, so that all can be compared.
    """

    side: int
    predicted_iou: float
    stability: float = 0.05
    offset: float = 1.0
    duplicates: float = 1.0


class Runner:
    """One implementation.

    Attributes:
        name: what it is called in tables.
        dtype: what it computes in.
        model: its network.
        skips: parts of the benchmark that it has nothing for.
    """

    name: str
    model: Any
    skips: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        self.job, self.dtype = job, job.dtype

    @staticmethod
    def lacks(job: Job) -> str:
        """Why it cannot do a job; empty where it can."""
        return ""

    def encode(self, pixels: Tensor) -> Any:
        """Look at a picture (1, 3, S, S), RGB 0 … 255, to be asked about."""
        raise NotImplementedError

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Logits (N, M, S/4, S/4), predicted IoU (N, M), and presence (N, 1) or None, of prompts on that picture."""
        raise NotImplementedError

    def follow(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Follow objects, prompted on the first of (T, 3, S, S) frames: logits (N, S/4, S/4) frame by frame."""
        raise NotImplementedError

    def everything(self, pixels: Tensor, grid: Grid) -> Tensor:
        """All masks (N, S, S) bool of a picture (1, 3, S, S), RGB 0 … 255."""
        raise NotImplementedError

    @property
    def input_dtype(self) -> torch.dtype:
        """What the modules take: their weights' own."""
        return next(self.model.parameters()).dtype

    def lowered(self) -> AbstractContextManager:
        """What makes modules with weights in float32 compute in the runner's dtype."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.job.device.type, dtype=self.dtype)


def as_picture(pixels: Tensor) -> np.ndarray:
    """(S, S, 3) bytes of RGB."""
    return pixels[0].permute(1, 2, 0).byte().cpu().numpy()


def normalised(pixels: Tensor) -> Tensor:
    """RGB 0 … 255 as the networks take it."""
    mean, deviation = (torch.tensor(row, device=pixels.device).view(3, 1, 1) for row in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


def corners_first(prompts: PromptBatch) -> tuple[Tensor, Tensor] | None:
    """SAM 2's points: a box is two of them, labelled 2 and 3, ahead of the clicks."""
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
        with self.lowered():
            self.image = self.model.image_encoder(normalised(pixels).to(self.input_dtype))
        return self.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        points = None if prompts.points is None else (prompts.points, prompts.labels)
        with self.lowered():
            sparse, dense = self.model.prompt_encoder(points=points, boxes=prompts.boxes, masks=prompts.masks)
            grid = self.model.prompt_encoder.get_dense_pe()
            return *self.model.mask_decoder(self.image, grid, sparse, dense, multimask), None


class SAM2Modules(Runner):
    """SAM 2 on pictures, out of modules that keep Meta's names."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image encoder and add the embedding that stands for no memory."""
        with self.lowered():
            maps = self.model.forward_image(normalised(pixels).to(self.input_dtype))
            _, tokens, _, sizes = self.model._prepare_backbone_features(maps)
            tokens[-1] = tokens[-1] + self.model.no_mem_embed
            *self.fine, self.image = (
                level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(tokens, sizes, strict=True)
            )
        return self.image

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the prompt encoder and the mask decoder."""
        if prompts.points is None and prompts.boxes is None:  # they repeat the picture for points only
            answers = [self._answer(prompts[i], multimask) for i in range(len(prompts))]
            logits, iou, presence = (torch.cat(parts) for parts in zip(*answers, strict=True))
            return logits, iou, presence
        return self._answer(prompts, multimask)

    def _answer(self, prompts: PromptBatch, multimask: bool) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        with self.lowered():
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
