"""From answers at the network's size to Ultralytics' `Results`: which rows are kept, and their masks made ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from samplug import resources
from samplug.host import Results
from samplug.masks.boxes import mask_boxes
from samplug.masks.exclusive import resolve_overlaps
from samplug.masks.packed import PackedMasks
from samplug.masks.regions import clean_result_masks
from samplug.masks.resize import resize_to_image
from samplug.predict.results.mask_results import MaskResults
from samplug.transforms import ImageTransform
from samplug.values import as_list

MASK_PIXEL_BYTES = 2  # bytes of memory for a pixel of a mask, measured: the mask and, on its way, a part of its logits
FLOAT32_INTEGERS = 1 << 24  # whole numbers up to here are exact in float32


@dataclass(frozen=True, eq=False)
class ImageInfo:
    """One image: BGR bytes (H, W, 3), its path, and how it lies in the network's input."""

    image: np.ndarray
    path: str
    transform: ImageTransform


@dataclass(frozen=True, eq=False)
class MaskRows:
    """N masks on one image."""

    masks: Tensor | PackedMasks  # logits (N, h, w) over the network's whole input, or packed masks
    scores: Tensor  # (N,)
    classes: Tensor  # (N,) int64 on the CPU
    names: dict[int, str]  # a name for every class
    ids: Tensor | None = None  # (N,) int64 on the CPU
    boxes: Tensor | None = None  # (N, 4) xyxy of the image while masks are not changed; None: those around the masks
    memory_checked: bool = False  # whether the memory for the masks at the image's size was required before

    def __getitem__(self, index: Tensor) -> MaskRows:
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
class PostprocessOptions:
    """Post-processing options."""

    threshold: float = 0.0  # logits above it are mask
    conf: float | None = None  # rows whose score is not above it are dropped
    classes: Sequence[int] | None = None  # rows of other classes are dropped
    keep_empty: bool = True  # keep rows without any pixel
    keep_logits: bool = False  # store the masks at the network's resolution as `result.logits` (N, h, w)
    fill_holes: float = 0  # see `clean_result_masks`
    min_area: float = 0  # likewise; of small parts, those that `non_overlap` leaves are dropped as well
    non_overlap: bool = False  # assign each pixel to one of the kept rows, after they were cleaned
    save_ids: bool = True  # write ids into label files

    def kept_rows(self, rows: MaskRows) -> Tensor:
        """(K,) the rows that neither score nor class rules out."""
        keep = torch.ones(len(rows.classes), dtype=torch.bool)
        if self.conf is not None:
            keep &= (rows.scores > self.conf).cpu()
        if self.classes is not None:
            keep &= torch.isin(rows.classes, torch.tensor(as_list(self.classes)))
        return keep.nonzero()[:, 0]


def build_results(rows: MaskRows, image: ImageInfo, options: PostprocessOptions) -> tuple[Results, Tensor]:
    """Bring one image's rows to its own size and wrap them; and which rows are left, (K,) int64.

    The result's `boxes` and `masks` always exist, with zero rows when nothing is left, `boxes.id` where there are ids.
    """
    kept = options.kept_rows(rows)
    rows = rows if len(kept) == len(rows.classes) else rows[kept]
    if not rows.memory_checked:
        check_masks(len(rows.scores), image.transform.image_size, options.non_overlap)
    if isinstance(rows.masks, PackedMasks):
        masks = rows.masks.to_image(image.transform).unpack()
    else:
        masks = resize_to_image(rows.masks, image.transform, options.threshold)
    clean_result_masks(masks, options.fill_holes, options.min_area)
    if options.non_overlap:
        masks = resolve_overlaps(masks, rows.masks, rows.scores, image.transform)
        clean_result_masks(masks, 0, options.min_area)
    if not options.keep_empty and masks.numel():
        visible = masks.view(torch.uint8).flatten(1).amax(1).cpu().nonzero()[:, 0]
        kept, rows, masks = kept[visible], rows[visible], masks[visible.to(masks.device)]
    changed = options.fill_holes or options.min_area or options.non_overlap
    boxes = mask_boxes(masks) if changed or rows.boxes is None else rows.boxes
    result = MaskResults(image.image, path=image.path, names=rows.names, masks=masks, boxes=box_rows(rows, boxes))
    result.save_ids = options.save_ids
    if options.keep_logits and isinstance(rows.masks, Tensor):
        result.logits = rows.masks
    return result, kept


def check_masks(count: int, image: tuple[int, int], non_overlap: bool) -> None:
    """Refuse masks that would not fit into memory, by an OutOfMemoryError."""
    need, what = mask_bytes(count, image, non_overlap), f"{count} masks of {image[1]}x{image[0]} pixels"
    resources.require_memory(need, what, "prompt fewer objects at once, or a smaller image")


def mask_bytes(count: int, image: tuple[int, int], non_overlap: bool) -> int:
    """The memory for post-processing masks of an image (H, W)."""
    return MASK_PIXEL_BYTES * (3 if non_overlap else 1) * count * image[0] * image[1]


def box_rows(rows: MaskRows, boxes: Tensor) -> Tensor:
    """(N, 6) xyxy, score, class; (N, 7) with the id before the score when there are ids.

    In float32 as Ultralytics has it; in float64 where an id or a class would be rounded to another.
    """
    numbers = [rows.classes] if rows.ids is None else [rows.ids, rows.classes]  # on the CPU
    large = any((column.abs() > FLOAT32_INTEGERS).any() for column in numbers)
    dtype = torch.float64 if large else torch.float32
    device = torch.device("cpu") if large and boxes.device.type == "mps" else boxes.device  # which has no float64
    columns = [*numbers[:-1], rows.scores, rows.classes]
    return torch.cat([boxes.to(device, dtype), torch.stack([column.to(device, dtype) for column in columns], 1)], 1)
