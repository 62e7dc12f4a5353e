"""Which finds of a detector are objects that are followed already, and which are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samplug.masks import boxes_of
from samplug.prompts import Prompt

INSIDE = 0.8  # of the smaller of two boxes: from here on one lies in the other


@dataclass(frozen=True)
class Matches:
    """What became of F finds, by their places, beside N objects, by theirs.

    A find in none of the three is a repetition.

    Attributes:
        same: find → the object that is followed there already.
        again: find → the object that it shows anew, one that was lost or has drifted.
        new: finds that are no object yet.
    """

    same: dict[int, int] = field(default_factory=dict)
    again: dict[int, int] = field(default_factory=dict)
    new: list[int] = field(default_factory=list)


def match(now: Tensor, nested: Tensor, before: Tensor, each_other: Tensor, enough: float) -> Matches:
    """Decide, the largest overlap first.

    1. A find that overlaps an object by `enough` is that object; others that overlap it so are repetitions.
    2. A find in the place where a lost object was last, or one that overlaps by half of `enough` an object that nothing
       was found for and lies inside it or around it, shows it anew: the mask had shrunk to a part, or run out.
    3. Any other find is new, unless it overlaps one before it by `enough`.

    Args:
        now: (F, N) IoU with the objects where they are, 0 with lost ones.
        nested: (F, N) bool, whether one lies in the other.
        before: (F, N) IoU with lost objects where they were last, 0 with the others.
        each_other: (F, F) IoU of the finds.
        enough: 0 … 1.
    """
    same = pairs(now, enough)
    known = (now >= enough).any(1)
    open_ = torch.ones_like(now)
    open_[:, list(same.values())] = 0
    open_[known] = 0
    again = pairs(torch.maximum(now * nested, before * (before >= enough)) * open_, enough / 2)
    new: list[int] = []
    for i in (~known).nonzero()[:, 0].tolist():
        if i not in again and not (each_other[i, [*again, *new]] >= enough).any():
            new.append(i)
    return Matches(same, again, new)


def pairs(overlaps: Tensor, enough: float) -> dict[int, int]:
    """Row → column where (F, N) reaches `enough`, the largest first, each row and column once."""
    rows, columns = ((overlaps >= enough) & (overlaps > 0)).nonzero(as_tuple=True)
    order = overlaps[rows, columns].argsort(descending=True, stable=True)
    chosen: dict[int, int] = {}
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in chosen and column not in chosen.values():
            chosen[row] = column
    return chosen


# ------------------------------------------------------------------ boxes and masks


def boxes_of_finds(finds: Sequence[Prompt]) -> Tensor:
    """(F, 4) xyxy: each find's box, or that of its mask; without area for clicks alone."""
    boxes = [find.box if find.mask is None else edges_of(find.mask[None] > 0)[0] for find in finds]
    return torch.stack([torch.zeros(4) if box is None else box for box in boxes]) if boxes else torch.zeros(0, 4)


def edges_of(masks: Tensor) -> Tensor:
    """(N, 4) xyxy of (N, H, W) bool masks, round the outer edges of their pixels; without area for empty ones."""
    boxes = boxes_of(masks)
    there = masks.flatten(1).any(1) if masks.numel() else masks.new_zeros(len(masks))
    return boxes + there[:, None] * boxes.new_tensor([0, 0, 1, 1])


def shared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The areas of (F, 4) and (N, 4) xyxy boxes that are shared, (F, N), and those of each, (F, 1) and (1, N)."""
    corner = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    first, second = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return corner.clamp(min=0).prod(-1), first[:, None], second[None]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(F, N) IoU of boxes (F, 4) and (N, 4) xyxy."""
    both, first, second = shared(a, b)
    return both / (first + second - both).clamp(min=1e-9)


def compare(finds: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """(F, N) IoU of bool masks (F, H, W) and (N, H, W), and whether one lies in the other, nearly or wholly."""
    a, b = finds.flatten(1).float(), masks.flatten(1).float()
    both, first, second = a @ b.T, a.sum(1)[:, None], b.sum(1)[None]
    return both / (first + second - both).clamp(min=1), both >= INSIDE * torch.minimum(first, second).clamp(min=1)


def lie_in(a: Tensor, b: Tensor) -> Tensor:
    """(F, N) whether one of two boxes (F, 4) and (N, 4) xyxy lies in the other, nearly or wholly."""
    both, first, second = shared(a, b)
    return both >= INSIDE * torch.minimum(first, second).clamp(min=1e-9)


def clicks_inside(finds: Sequence[Prompt], masks: Tensor) -> Tensor:
    """(F, N) how many of a find's clicks on the object lie in each mask (N, H, W), 0 … 1; 0 for boxes and masks."""
    table = torch.zeros(len(finds), len(masks))
    for i, find in enumerate(finds):
        on = find.points[find.labels > 0].long()
        if find.box is None and find.mask is None and len(on) and len(masks):
            columns, rows = on[:, 0].clamp(max=masks.shape[2] - 1), on[:, 1].clamp(max=masks.shape[1] - 1)
            table[i] = masks[:, rows, columns].float().mean(1).cpu()
    return table
