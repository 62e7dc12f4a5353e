"""From answers at the network's size to Ultralytics' `Results`: which rows are kept, and their masks made ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from samplug import room
from samplug.host import Results
from samplug.masks import boxes_of, resize_to_picture
from samplug.predict.cutouts import Cutouts
from samplug.predict.saving import Saved
from samplug.predict.tidy import settle_rivals, tidy
from samplug.view import View

MASK = 2  # bytes of memory for a pixel of a mask, measured: the mask and, on its way, a part of its logits
COUNTABLE = 1 << 16
EXACT = 1 << 24  # whole numbers up to here are themselves in float32


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture in hand: BGR bytes (H, W, 3), where it came from, how it lies in the network's input."""

    picture: np.ndarray
    path: str
    view: View


@dataclass(frozen=True, eq=False)
class Rows:
    """N answers on one picture.

    Attributes:
        masks: logits (N, h, w) over the network's whole input, or masks that are cut out already.
        scores: (N,).
        classes: (N,) int64 on the CPU.
        names: a name for every class.
        ids: (N,) int64 on the CPU, or None.
        boxes: (N, 4) xyxy of the picture, while masks stay as they came; None: those around the masks.
    """

    masks: Tensor | Cutouts
    scores: Tensor
    classes: Tensor
    names: dict[int, str]
    ids: Tensor | None = None
    boxes: Tensor | None = None

    def __getitem__(self, index: Tensor) -> Rows:
        """The chosen rows."""
        return replace(
            self,
            masks=self.masks[index.to(self.masks.device)],
            scores=self.scores[index.to(self.scores.device)],
            classes=self.classes[index],
            ids=None if self.ids is None else self.ids[index],
            boxes=None if self.boxes is None else self.boxes[index.to(self.boxes.device)],
        )


@dataclass(frozen=True)
class Finish:
    """What becomes of rows.

    Attributes:
        threshold: logits above it are mask.
        conf: rows whose score is not above it are left out; None keeps all.
        classes: rows of other classes are left out.
        keep_empty: keep rows without any pixel.
        keep_logits: store the masks at the network's resolution as `result.logits` (N, h, w).
        fill_holes: see `tidy`.
        min_area: see `tidy`.
        non_overlap: leave each pixel to one of the rows that are not left out, after tidying.
    """

    threshold: float = 0.0
    conf: float | None = None
    classes: Sequence[int] | None = None
    keep_empty: bool = True
    keep_logits: bool = False
    fill_holes: float = 0
    min_area: float = 0
    non_overlap: bool = False

    @property
    def changes(self) -> bool:
        """Whether masks come out as others than they came."""
        return bool(self.fill_holes or self.min_area or self.non_overlap)

    def asks_for(self, rows: Rows) -> Tensor:
        """(K,) the rows that neither score nor class rules out."""
        keep = torch.ones(len(rows.classes), dtype=torch.bool)
        if self.conf is not None:
            keep &= (rows.scores > self.conf).cpu()
        if self.classes is not None:
            keep &= torch.isin(rows.classes, torch.as_tensor(self.classes))
        return keep.nonzero()[:, 0]


def finished(rows: Rows, shown: Shown, finish: Finish) -> tuple[Results, Tensor]:
    """Bring one picture's rows to its own size and wrap them.

    Returns:
        The result, whose `boxes` and `masks` always exist, with zero rows when nothing is left, and `boxes.id` where
        there are ids; and which rows it holds, (K,) int64.
    """
    chosen = finish.asks_for(rows)
    rows = rows if len(chosen) == len(rows.classes) else rows[chosen]
    check_masks(len(rows.scores), shown.view.picture, finish.non_overlap)
    masks = at_picture_size(rows.masks, shown.view, finish.threshold)
    tidy(masks, finish.fill_holes, finish.min_area)
    if finish.non_overlap:
        masks = settle_rivals(masks, rows.masks, rows.scores, shown.view)
    if not finish.keep_empty and masks.numel():
        some = masks.view(torch.uint8).flatten(1).amax(1).cpu().nonzero()[:, 0]
        chosen, rows, masks = chosen[some], rows[some], masks[some.to(masks.device)]
    boxes = boxes_of(masks).float() if finish.changes or rows.boxes is None else rows.boxes
    result = Saved(shown.picture, path=shown.path, names=rows.names, masks=masks, boxes=table(rows, boxes))
    if finish.keep_logits and isinstance(rows.masks, Tensor):
        result.logits = rows.masks
    return result, chosen


def check_masks(count: int, picture: tuple[int, int], apart: bool) -> None:
    """Refuse masks that would not fit into memory.

    Raises:
        RoomError: they would not.
    """
    height, width = picture
    what = f"{count} masks of {width}x{height} pixels"
    room.check(bytes_of_masks(count, picture, apart), what, "prompt fewer objects at once, or a smaller picture")


def bytes_of_masks(count: int, picture: tuple[int, int], apart: bool) -> int:
    """The memory for masks of a picture (H, W), made ready; `apart`: each pixel is left to one of them."""
    return MASK * (3 if apart else 1) * count * picture[0] * picture[1]


def own_class(obj_id: int) -> int:
    """The class of an object that was given none: its id, or, where that cannot be counted, a number above all others.

    Ultralytics counts classes in a table with a place for each number up to the largest.
    """
    return obj_id if 0 <= obj_id < COUNTABLE else COUNTABLE + obj_id % COUNTABLE


def at_picture_size(masks: Tensor | Cutouts, view: View, threshold: float) -> Tensor:
    """(N, H, W) bool masks of the picture."""
    return masks.of_picture(view).whole() if isinstance(masks, Cutouts) else resize_to_picture(masks, view, threshold)


def table(rows: Rows, boxes: Tensor) -> Tensor:
    """(N, 6) xyxy, score, class; (N, 7) with the id before the score when there are ids.

    In float32 as Ultralytics has it; in float64 where an id or a class would be rounded to another.
    """
    columns = [rows.scores, rows.classes] if rows.ids is None else [rows.ids, rows.scores, rows.classes]
    large = any((column.abs() > EXACT).any() for column in columns)
    dtype = torch.float64 if large else torch.float32
    device = torch.device("cpu") if large and boxes.device.type == "mps" else boxes.device  # which has no float64
    numbers = torch.stack([column.to(device, dtype) for column in columns], 1)
    return torch.cat([boxes.to(device, dtype), numbers], 1)
