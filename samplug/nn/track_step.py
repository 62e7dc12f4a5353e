"""The form that `SAM2Model.track_step` keeps from the original: lists of tokens (L, N, C) and dicts of outputs.

N objects in one batch, C channels, D memory channels, (h, w) the grid of features, L = h·w.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from samplug.nn.inputs import mask_size, resize_mask_prompt
from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.memory.selection import MemorySelection
from samplug.nn.ops.positions import sine_positions_like
from samplug.nn.structs import Features, PromptBatch

Outputs = Mapping[int, Mapping[str, Any]]


class Stored(NamedTuple):
    """The memory (N, L, D) and pointer (N, C) of a frame's outputs."""

    memory: Tensor
    pointer: Tensor


def features_of(tokens: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Features:
    """Maps from tokens (L, N, C), fine to coarse, of the sizes (h, w)."""
    *fine, image = (level.permute(1, 2, 0).unflatten(2, size) for level, size in zip(tokens, sizes, strict=True))
    return Features(image, tuple(fine))


def prompts_of(
    image_index: Tensor, points: Mapping[str, Tensor] | None, masks: Tensor | None, grid: tuple[int, int]
) -> PromptBatch:
    """One prompt an object; masks (N, 1, H, W) are reduced to (N, 1, 4h, 4w)."""
    if masks is not None and masks.shape[-2:] != mask_size(grid):
        masks = resize_mask_prompt(masks, grid)
    if points is None:
        return PromptBatch(image_index, masks=masks)
    return PromptBatch(image_index, points["point_coords"], points["point_labels"], masks=masks)


def memory_context_of(selection: MemorySelection, prompted: Outputs, tracked: Outputs) -> MemoryContext:
    """The selected memories and pointers, from the outputs of prompted and of tracked frames."""
    outputs = {**tracked, **prompted}
    frames = {frame for frame, _ in (*selection.memories, *selection.pointers)}
    stored = {f: Stored(outputs[f]["maskmem_features"].flatten(2).mT, outputs[f]["obj_ptr"]) for f in frames}
    return MemoryContext.gather(selection, stored)


def outputs_of(output: FrameOutput, logits: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
    """A frame's outputs as a dict, `logits` being those at the input's size."""
    memory = None if output.memory is None else output.memory.mT.unflatten(2, grid)
    return {
        "pred_masks": output.logits[:, None],
        "pred_masks_high_res": logits,
        "obj_ptr": output.pointer,
        "object_score_logits": output.presence[:, None],
        "maskmem_features": memory,
        "maskmem_pos_enc": None if memory is None else [sine_positions_like(memory)],
    }
