"""Simulated users of training, for many masks at once and wherever these lie.

N masks (H, W). Points are xy in pixels and name a pixel; boxes are xyxy edges. Where an
evaluation works out the one right place, here places are drawn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_STRIDE = 4  # of the decoder's masks
STEPS_INWARD = (1, 1, 2, 4)  # pixels by which the edge moves in, one after the other


def shares(masks: Tensor) -> Tensor:
    """The share of each of the decoder's pixels that a mask covers: bool (..., H, W) -> float32 (..., H/4, W/4)."""
    flat = masks.flatten(0, -3)[:, None].float()
    return F.avg_pool2d(flat, MASK_STRIDE)[:, 0].unflatten(0, masks.shape[:-2])


def inside(masks: Tensor, generator: torch.Generator) -> Tensor:
    """A random pixel (N, 2) of each mask bool (N, H, W), more often deep inside than near the edge."""
    depth = torch.randint(len(STEPS_INWARD) + 1, (len(masks),), generator=generator, device=masks.device)
    allowed = core = masks[:, None].float()
    for number, step in enumerate(STEPS_INWARD, 1):
        core = -F.max_pool2d(-core, 2 * step + 1, 1, step)
        deeper = (depth >= number) & core.flatten(1).any(1)
        allowed = torch.where(deeper[:, None, None, None], core, allowed)
    luck = torch.rand(masks.shape, generator=generator, device=masks.device)
    return _places(((luck + 1) * allowed[:, 0]).flatten(1).argmax(1), masks.shape[-1])


def correcting(found: Tensor, wanted: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A click (N, 2) on an error of each mask with its label (N,), 1 where the object was missed.

    Args:
        found: what the network answered, bool (N, h, w) at the decoder's stride.
        wanted: the truth, likewise; where it was met, the click is one more on the object.
        generator: source of the choice.
    """
    wrong = found != wanted
    wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, wanted)
    points = inside(wrong, generator)
    x, y = points.long().unbind(1)
    labels = wanted[torch.arange(len(wanted), device=wanted.device), y, x].long()
    return (points + 0.5) * MASK_STRIDE - 0.5, labels


def boxes_around(masks: Tensor) -> Tensor:
    """The edges (N, 4) around masks bool (N, H, W); an empty mask has the box 0 0 W H."""
    edges = []
    for along in (masks.any(1), masks.any(2)):
        first, last = along.int().argmax(1), along.flip(1).int().argmax(1)
        edges.append((first, along.shape[1] - last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1).float()


def loose_boxes(masks: Tensor, generator: torch.Generator, noise: float = 0.1, most: float = 20.0) -> Tensor:
    """Boxes (N, 4) as drawn by hand: every edge off by a normal error.

    Args:
        masks: what the boxes are for.
        generator: source of the errors.
        noise: the largest standard deviation, in sides of the box; how careful the user is varies below it.
        most: pixels that no edge is off by more than.
    """
    exact = boxes_around(masks)
    sides = (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    care = noise * torch.rand(len(masks), 1, generator=generator, device=masks.device)
    error = torch.randn(exact.shape, generator=generator, device=masks.device) * care * sides
    return exact + error.clamp(-most, most)


def _places(flat: Tensor, width: int) -> Tensor:
    """Pixels xy (N, 2) of indices into flattened maps of a width."""
    return torch.stack([flat % width, flat // width], 1).float()
