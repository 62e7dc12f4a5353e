"""Objects of several pictures cut into batches for the decoder, all of a batch alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplug.nn.types import PromptBatch
from samplug.view import MASK_STRIDE, View

if TYPE_CHECKING:
    from samplug.prompts import Prompt, Prompts

Batch = tuple[Tensor, PromptBatch]


def batches_of(
    pictures: Sequence[Prompts],
    views: Sequence[View],
    owners: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> list[Batch]:
    """Cut the objects of several pictures into batches of one form: the same kinds, the same number of points.

    Args:
        pictures: the prompts of each picture.
        views: how each picture lies in the network's input.
        owners: each picture's index in `Features`; left out, 0, 1, 2, …
        device: where the batches' tensors go.

    Returns:
        `(rows, batch)` pairs, in the order of their first objects; `rows` (n,) int64 are the objects' places when those
        of all pictures are counted through, so `answers[rows] = answer` restores the order.
    """
    owners = range(len(pictures)) if owners is None else owners
    everything = [
        (prompt, view, owner)
        for prompts, view, owner in zip(pictures, views, owners, strict=True)
        for prompt in prompts.objects
    ]
    forms: dict[tuple[int, bool, bool], list[int]] = {}
    for row, (prompt, _, _) in enumerate(everything):
        forms.setdefault(prompt.form, []).append(row)
    return [
        (torch.tensor(rows, device=device), even_batch([everything[row] for row in rows], device))
        for rows in forms.values()
    ]


def even_batch(members: Sequence[tuple[Prompt, View, int]], device: torch.device | str) -> PromptBatch:
    """Objects of one form as the network's `PromptBatch`, in the pixels of its input."""

    def stacked(rows: list[Tensor]) -> Tensor | None:
        return torch.stack(rows).to(device) if rows and rows[0].numel() else None

    return PromptBatch(
        owner=torch.tensor([owner for _, _, owner in members], device=device),
        points=stacked([view.points(prompt.points) for prompt, view, _ in members]),
        labels=stacked([prompt.labels for prompt, _, _ in members]),
        boxes=stacked([view.boxes(prompt.box) for prompt, view, _ in members if prompt.box is not None]),
        masks=fitted_masks(members, device),
    )


def fitted_masks(members: Sequence[tuple[Prompt, View, int]], device: torch.device | str) -> Tensor | None:
    """The masks of objects that have one, (N, 1, 4h, 4w): each made in its place, else the heap gets full of holes."""
    given = [(prompt.mask, view) for prompt, view, _ in members if prompt.mask is not None]
    if not given:
        return None
    height, width = given[0][1].network
    masks = torch.empty(len(given), 1, height // MASK_STRIDE, width // MASK_STRIDE)
    for row, (mask, view) in zip(masks, given, strict=True):
        row[0] = view.mask(mask)
    return masks.to(device)
