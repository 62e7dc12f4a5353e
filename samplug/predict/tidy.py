"""Masks tidied at the picture's size: holes filled, specks dropped, each pixel left to one object."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from samplug.masks import Taps, best_owner, boxes_of, enlarge, parts, taps_of, without_islands
from samplug.predict.cutouts import Cutouts
from samplug.view import View


def tidy(masks: Tensor, fill_holes: float = 0, min_area: float = 0) -> None:
    """Fill holes and drop specks of (N, H, W) bool masks, in place.

    Only the box around a mask is looked at, so that the cost follows the object's size and not the picture's.

    Args:
        masks: (N, H, W) bool.
        fill_holes: holes of fewer pixels are filled: 8-connected parts of the background with mask all around, so that
            what lies open at the picture's border is none. Below 1 it is a share of the mask's own area, True is all.
        min_area: 8-connected parts of the mask with fewer pixels are dropped, but never the largest. Below 1 it is a
            share of the mask's own area.
    """
    if not (fill_holes or min_area):
        return
    for mask, (left, top, right, bottom) in zip(masks, boxes_of(masks).int().tolist(), strict=True):
        window = mask[top : bottom + 1, left : right + 1]
        inside = window.cpu().numpy()
        area = int(inside.sum())
        whole = without_holes(inside, pixels(fill_holes, area))
        window.copy_(torch.from_numpy(without_islands(whole, pixels(min_area, area))))


def pixels(limit: float, area: int) -> float:
    """A limit in pixels, from pixels, a share of an area, or True for any number."""
    if limit is True:
        return math.inf
    return limit * area if limit < 1 else limit


def without_holes(mask: np.ndarray, limit: float) -> np.ndarray:
    """One (h, w) bool mask, cut out along its box, with its holes of fewer than `limit` pixels filled."""
    around = np.pad(mask, 1)  # so that all of the background that is no hole is one part
    numbers, areas = parts(~around)
    holes = np.concatenate([[False], areas < limit])
    holes[numbers[0, 0]] = False
    return mask | holes[numbers[1:-1, 1:-1]] if holes.any() else mask


def settle_rivals(masks: Tensor, answers: Tensor | Cutouts, scores: Tensor, view: View) -> Tensor:
    """Leave each pixel of (N, H, W) bool masks to one of those that claim it.

    Args:
        masks: at the picture's size; may be changed.
        answers: what they were made of, over the network's whole input: logits (N, a, b), of which the highest wins
            each pixel, or masks that were cut out, of which the one with the higher score goes first.
        scores: (N,).
        view: how the picture lies in the network's input.

    Returns:
        (N, H, W) bool masks.
    """
    if isinstance(answers, Cutouts):
        return best_owner(masks, scores)
    shared = masks.sum(0, dtype=torch.int32) > 1
    if not shared.any():
        return masks
    left, top, right, bottom = (int(edge) for edge in boxes_of(shared[None])[0])
    down, across = slice(top, bottom + 1), slice(left, right + 1)
    rows, columns = (taps[part] for taps, part in zip(taps_of(answers, view), (down, across), strict=True))
    owner = owners(masks[:, down, across], answers, rows, columns)
    for i, mask in enumerate(masks):
        mask[down, across] &= owner == i
    return masks


def owners(masks: Tensor, logits: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """(h, w) int32: which of the masks (N, h, w) of a window has the highest logit at each pixel; -1 where none is."""
    best = torch.full(masks.shape[1:], -torch.inf, device=logits.device)
    owner = torch.full_like(best, -1, dtype=torch.int32)
    for i, (mask, values_of) in enumerate(zip(masks, logits, strict=True)):
        for first, values in enlarge(values_of, rows, columns):
            part = slice(first, first + len(values))
            better = mask[part] & (values > best[part])
            owner[part] = torch.where(better, i, owner[part])
            best[part] = torch.where(better, values, best[part])
    return owner
