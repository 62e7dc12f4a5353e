"""Small holes filled, small islands dropped, as Segment Anything does it: duplicates that arise so are dropped too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from samplug.masks import boxes_of, parts, without_duplicates
from samplug.predict.cutouts import Cutout, Cutouts


def without_specks(cutouts: Cutouts, area: float, overlap: float) -> tuple[Cutouts, Tensor, Tensor]:
    """Clean masks.

    Args:
        cutouts: N masks.
        area: holes and islands of fewer pixels go, but never a mask's largest part.
        overlap: of two masks whose new boxes overlap by more than this IoU one stays, rather one that had no speck.

    Returns:
        The masks that stay, their boxes (K, 4) xyxy on the CPU, and their numbers (K,): those without specks first.
    """
    if not len(cutouts):
        return cutouts, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    items, changed = zip(*(cleaned(item, area) for item in cutouts.items), strict=True)
    boxes = torch.tensor([edges(item) for item in items], dtype=torch.float32)
    keep = without_duplicates(boxes, 1 - torch.tensor(changed, dtype=torch.float32), overlap)
    return Cutouts(items, cutouts.frame, cutouts.device)[keep], boxes[keep], keep.to(cutouts.device)


def cleaned(item: Cutout, area: float) -> tuple[Cutout, bool]:
    """One mask without its small holes and islands, and whether it had any."""
    pixels, top, left, open_rim = surrounded(item, area)
    numbers, areas = parts(~pixels)
    holes = np.concatenate([[False], areas < area])
    holes[numbers[open_rim]] = False  # they go on outside
    whole = pixels | holes[numbers]
    numbers, areas = parts(whole)
    islands = areas < area
    if not holes.any() and not islands.any():
        return item, False
    if islands.all() and len(areas):
        islands[areas.argmax()] = False
    pixels = np.concatenate([[False], ~islands])[numbers]
    return Cutout.of(torch.from_numpy(pixels).to(item.bits.device), top, left, item.frame), True


def surrounded(item: Cutout, area: float) -> tuple[np.ndarray, int, int, np.ndarray]:
    """One mask's pixels with a rim of background where the frame goes on, their place, and which pixels are that rim.

    Where so little of the frame is left beside a mask that it may be a hole, it is all of the frame, without a rim.
    """
    pixels = item.pixels.cpu().numpy()
    spaces = [(part.start, side - part.stop) for part, side in zip(item.box, item.frame, strict=True)]
    across = item.frame[::-1]
    if any(0 < space * other < area for both, other in zip(spaces, across, strict=True) for space in both):
        pixels = item.whole().cpu().numpy()
        return pixels, 0, 0, np.zeros_like(pixels)
    rims = [[min(space, 1) for space in both] for both in spaces]
    around = np.pad(pixels, rims)
    rim = np.pad(np.zeros_like(pixels), rims, constant_values=True)
    return around, item.top - rims[0][0], item.left - rims[1][0], rim


def edges(item: Cutout) -> tuple[int, int, int, int]:
    """The box around a mask, xyxy: the first and last pixels that are on; zeros where none is."""
    (box,) = boxes_of(item.pixels[None]).int().tolist()
    if not item.pixels.any():
        return 0, 0, 0, 0
    return box[0] + item.left, box[1] + item.top, box[2] + item.left, box[3] + item.top
