"""The network's steps on one frame: prompt an object, track objects, encode their memories.

Objects are tracked independently. On a CPU, which gains nothing from batches, each runs alone, so that its results stay
the same to the bit whatever other objects there are. On a GPU those with memory contexts of one shape run together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from samplug.nn.constants import PREVIOUS_MASK_CLAMP
from samplug.nn.inputs import add_padding_point, non_overlapping, resize_mask_prompt, resize_to_input
from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, Features, PromptBatch
from samplug.tracking.policies.base import Rule
from samplug.tracking.track import Track

R = TypeVar("R")
S = TypeVar("S")
SliceRunner = Callable[[int, Callable[[slice], None]], None]  # runs work on rows 0 … count - 1, a slice at a time


def run_at_once(count: int, work: Callable[[slice], None]) -> None:
    """Run work on all rows in one slice; another `SliceRunner` knows how much memory is free."""
    work(slice(0, count))


def map_slices(rows: Sequence[R], work: Callable[[Sequence[R]], S], run: SliceRunner) -> list[tuple[Sequence[R], S]]:
    """Run work on rows; return each slice with its result, in order.

    Work that runs out of memory may run again on fewer rows, so it must not change anything.
    """
    done: list[tuple[Sequence[R], S]] = []
    run(len(rows), lambda some: done.append((rows[some], work(rows[some]))))
    return done


def prompt_object(
    model: SAM2Model, features: Features, prompts: PromptBatch, mask: Tensor | None, context: MemoryContext | None,
    previous: Tensor | None,
) -> FrameOutput:  # fmt: skip
    """Segment an object by its prompt: a first prompted frame without `context`, or a correction with it.

    Prompts are clicks and a box, or its mask (1, 1, 16h, 16w); clicks correct the mask `previous` (1, 4h, 4w), logits.
    """

    def segment(prompts: PromptBatch) -> FrameOutput:
        if prompts.masks is None and previous is not None:
            clamped = previous[:, None].clamp(-PREVIOUS_MASK_CLAMP, PREVIOUS_MASK_CLAMP)
            prompts = replace(prompts, masks=clamped)
        if context is None:
            return model.segment(model.without_memory(features), prompts, prompted=True)
        return model.segment(condition(model, features, [context]), prompts, prompted=False)

    return segment_prompt(model, features, prompts, mask, segment)


def segment_prompt(
    model: SAM2Model,
    features: Features,
    prompts: PromptBatch,
    mask: Tensor | None,
    segment: Callable[[PromptBatch], FrameOutput],
) -> FrameOutput:
    """Segment the prompts of one object, or its mask, which is the output itself if the network says so."""
    image_index = torch.zeros(1, dtype=torch.int64, device=features.image.device)
    prompts = replace(prompts, image_index=image_index)
    if mask is None:
        return segment(prompts)
    mask = mask.to(features.image.device)
    if model.use_mask_input_as_output_without_sam:
        return model.use_mask_as_output(features, mask, image_index)
    return segment(replace(prompts, masks=resize_mask_prompt(mask, features.grid)))


def segment_single_mask(model: SAM2Model, features: Features, prompts: PromptBatch) -> FrameOutput:
    """Segment objects on conditioned features without a choice of masks."""
    return model.select_mask(model.answer(features, add_padding_point(prompts)))


def track_objects(
    model: SAM2Model, frame: int, features: Features, tracks: Sequence[Track], rule: Rule,
    run_slices: SliceRunner = run_at_once,
) -> None:  # fmt: skip
    """Segment the objects that are not prompted on this frame."""
    if not tracks:
        return
    prepared = model.prepare(features)
    for batch in batch_tracks(frame, features, tracks, rule):
        for part, answer in map_slices(batch, partial(predict_masks, model, prepared), run_slices):
            few = [track for track, _ in part]
            output = model.select_mask(answer, choose_masks(frame, few, answer), few[0].policy.present_above)
            for i, track in enumerate(few):
                track.add_tracked(frame, output[i] if len(few) > 1 else output, answer[i])


def runs_batched(features: Features) -> bool:
    """Whether several objects run together on this device."""
    return features.image.is_cuda


def batch_rows(keys: Sequence[Hashable], features: Features) -> list[list[int]]:
    """The rows that run together: those of equal keys, or each alone."""
    batches: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        batches.setdefault(key if runs_batched(features) else row, []).append(row)
    return list(batches.values())


def batch_tracks(
    frame: int, features: Features, tracks: Sequence[Track], rule: Rule
) -> Iterator[list[tuple[Track, MemoryContext]]]:
    """Yield the objects that run together with their memory contexts, which exist one at a time where each is alone."""
    pairs = ((track, track.memory_context(frame, rule)) for track in tracks)
    if not runs_batched(features):
        yield from ([pair] for pair in pairs)
        return
    batches: dict[object, list[tuple[Track, MemoryContext]]] = {}
    for track, context in pairs:
        key = context.memories.shape, context.pointers.shape, track.policy.present_above
        batches.setdefault(key, []).append((track, context))
    yield from batches.values()


def predict_masks(model: SAM2Model, features: Features, part: Sequence[tuple[Track, MemoryContext]]) -> Answer:
    """All candidate masks of tracked objects; `features`: `model.prepare` of the frame."""
    conditioned = condition(model, features, [context for _, context in part])
    return model.predict_masks(conditioned, no_prompts(len(part), features), prompted=False)


def condition(model: SAM2Model, features: Features, contexts: Sequence[MemoryContext]) -> Features:
    """Condition one frame on the memory contexts of objects."""
    image_index = torch.zeros(len(contexts), dtype=torch.int64, device=features.image.device)
    return model.condition_on_memory(features, MemoryContext.cat(contexts), image_index)


def no_prompts(count: int, features: Features) -> PromptBatch:
    """The empty prompts of objects on conditioned features."""
    return PromptBatch(torch.arange(count, device=features.image.device))


def choose_masks(frame: int, tracks: list[Track], answer: Answer) -> Tensor | None:
    """The masks (N,) that the objects' policies choose; None if all leave it to the predicted IoU."""
    if answer.iou.shape[1] == 1:
        return None
    choices = [track.policy.choose(frame, answer[i]) for i, track in enumerate(tracks)]
    if all(choice is None for choice in choices):
        return None
    best = answer.iou.argmax(dim=1).tolist()
    chosen = [best[i] if choice is None else choice for i, choice in enumerate(choices)]
    return torch.tensor(chosen, device=answer.iou.device)


def encode_memories(
    model: SAM2Model, features: Features, outputs: Sequence[FrameOutput], rows: Sequence[int], prompted: Sequence[bool],
    binarize: bool | None = None, run_slices: SliceRunner = run_at_once,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Encode the memories of some of a frame's objects, by their rows: yields each row and its memory (1, L, D).

    The outputs are those of all objects of the frame, and so is whether each was prompted on it.
    """
    logits = [output.logits for output in outputs]
    if model.non_overlap_masks_for_mem_enc:
        joint = resize_to_input(torch.cat(logits)[:, None], features.grid)
        logits = list(non_overlapping(joint))

    def encode(few: Sequence[int]) -> Tensor:
        masks, presence = torch.cat([logits[i] for i in few]), torch.cat([outputs[i].presence for i in few])
        image_index = torch.zeros(len(few), dtype=torch.int64, device=features.image.device)
        return model.encode_memory(features, masks, presence, image_index, prompted[few[0]], binarize)

    for batch in batch_rows([prompted[row] for row in rows], features):
        for few, memory in map_slices([rows[i] for i in batch], encode, run_slices):
            yield from ((row, memory[i : i + 1].clone() if len(few) > 1 else memory) for i, row in enumerate(few))
