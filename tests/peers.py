"""The reference implementations behind one surface: a square picture of raw pixels in, logits and scores out.

`peer.encode(pixels)` takes (1, 3, S, S) RGB in 0-255. `peer.answer(prompts, multimask)` takes a PromptBatch and gives
logits (N, M, S/4, S/4), predicted IoUs (N, M) and presences (N, 1), which are None where the peer does not tell.
"""

import importlib
import os
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from samplug.checkpoints import load_model
from samplug.nn.types import Features, PromptBatch


def peer_package(name: str):
    """A peer, or a skip where it is absent; with SAMPLUG_PEERS=1 its absence is a failure."""
    return importlib.import_module(name) if os.environ.get("SAMPLUG_PEERS") == "1" else pytest.importorskip(name)


class Ours:
    def __init__(self, path, size):
        self.model = load_model(path)

    def encode(self, pixels: Tensor) -> None:
        self.features: Features = self.model.encode((pixels - self.model.pixel_mean) / self.model.pixel_std)

    def answer(self, prompts: PromptBatch, multimask: bool):
        answer = self.model.answer(self.features, prompts, multimask)
        return answer.logits, answer.iou, answer.presence


class UltralyticsSAM:
    """Its modules, called as its predictors call them. It tells the network by the file's name."""

    def __init__(self, path, size):
        from ultralytics.models.sam.build import build_sam

        self.model = build_sam(path)
        self.model.set_imgsz((size, size))

    def encode(self, pixels: Tensor) -> None:
        mean, std = (torch.tensor(row).view(3, 1, 1) for row in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        self.image = self.model.image_encoder((pixels - mean) / std)

    def answer(self, prompts: PromptBatch, multimask: bool):
        points = None if prompts.points is None else (prompts.points, prompts.labels)
        sparse, dense = self.model.prompt_encoder(points=points, boxes=prompts.boxes, masks=prompts.masks)
        decoder, grid = self.model.mask_decoder, self.model.prompt_encoder.get_dense_pe()
        return *decoder(self.image, grid, sparse, dense, multimask), None


class UltralyticsSAM2(UltralyticsSAM):
    def encode(self, pixels: Tensor) -> None:
        mean, std = (torch.tensor(row).view(3, 1, 1) for row in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        maps = self.model.forward_image((pixels - mean) / std)
        _, tokens, _, sizes = self.model._prepare_backbone_features(maps)
        tokens[-1] = tokens[-1] + self.model.no_mem_embed
        *self.fine, self.image = (
            level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(tokens, sizes, strict=True)
        )

    def answer(self, prompts: PromptBatch, multimask: bool):
        if prompts.points is None and prompts.boxes is None:  # it repeats the picture for points only
            answers = [self._answer(prompts[i], multimask) for i in range(len(prompts))]
            return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))
        return self._answer(prompts, multimask)

    def _answer(self, prompts: PromptBatch, multimask: bool):
        model = self.model
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


class MetaSAM:
    """segment-anything's predictor, which knows one size: 1024."""

    def __init__(self, path, size):
        package = peer_package("segment_anything")
        model = package.sam_model_registry["vit_b"](checkpoint=str(path)).eval()
        self.predictor = package.SamPredictor(model)

    def encode(self, pixels: Tensor) -> None:
        self.predictor.set_torch_image(pixels, tuple(pixels.shape[-2:]))

    def answer(self, prompts: PromptBatch, multimask: bool):
        given = (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
        _, iou, logits = self.predictor.predict_torch(*given, multimask_output=multimask, return_logits=True)
        return logits, iou, None


class MetaSAM2:
    """sam2's image predictor. It clamps its logits to 32."""

    @staticmethod
    def build(path, size):
        """Its model and predictor; what it imports on the way calls torch.jit.script, which is deprecated."""
        peer_package("sam2")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from sam2.build_sam import build_sam2
            from sam2.sam2_image_predictor import SAM2ImagePredictor

            release, letter = path.stem.split("_")
            config = f"configs/{release}/{release}_hiera_{letter.replace('b', 'b+')}.yaml"
            overrides = [f"++model.image_size={size}"]
            return SAM2ImagePredictor(build_sam2(config, str(path), "cpu", hydra_overrides_extra=overrides))

    def __init__(self, path, size):
        self.predictor = self.build(path, size)
        self.predictor._bb_feat_sizes = [(size // stride, size // stride) for stride in (4, 8, 16)]

    def encode(self, pixels: Tensor) -> None:
        self.predictor.set_image(pixels[0].permute(1, 2, 0).numpy().astype(np.uint8))

    def answer(self, prompts: PromptBatch, multimask: bool):
        if prompts.points is None and prompts.boxes is None:  # it repeats the picture for points only
            answers = [self._answer(prompts[i], multimask) for i in range(len(prompts))]
            return *(torch.cat(parts) for parts in zip(*answers, strict=True)), None
        return *self._answer(prompts, multimask), None

    def _answer(self, prompts: PromptBatch, multimask: bool):
        given = (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
        _, iou, logits = self.predictor._predict(*given, multimask_output=multimask, return_logits=True)
        return logits, iou


def corners_first(prompts: PromptBatch):
    """SAM 2's points: a box is two of them, labelled 2 and 3, ahead of the clicks."""
    if prompts.boxes is None:
        return None if prompts.points is None else (prompts.points, prompts.labels)
    corners, labels = prompts.boxes.view(-1, 2, 2), torch.tensor([[2, 3]]).expand(len(prompts), 2)
    if prompts.points is None:
        return corners, labels
    return torch.cat([corners, prompts.points], 1), torch.cat([labels, prompts.labels], 1)
