"""A quick look at how good the network is on scenes it has not seen; `samplug.measure` measures in earnest."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch

from . import scenes
from .asking import clicked, normalised
from .batches import Batch, gather
from .prompting import boxes_around

UNSEEN = 0xC4EC4  # pictures of a look: training draws with generators of a smaller first number, its seed
AT_ONCE = 8  # pictures


@torch.no_grad()
def look(
    model: SAM2Model, size: int, *, level: float = 1.0, count: int = 200, prompts: int = 3, held_out: bool = False
) -> dict[str, float]:
    """Mean overlaps on pictures that training never draws.

    Args:
        model: The network; it is left in eval mode.
        size: Side of the pictures in pixels.
        level: Of the scenes.
        count: Pictures.
        prompts: Objects asked for in each.
        held_out: Of the outlines and surfaces that training never draws either.

    Returns:
        `click`, `box`: IoU of the one mask that a user gets. `same`: IoU between the masks of two prompts of one
        picture and `same_truth` what it should be; a network that does not hear its prompt has 1.
    """
    model.eval()
    device = model.device
    rows = []
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        generators = (np.random.default_rng([UNSEEN, number]) for number in numbers)
        drawn = [scenes.draw(rng, size, size, level=level, held_out=held_out) for rng in generators]
        batch = gather(drawn, prompts).to(device)
        rows.append(_overlaps(model, model.encode(normalised(model, batch.images[0])), batch))
    total = sum(len(row["click"]) for row in rows)
    return {name: sum(row[name].sum().item() for row in rows) / total for name in rows[0]}


def _overlaps(model: SAM2Model, features: Features, batch: Batch) -> dict[str, Tensor]:
    """Each (N,)."""
    truth = batch.masks[0]
    boxes = PromptBatch(batch.owner, boxes=boxes_around(truth))
    click, box = (
        masks_of(model.answer(features, prompts).logits[:, 0], batch) for prompts in (central_clicks(batch), boxes)
    )
    beside = torch.roll(torch.arange(len(truth)), -1)
    return {
        "click": iou(click, truth),
        "box": iou(box, truth),
        "same": iou(click, click[beside]),
        "same_truth": iou(truth, truth[beside]),
    }


def centre(mask: np.ndarray) -> np.ndarray:
    """The pixel xy (2,) farthest from the edge, or the picture's border, of a mask's largest connected piece.

    Raises:
        ValueError: If the mask, bool (H, W), is empty.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        raise ValueError("An empty mask has no centre.")
    largest = pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    depth = cv2.distanceTransform(np.pad(largest, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return np.array([column, row], np.float32)


def central_clicks(batch: Batch) -> PromptBatch:
    """A click at the centre of each object."""
    points = np.stack([centre(mask) for mask in batch.masks[0].cpu().numpy()])
    return clicked(batch.owner, torch.from_numpy(points).to(batch.owner.device))


def masks_of(logits: Tensor, batch: Batch) -> Tensor:
    """Masks (N, H, W) at the picture's size of logits (N, h, w)."""
    size = batch.masks.shape[-2:]
    return F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0] > 0


def iou(found: Tensor, wanted: Tensor) -> Tensor:
    """Overlap of masks (N, H, W), each with its own: (N,)."""
    union = (found | wanted).sum((1, 2))
    return (found & wanted).sum((1, 2)) / union.clamp_min(1)
