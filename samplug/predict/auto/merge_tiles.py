"""Masks of overlapping tiles merged: an object that crosses the borders of tiles becomes one mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from samplug.masks.boxes import Box, enclosing_box, has_area, intersection, mask_box
from samplug.masks.packed import PackedMask
from samplug.transforms import Size

SAME_OBJECT_IOU = 0.5  # where both tiles show what belongs to the object
BORDER_MARGIN = 1 / 64  # of a tile: a mask so close to its border may continue beyond it


@dataclass(frozen=True, eq=False)
class TileMask:
    """A mask found in one tile."""

    mask: PackedMask  # in the whole image
    box: Box  # xyxy, the first and last pixels that are on
    score: float  # predicted IoU
    stability: float
    tile: Box  # the tile's outer edges
    cut: bool  # whether the object may continue beyond the tile

    @property
    def known(self) -> Box:
        """Where it is known what belongs to the object: in the tile, or everywhere if it ends there."""
        return self.tile if self.cut else (0, 0, *self.mask.size[::-1])

    def iou(self, other: TileMask) -> float:
        """IoU of two masks where both are known."""
        return self.mask.iou(other.mask, intersection(self.known, other.known))


def may_continue(box: Box, tile: Box, size: Size) -> bool:
    """Whether a box is so close to a border of its tile, not of the image, that the object may continue there."""
    margin = BORDER_MARGIN * min(tile[2] - tile[0], tile[3] - tile[1])
    (left, top, right, bottom), (height, width) = box, size
    first = left < tile[0] + margin and tile[0] > 0 or top < tile[1] + margin and tile[1] > 0
    last = right >= tile[2] - margin and tile[2] < width or bottom >= tile[3] - margin and tile[3] < height
    return first or last


def drop_duplicates(masks: Sequence[TileMask], max_iou: float) -> list[TileMask]:
    """Masks by falling score, without those whose IoU with one before them is higher than this."""
    kept: list[TileMask] = []
    for mask in sorted(masks, key=lambda mask: -mask.score):
        if all(mask.iou(other) <= max_iou for other in kept):
            kept.append(mask)
    return kept


def merge_tiles(by_tile: Sequence[Sequence[TileMask]]) -> list[TileMask]:
    """One mask an object: those of different tiles that agree where both are known become one.

    Pairs of the highest IoU are merged first, and no object takes two masks of one tile. At last a mask without partner
    is dropped if it was cut off and repeats a merged object in its tile.
    """
    groups = {mask: [mask] for tile in by_tile for mask in tile}
    for first, second in pairs_by_iou(by_tile):
        if can_merge(groups[first], groups[second]):
            other = groups[second]
            groups[first].extend(other)
            groups.update(dict.fromkeys(other, groups[first]))
    distinct = {id(group): group for group in groups.values()}.values()
    single = [group[0] for group in distinct if len(group) == 1 and group[0].cut]
    merged = [merge_group(group) for group in distinct if len(group) > 1 or not group[0].cut]
    return merged + [mask for mask in single if all(mask.iou(other) < SAME_OBJECT_IOU for other in merged)]


def pairs_by_iou(by_tile: Sequence[Sequence[TileMask]]) -> list[tuple[TileMask, TileMask]]:
    """Pairs of different tiles that may be one object, by falling IoU."""
    pairs = [
        (one.iou(other), one, other)
        for first, second in combinations([tile for tile in by_tile if tile], 2)
        if has_area(intersection(first[0].tile, second[0].tile))
        for one in first
        for other in second
    ]
    same = sorted((pair for pair in pairs if pair[0] >= SAME_OBJECT_IOU), key=lambda pair: -pair[0])
    return [(one, other) for _, one, other in same]


def can_merge(group: Sequence[TileMask], others: Sequence[TileMask]) -> bool:
    """Whether two groups share no tile, and a mask that ends in its tile is all that the others show."""
    disjoint = {mask.tile for mask in group}.isdisjoint(mask.tile for mask in others)
    return disjoint and all(a.iou(b) >= SAME_OBJECT_IOU for a in group for b in others if not (a.cut and b.cut))


def merge_group(group: Sequence[TileMask]) -> TileMask:
    """The object of a group: its best mask that ends inside its tile, else a vote of all masks."""
    best = min(group, key=lambda mask: (mask.cut, -mask.score))
    voted = None if len(group) == 1 or not best.cut else vote(group)
    if voted is None:
        return best
    areas = torch.tensor([float(mask.mask.area) for mask in group])
    scores = torch.tensor([(mask.score, mask.stability) for mask in group])
    score, stability = (areas / areas.sum() @ scores).tolist()
    return TileMask(voted, voted.pixel_box, score, stability, (0, 0, *voted.size[::-1]), cut=False)


def vote(group: Sequence[TileMask]) -> PackedMask | None:
    """The pixels where the votes for the mask outweigh those against it; None if there are none.

    Each tile votes for the pixels that it shows, with a weight that grows with the distance to its borders.
    """
    size = group[0].mask.size
    window = left, top, right, bottom = enclosing_box(*(mask.mask.box for mask in group))
    votes = torch.zeros(bottom - top, right - left)
    for mask in group:
        x1, y1, x2, y2 = part = intersection(mask.tile, window)
        weight = torch.minimum(*torch.meshgrid(*border_distances(mask.tile, part, size), indexing="ij"))
        votes[y1 - top : y2 - top, x1 - left : x2 - left] += torch.where(mask.mask.crop(part), weight, -weight)
    on = votes > 0
    if (box := mask_box(on)) is None:
        return None
    return PackedMask.pack(on[box[1] : box[3] + 1, box[0] : box[2] + 1], top + box[1], left + box[0], size)


def border_distances(tile: Box, part: Box, size: Size) -> Iterator[Tensor]:
    """Distances of the rows, then the columns, of a part of a tile to the tile's borders; the image's own are far."""
    far = float(sum(size))
    for axis, length in ((1, size[0]), (0, size[1])):
        start, stop = (tile[axis] or -far), tile[axis + 2]
        at = torch.arange(part[axis], part[axis + 2], dtype=torch.float32)
        yield torch.minimum(at - start + 1, (stop if stop < length else length + far) - at)
