"""What the network is asked about the objects of one frame: to show one, to follow several, to remember them.

Objects are asked about one by one on a CPU, which gains nothing from more: they stay equal to the bit, whoever else is
there. Elsewhere those that look back at as much as each other are one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.frames import FrameOutput, Past
from samplug.nn.inputs import enlarged, one_owner
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Answer, Features, PromptBatch
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


def follow(model: SAM2Model, frame: int, features: Features, tracks: Iterable[Track], rule: Rule) -> None:
    """Answer the objects that nobody prompted on this frame."""
    begun = None
    for batch, past in together(frame, tracks, rule, features.image.is_cuda):
        begun = model.begin(features) if begun is None else begun
        seen = model.look_back(begun, past, first_owner(len(batch), features))
        nothing = PromptBatch(torch.arange(len(batch), device=features.image.device))
        answer = model.candidates(seen, nothing, prompted=False)
        output = model.settle(answer, chosen(frame, batch, answer), batch[0].policy.present_above)
        for i, track in enumerate(batch):
            track.take(frame, output[i] if len(batch) > 1 else output, answer[i])


def together(frame: int, tracks: Iterable[Track], rule: Rule, batched: bool) -> Iterator[tuple[list[Track], Past]]:
    """Yield objects one by one, or in batches of equal pasts, with what they look back at."""
    if not batched:
        for track in tracks:
            yield [track], track.past(frame, rule)
        return
    batches: dict[object, list[tuple[Track, Past]]] = {}
    for track in tracks:
        past = track.past(frame, rule)
        alike = past.memories.shape, past.pointers.shape, track.policy.present_above
        batches.setdefault(alike, []).append((track, past))
    for batch in batches.values():
        yield [track for track, _ in batch], Past.cat([past for _, past in batch])


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


def remember(model: SAM2Model, frame: int, features: Features, tracks: Iterable[Track], binarize: bool) -> None:
    """Make the memories that are due, of all the objects of a frame."""
    answers = {track: track.current for track in tracks if track.current is not None}
    if not any(track.to_remember for track in answers):
        return
    masks = owned(answers, features.grid) if model.non_overlap_masks_for_mem_enc else {}
    batches: dict[object, list[Track]] = {}
    for track in (track for track in answers if track.to_remember):
        batches.setdefault(frame in track.clicks if features.image.is_cuda else track, []).append(track)
    for batch in batches.values():
        logits = torch.cat([masks.get(track, answers[track].logits) for track in batch])
        presence = torch.cat([answers[track].presence for track in batch])
        prompted = frame in batch[0].clicks
        memory = model.remember(features, logits, presence, first_owner(len(batch), features), prompted, binarize)
        for i, track in enumerate(batch):
            track.remember(frame, memory[i : i + 1].clone() if len(batch) > 1 else memory)


def owned(answers: dict[Track, FrameOutput], grid: tuple[int, int]) -> dict[Track, Tensor]:
    """Logits (1, 16h, 16w) of each object, where every pixel is left to one of them."""
    logits = enlarged(torch.cat([answer.logits for answer in answers.values()])[:, None], grid)
    apart = one_owner(logits, torch.zeros(len(answers), dtype=torch.int64, device=logits.device))
    return dict(zip(answers, apart, strict=True))


def first_owner(count: int, features: Features) -> Tensor:
    """(N,) the frame of so many objects, which is the only one."""
    return torch.zeros(count, dtype=torch.int64, device=features.image.device)
