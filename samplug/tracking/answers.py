"""What the network is asked about the objects of one frame: to show one, to follow several, to remember them.

Objects are asked about one by one on a CPU, which gains nothing from more: they stay equal to the bit, whoever else is
there. Elsewhere those that look back at as much as each other are one batch, or as many of them as memory has room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.frames import FrameOutput, Past
from samplug.nn.inputs import enlarged, one_owner
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch
from samplug.tracking.parts import InSlices, all_at_once, in_parts
from samplug.tracking.policies import Rule
from samplug.tracking.tracks import Track

CORRECTED_LOGIT = 32.0  # the mask that clicks correct is fed back within plus and minus this


def show(
    model: SAM2Model,
    frame: int,
    features: Features,
    track: Track,
    given: PromptBatch,
    mask: Tensor | None,
    rule: Rule,
    anew: bool = False,
) -> FrameOutput:
    """Answer an object's prompt: clicks and box, or else a mask (1, 1, 16h, 16w); `anew`: whatever came before."""
    owner, starts = first_owner(1, features), anew or track.starts_at(frame)
    given = replace(given, owner=owner)
    if mask is not None:
        mask = mask.to(features.image.device)
        if model.use_mask_input_as_output_without_sam:
            return model.take_mask(features, mask, owner)
        size = [4 * side for side in features.grid]
        given = replace(given, masks=F.interpolate(mask.float(), size=size, mode="bilinear", antialias=True))
    elif not anew and given.masks is None and (last := track.previous(frame)) is not None:
        given = replace(given, masks=last[:, None].clamp(-CORRECTED_LOGIT, CORRECTED_LOGIT))
    if starts:
        return model.segment(model.without_past(features), given, prompted=True)
    return model.segment(model.look_back(features, track.past(frame, rule), owner), given, prompted=False)


def follow(
    model: SAM2Model,
    frame: int,
    features: Features,
    tracks: Iterable[Track],
    rule: Rule,
    in_slices: InSlices = all_at_once,
) -> None:
    """Answer the objects that nobody prompted on this frame; `in_slices`: how many of a batch at once."""
    begun = None
    for batch in together(frame, tracks, rule, in_batches(features)):
        begun = model.begin(features) if begun is None else begun
        for part, answer in in_parts(batch, partial(candidates, model, begun), in_slices):
            few = [track for track, _ in part]
            output = model.settle(answer, chosen(frame, few, answer), few[0].policy.present_above)
            for i, track in enumerate(few):
                track.take(frame, output[i] if len(few) > 1 else output, answer[i])


def in_batches(features: Features) -> bool:
    """Whether objects on this device are asked about together."""
    return features.image.is_cuda


def together(frame: int, tracks: Iterable[Track], rule: Rule, batched: bool) -> Iterator[list[tuple[Track, Past]]]:
    """Yield objects with what they look back at, one by one, or in batches of equal pasts."""
    if not batched:
        for track in tracks:
            yield [(track, track.past(frame, rule))]
        return
    batches: dict[object, list[tuple[Track, Past]]] = {}
    for track in tracks:
        past = track.past(frame, rule)
        alike = past.memories.shape, past.pointers.shape, track.policy.present_above
        batches.setdefault(alike, []).append((track, past))
    yield from batches.values()


def candidates(model: SAM2Model, begun: Features, part: Sequence[tuple[Track, Past]]) -> Answer:
    """All masks that the network proposes for some objects of equal pasts; `begun`: `model.begin` of the frame."""
    seen = model.look_back(begun, Past.cat([past for _, past in part]), first_owner(len(part), begun))
    nothing = PromptBatch(torch.arange(len(part), device=begun.image.device))
    return model.candidates(seen, nothing, prompted=False)


def chosen(frame: int, tracks: list[Track], answer: Answer) -> Tensor | None:
    """The masks (N,) that the objects' policies take; None where all leave it to the predicted IoU."""
    if answer.iou.shape[1] == 1:
        return None
    choices = [track.policy.choose(frame, answer[i]) for i, track in enumerate(tracks)]
    if all(choice is None for choice in choices):
        return None
    best = answer.iou.argmax(dim=1).tolist()
    picked = [best[i] if choice is None else choice for i, choice in enumerate(choices)]
    return torch.tensor(picked, device=answer.iou.device)


def remember(
    model: SAM2Model,
    frame: int,
    features: Features,
    tracks: Iterable[Track],
    binarize: bool,
    in_slices: InSlices = all_at_once,
) -> None:
    """Make the memories that are due, of all the objects of a frame; `in_slices`: how many of a batch at once."""
    answers = {track: track.current for track in tracks if track.current is not None}
    if not any(track.to_remember for track in answers):
        return
    masks = owned(answers, features.grid) if model.non_overlap_masks_for_mem_enc else {}
    batches: dict[object, list[Track]] = {}
    for track in (track for track in answers if track.to_remember):
        batches.setdefault(frame in track.clicks if in_batches(features) else track, []).append(track)

    def memories(few: Sequence[Track]) -> Tensor:
        logits = torch.cat([masks.get(track, answers[track].logits) for track in few])
        presence = torch.cat([answers[track].presence for track in few])
        prompted = frame in few[0].clicks
        return model.remember(features, logits, presence, first_owner(len(few), features), prompted, binarize)

    for batch in batches.values():
        for few, memory in in_parts(batch, memories, in_slices):
            for i, track in enumerate(few):
                track.remember(frame, memory[i : i + 1].clone() if len(few) > 1 else memory)


def owned(answers: dict[Track, FrameOutput], grid: tuple[int, int]) -> dict[Track, Tensor]:
    """Logits (1, 16h, 16w) of each object, where every pixel is left to one of them."""
    logits = enlarged(torch.cat([answer.logits for answer in answers.values()])[:, None], grid)
    apart = one_owner(logits, torch.zeros(len(answers), dtype=torch.int64, device=logits.device))
    return dict(zip(answers, apart, strict=True))


def first_owner(count: int, features: Features) -> Tensor:
    """(N,) the frame of so many objects, which is the only one."""
    return torch.zeros(count, dtype=torch.int64, device=features.image.device)
