"""Prompts answered and objects found on the images encoded last, in pixels of the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.errors import reject
from samplug.nn.inputs import resize_to_input
from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.nn.track_step import outputs_of
from samplug.prompts.coords import read_ids, read_whole_numbers, to_numpy
from samplug.runtime.finite import check_finite
from samplug.tracking.bank import MemoryBank, MemoryEntry
from samplug.tracking.steps import (
    SliceRunner,
    batch_rows,
    condition,
    encode_memories,
    map_slices,
    no_prompts,
    segment_prompt,
    segment_single_mask,
)


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """The images encoded last, F of them, with the network and the memory bank that work on them."""

    network: SAM2Model
    memory_bank: MemoryBank  # the objects to find on them, and where those prompted on them are remembered
    features: Features  # of the images
    in_slices: SliceRunner  # how many objects are answered together

    @torch.no_grad()
    def prompt(self, image: int, clicks: PromptBatch | None = None, mask: Tensor | None = None) -> FrameOutput:
        """Answer one object's clicks and box, or its mask (16h, 16w), on one image without memory, by a single mask."""
        features, clicks = self.features[image], clicks or PromptBatch(torch.zeros(1, dtype=torch.int64))
        mask = None if mask is None else mask.float()[None, None]

        def segment(prompts: PromptBatch) -> FrameOutput:
            return segment_single_mask(self.network, self.network.without_memory(features), prompts)

        return segment_prompt(self.network, features, clicks, mask, segment)

    @torch.no_grad()
    def add_to_memory(self, image: int, ids: Sequence[int], outputs: Sequence[FrameOutput], name: str) -> MemoryEntry:
        """Add the memories of objects prompted on one image to the bank."""
        features, rows = self.features[image], range(len(outputs))
        self.memory_bank.check_grid(features.grid)
        check_outputs(self.network, features, *outputs)
        encoded = encode_memories(self.network, features, outputs, rows, [True] * len(rows), None, self.in_slices)
        memories = torch.cat([memory for _, memory in encoded])
        check_finite(self.network, features.image, memories)
        presence = tuple(torch.cat([output.presence for output in outputs]).tolist())
        entry = MemoryEntry(name, tuple(ids), memories, presence, features.grid)
        self.memory_bank.add(entry)
        return entry

    def find(self, ids: Sequence[int]) -> list[FrameOutput]:
        """Find objects on each image, with a single mask each."""
        self.memory_bank.check_grid(self.features.grid)
        contexts = memory_contexts(self.network, self.memory_bank, ids)
        found = [self._find(self.features[i], contexts) for i in range(len(self.features))]
        check_outputs(self.network, self.features, *found)
        return found

    @torch.no_grad()
    def _find(self, features: Features, contexts: Sequence[MemoryContext]) -> FrameOutput:
        """Find N objects in one image by their memories."""

        def segment(rows: Sequence[int]) -> FrameOutput:
            conditioned = condition(self.network, features, [contexts[row] for row in rows])
            return segment_single_mask(self.network, conditioned, no_prompts(len(rows), features))

        batches = batch_rows([context.memories.shape[1] for context in contexts], features)
        outputs = [output for rows in batches for _, output in map_slices(rows, segment, self.in_slices)]
        order = torch.tensor([row for rows in batches for row in rows], device=features.image.device)
        return FrameOutput.cat(outputs)[order.argsort()]

    def update_memory(
        self, obj_ids: Any, points: Tensor | None, labels: Tensor | None, masks: Tensor | None
    ) -> MemoryEntry:
        """See `SAM2DynamicInteractivePredictor.update_memory`."""
        given = points if masks is None else masks
        if given is None:
            reject("points", "neither points nor masks came", "one of them")
        ids = read_ids(obj_ids, len(given))
        if ids is None:
            reject("obj_ids", "is missing", "an id of its own for each object")
        if len(self.features) != 1:
            raise ValueError(f"{len(self.features)} images are encoded. Expected one to prompt objects on.")
        rows = [[None if all_ is None else all_[i] for all_ in (points, labels, masks)] for i in range(len(given))]
        return self.add_to_memory(0, ids, [self._prompt_tensors(*row) for row in rows], "")

    def track_step(
        self, obj_idx: int | None, point: Tensor | None, label: Tensor | None, mask: Tensor | None
    ) -> dict[str, Any]:
        """See `SAM2DynamicInteractivePredictor.track_step`."""
        if obj_idx is None:
            output = FrameOutput.cat(self.find(chosen_ids(self.memory_bank, None)))
        else:
            output = self._prompt_tensors(*(given if given is None else given[0] for given in (point, label, mask)))
            check_outputs(self.network, self.features, output)
        grid = self.features.grid
        return outputs_of(output, resize_to_input(output.logits[:, None], grid), grid)

    def _prompt_tensors(self, points: Tensor | None, labels: Tensor | None, mask: Tensor | None) -> FrameOutput:
        """Answer points (P, 2) with labels (P,), or a mask (h, w) or (1, h, w)."""
        if mask is not None:
            return self.prompt(0, mask=mask.squeeze(0))
        if points is None or labels is None or not len(points):
            reject("points", "neither a mask nor points with labels came", "one of them")
        device = self.network.device
        image_index = torch.zeros(1, dtype=torch.int64, device=device)
        return self.prompt(0, PromptBatch(image_index, points[None].float().to(device), labels[None].to(device)))


def check_outputs(network: SAM2Model, features: Features, *outputs: FrameOutput) -> None:
    """Refuse outputs that hold NaN or infinity: FloatingPointError."""
    for output in outputs:
        check_finite(network, features.image, output.logits, output.presence, output.iou)


def chosen_ids(memory_bank: MemoryBank, obj_ids: Any) -> tuple[int, ...]:
    """Objects of a bank by one id, several, or None for all."""
    if obj_ids is None:
        return memory_bank.select_ids(None)
    given = np.atleast_1d(to_numpy(obj_ids))
    return memory_bank.select_ids(set(read_whole_numbers("obj_ids", given, len(given)) or ()))


def memory_contexts(network: SAM2Model, memory_bank: MemoryBank, ids: Sequence[int]) -> list[MemoryContext]:
    """What each object is found by: its memories, with the time embedding of prompted frames."""
    return [memory_bank.memory_context(obj_id, network.num_maskmem - 1) for obj_id in ids]


def memory_tokens(network: SAM2Model, memory_bank: MemoryBank, obj_ids: Any) -> tuple[Tensor, Tensor]:
    """See `SAM2DynamicInteractivePredictor.get_maskmem_enc`."""
    contexts = memory_contexts(network, memory_bank, chosen_ids(memory_bank, obj_ids))
    if len({context.memories.shape[1] for context in contexts}) > 1:
        raise ValueError("The objects were prompted on different numbers of images: ask for them one by one.")
    memory = network.memory_tokens(MemoryContext.cat(contexts), memory_bank[0].grid)
    return memory.tokens.transpose(0, 1), memory.positions.transpose(0, 1)
