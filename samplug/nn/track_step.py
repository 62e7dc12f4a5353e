"""The form that `SAM2Model.track_step` keeps from the original: lists of tokens (L, N, C) and dicts of outputs.

N objects in one batch, C channels, D memory channels, (h, w) the grid of features, L = h·w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from samplug.nn.fpn import positions_of
from samplug.nn.frames import FrameOutput, Past
from samplug.nn.recall import Recall
from samplug.nn.types import Features, PromptBatch

Outputs = Mapping[int, Mapping[str, Any]]


class Stored(NamedTuple):
    """What is looked back at of a frame's outputs: (N, L, D) and (N, C)."""

    memory: Tensor
    pointer: Tensor


def features_of(tokens: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Features:
    """Maps from tokens (L, N, C), fine to coarse, of the sizes (h, w)."""
    *fine, image = (level.permute(1, 2, 0).unflatten(2, size) for level, size in zip(tokens, sizes, strict=True))
    return Features(image, tuple(fine))


def prompts_of(
    owner: Tensor, points: Mapping[str, Tensor] | None, masks: Tensor | None, size: Sequence[int]
) -> PromptBatch:
    """One prompt an object; masks (N, 1, ., .) are reduced to `size`, (4h, 4w)."""
    if masks is not None and masks.shape[-2:] != tuple(size):
        masks = F.interpolate(masks.float(), size=tuple(size), mode="bilinear", antialias=True)
    if points is None:
        return PromptBatch(owner, masks=masks)
    return PromptBatch(owner, points["point_coords"], points["point_labels"], masks=masks)


def past_of(recall: Recall, prompted: Outputs, tracked: Outputs) -> Past:
    """What is looked back at, from the outputs of prompted and of tracked frames."""
    outputs = {**tracked, **prompted}
    frames = {frame for frame, _ in (*recall.memories, *recall.pointers)}
    stored = {f: Stored(outputs[f]["maskmem_features"].flatten(2).mT, outputs[f]["obj_ptr"]) for f in frames}
    return Past.gather(recall, stored)


def outputs_of(output: FrameOutput, logits: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
    """A frame's outputs as a dict, `logits` being those at the input's size."""
    memory = None if output.memory is None else output.memory.mT.unflatten(2, grid)
    return {
        "pred_masks": output.logits[:, None],
        "pred_masks_high_res": logits,
        "obj_ptr": output.pointer,
        "object_score_logits": output.presence[:, None],
        "maskmem_features": memory,
        "maskmem_pos_enc": None if memory is None else [positions_of(memory)],
    }
