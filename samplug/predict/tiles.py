"""Large pictures tile by tile: what crosses a border is put together again and comes out once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from samplug.masks import boxes_of
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.cutouts import Box, Cutout, Cutouts, common
from samplug.predict.everything import Found, Look, Settings, tidied
from samplug.predict.grounds import Ground, Window
from samplug.tracking.parts import InSlices
from samplug.view import Size

SAME = 0.5  # overlap, where two pieces can both be seen, from which they are one object
NEAR = 1 / 64  # of a tile: what comes so close to its border may go on beyond it


def check_tiles(side: int, overlap: float) -> None:
    """Refuse tiles that would never get on.

    Raises:
        ValueError: they share all their pixels.
    """
    if overlap >= side:
        raise ValueError(
            f"overlap={overlap} is no less than tile={side}: give fewer pixels, or a share of a tile below 1."
        )


def tiles(frame: Size, side: int, overlap: float) -> list[Window]:
    """Cover a frame by windows of so many pixels a side, spread evenly.

    Args:
        frame: (H, W).
        side: of a tile, in pixels.
        overlap: pixels that neighbours share at least; below 1 a share of the side.
    """
    shared = int(overlap * side if overlap < 1 else overlap)
    tops, lefts = (starts(length, side, shared) for length in frame)
    height, width = (min(side, length) for length in frame)
    return [Window((left, top, left + width, top + height)) for top in tops for left in lefts]


def starts(length: int, side: int, shared: int) -> list[int]:
    """Where tiles begin along a side of the frame."""
    rest = length - side
    count = 1 + max(0, math.ceil(rest / (side - shared)))
    return [round(i * rest / (count - 1)) for i in range(count)] if count > 1 else [0]


@dataclass(frozen=True, eq=False)
class Piece:
    """A mask found in one tile.

    Attributes:
        mask: in the frame.
        box: xyxy, the first and last pixels that are on.
        score: predicted IoU.
        stability: likewise.
        tile: xyxy of the tile.
        cut: whether it goes on beyond the tile, for all that is known.
    """

    mask: Cutout
    box: Box
    score: float
    stability: float
    tile: Box
    cut: bool

    @property
    def known(self) -> Box:
        """Where it is known what belongs to the object: in the tile, or everywhere if it ends there."""
        return self.tile if self.cut else (0, 0, *self.mask.frame[::-1])

    def sameness(self, other: Piece) -> float:
        """The overlap of two masks where it is known of both what they are, 0 … 1."""
        return self.mask.overlap(other.mask, common(self.known, other.known))


def search_tiles(
    model: SAMModel | SAM2Model,
    ground: Ground,
    settings: Settings,
    side: int,
    overlap: float,
    in_slices: InSlices | None = None,
) -> Found:
    """Find the masks of one picture, tile by tile.

    Args:
        model: one of our networks.
        ground: the picture.
        settings: grids and thresholds, for each tile; there are no crops beside them.
        side: see `tiles`.
        overlap: likewise.
        in_slices: as in `search`.

    Returns:
        Masks in the frame of the whole picture, the likeliest first. Repetitions are found by their masks, not by
        their boxes, which a single stray pixel moves.
    """
    windows = tiles(ground.frame, side, overlap)
    looks = (Look(model, ground, window, settings, in_slices, whole=False) for window in windows)
    by_tile = [once(pieces(look), settings.crop_nms_thresh) for look in looks]
    objects = once(put_together(by_tile), settings.crop_nms_thresh)
    found = Found(
        cutouts=Cutouts((each.mask for each in objects), ground.frame, torch.device("cpu")),
        scores=torch.tensor([each.score for each in objects]),
        stability=torch.tensor([each.stability for each in objects]),
        boxes=torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4),
    )
    return tidied(found, ground, settings)


def pieces(look: Look) -> list[Piece]:
    """What one tile shows, on the CPU."""
    found, tile = look.candidates(), look.window.box
    rows = zip(found.patches, found.boxes.int().tolist(), found.scores.tolist(), found.stability.tolist(), strict=True)
    frame = look.ground.frame
    return [
        Piece(look.cut_out(patch).cpu(), tuple(box), score, stability, tile, cut_off(box, tile, frame))
        for patch, box, score, stability in rows
    ]


def cut_off(box: Box, tile: Box, frame: Size) -> bool:
    """Whether a box comes so close to a border of its tile, not of the frame, that the object may go on there."""
    margin = NEAR * min(tile[2] - tile[0], tile[3] - tile[1])
    (left, top, right, bottom), (height, width) = box, frame
    first = left < tile[0] + margin and tile[0] > 0 or top < tile[1] + margin and tile[1] > 0
    last = right >= tile[2] - margin and tile[2] < width or bottom >= tile[3] - margin and tile[3] < height
    return first or last


def once(some: Sequence[Piece], enough: float) -> list[Piece]:
    """The likeliest first, less those that overlap one before them by more than enough."""
    chosen: list[Piece] = []
    for piece in sorted(some, key=lambda piece: -piece.score):
        if all(piece.sameness(each) <= enough for each in chosen):
            chosen.append(piece)
    return chosen


def put_together(by_tile: Sequence[Sequence[Piece]]) -> list[Piece]:
    """One piece an object: pieces that are one object where both can see it become one, what is left of others goes.

    The largest overlaps go first, and no object takes two pieces of one tile. At last a piece without a partner goes
    that was cut off and repeats, in its tile, an object put together.
    """
    groups = {piece: [piece] for tile in by_tile for piece in tile}
    for first, second in alike(by_tile):
        if fit_together(groups[first], groups[second]):
            other = groups[second]
            groups[first].extend(other)
            groups.update(dict.fromkeys(other, groups[first]))
    different = {id(group): group for group in groups.values()}.values()
    alone = [group[0] for group in different if len(group) == 1 and group[0].cut]
    whole = [joined(group) for group in different if len(group) > 1 or not group[0].cut]
    return whole + [piece for piece in alone if all(piece.sameness(each) < SAME for each in whole)]


def fit_together(one: Sequence[Piece], other: Sequence[Piece]) -> bool:
    """Whether two groups share no tile, and whatever ends in its tile is all that the others show."""
    apart = {piece.tile for piece in one}.isdisjoint(piece.tile for piece in other)
    return apart and all(a.sameness(b) >= SAME for a in one for b in other if not (a.cut and b.cut))


def alike(by_tile: Sequence[Sequence[Piece]]) -> list[tuple[Piece, Piece]]:
    """Pairs of different tiles that may be one object, the likeliest first."""
    table = [
        (one.sameness(other), one, other)
        for first, second in combinations([tile for tile in by_tile if tile], 2)
        if meets(first[0].tile, second[0].tile)
        for one in first
        for other in second
    ]
    some = sorted((row for row in table if row[0] >= SAME), key=lambda row: -row[0])
    return [(one, other) for _, one, other in some]


def meets(a: Box, b: Box) -> bool:
    """Whether two boxes share a pixel."""
    left, top, right, bottom = common(a, b)
    return left < right and top < bottom


def joined(group: Sequence[Piece]) -> Piece:
    """The object that pieces belong to: the likeliest that ends inside its tile, else all of them together."""
    likeliest = min(group, key=lambda piece: (piece.cut, -piece.score))
    agreed = None if len(group) == 1 or not likeliest.cut else vote(group)
    if agreed is None:
        return likeliest
    shares = torch.tensor([float(piece.mask.area) for piece in group])
    numbers = torch.tensor([(piece.score, piece.stability) for piece in group])
    score, stability = (shares / shares.sum() @ numbers).tolist()
    left, top, right, bottom = agreed.edges
    return Piece(agreed, (left, top, right - 1, bottom - 1), score, stability, (0, 0, *agreed.frame[::-1]), False)


def vote(group: Sequence[Piece]) -> Cutout | None:
    """Let all tiles that show a pixel say whether it is on, each as loud as it is far from their borders.

    None if that leaves nothing.
    """
    frame = group[0].mask.frame
    window = left, top, *_ = around([piece.mask.edges for piece in group])
    votes = torch.zeros(window[3] - top, window[2] - left)
    for piece in group:
        x1, y1, x2, y2 = part = common(piece.tile, window)
        loud = torch.minimum(*torch.meshgrid(*insides(piece.tile, part, frame), indexing="ij"))
        votes[y1 - top : y2 - top, x1 - left : x2 - left] += torch.where(piece.mask.inside(part), loud, -loud)
    on = votes > 0
    return cropped(on, window, frame) if on.any() else None


def insides(tile: Box, part: Box, frame: Size) -> Iterator[Tensor]:
    """How far the rows of a part of a tile are from its borders, and its columns; the frame's own are far away."""
    far = float(sum(frame))
    for axis, length in ((1, frame[0]), (0, frame[1])):
        start, stop = (tile[axis] or -far), tile[axis + 2]
        at = torch.arange(part[axis], part[axis + 2], dtype=torch.float32)
        yield torch.minimum(at - start + 1, (stop if stop < length else length + far) - at)


def around(boxes: Sequence[Box]) -> Box:
    """The box that all of these lie in."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def cropped(pixels: Tensor, window: Box, frame: Size) -> Cutout:
    """Keep (h, w) bool pixels that lie in a window of a frame, less what is empty around them."""
    left, top, right, bottom = boxes_of(pixels[None]).int()[0].tolist()
    return Cutout.of(pixels[top : bottom + 1, left : right + 1], window[1] + top, window[0] + left, frame)
