"""Everything on images: whole, in crops, or tile by tile; `merge_tiles.py` makes one mask of what crosses borders."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from samplug.masks.packed import PackedMask
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features
from samplug.predict.auto.crops import CropSpace, ImageSpace, InputSpace, Window
from samplug.predict.auto.generator import (
    CropGenerator,
    FoundMasks,
    GenerateOptions,
    clean_found_masks,
    generate_masks,
    progress_of,
)
from samplug.predict.auto.merge_tiles import TileMask, drop_duplicates, may_continue, merge_tiles
from samplug.predict.prediction import Prediction, PromptedImage
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.transforms import Size


def segment_everything(
    model: SAMModel | SAM2Model, im: Tensor, images: list[PromptedImage], features: Features | None,
    options: GenerateOptions, preprocess: Callable[[list[np.ndarray]], Tensor],
) -> Prediction:  # fmt: skip
    """Segment everything on each of F images, whose input is (F, 3, h, w), and their features these, if they are known.

    `preprocess` brings parts of an image to the network's input.
    """
    parts = []
    for i, image in enumerate(images):
        space: CropSpace = InputSpace(im[i : i + 1], image.transform, options.outlines == "smooth")
        if options.tile or options.rules == "meta":
            space = ImageSpace(space.im, image.transform, image.image, lambda window: preprocess([window]))
        if options.tile:
            found = generate_masks_in_tiles(model, space, options, options.tile, options.overlap)
        else:
            found = generate_masks(model, space, options, None if features is None else features[[i]])
        image_index = torch.full((len(found.scores),), i, dtype=torch.int64)
        parts.append(Prediction(found.packed(space.drawn_size), found.scores, found.boxes, image_index=image_index))
    return Prediction.cat(parts, images)


def check_tiles(side: int, overlap: float) -> None:
    """Refuse tiles that would not cover an image, as they share all their pixels: ValueError."""
    if overlap >= side:
        raise ValueError(
            f"overlap={overlap} is no less than tile={side}: give fewer pixels, or a share of a tile below 1."
        )


def tile_windows(size: Size, side: int, overlap: float) -> list[Window]:
    """Cover an image (H, W) by tiles, spread evenly; they overlap by so many pixels, below 1 a share of the side."""
    shared = int(overlap * side if overlap < 1 else overlap)
    tops, lefts = (tile_starts(length, side, shared) for length in size)
    height, width = (min(side, length) for length in size)
    return [Window((left, top, left + width, top + height)) for top in tops for left in lefts]


def tile_starts(length: int, side: int, shared: int) -> list[int]:
    """Where tiles begin along a side of the image."""
    rest = length - side
    count = 1 + max(0, math.ceil(rest / (side - shared)))
    return [round(i * rest / (count - 1)) for i in range(count)] if count > 1 else [0]


def generate_masks_in_tiles(
    model: SAMModel | SAM2Model, space: CropSpace, options: GenerateOptions, side: int, overlap: float
) -> FoundMasks[PackedMask]:
    """Find the masks of one image, tile by tile: by falling score, on the CPU. Tiles are not cropped.

    Duplicates are found by the IoU of masks, not of boxes, which a single stray pixel moves.
    """
    batch, advice = (
        AdaptiveBatch(options.points_batch_size, "click"),
        "A larger tile=, less overlap= or points_stride= ",
    )
    windows, by_tile = tile_windows(space.size, side, overlap), []
    with progress_of(windows, options, "tile", f"{advice}takes less.") as progress:
        for window in windows:
            crop = CropGenerator(model, space, window, options, batch, progress, drop_cut_off=False)
            by_tile.append(drop_duplicates(tile_masks(crop), options.crop_nms_thresh))
    merged = drop_duplicates(merge_tiles(by_tile), options.crop_nms_thresh)
    found = FoundMasks(
        items=tuple(each.mask for each in merged),
        scores=torch.tensor([each.score for each in merged]),
        stability=torch.tensor([each.stability for each in merged]),
        boxes=torch.tensor([each.box for each in merged], dtype=torch.float32).reshape(-1, 4),
    )
    return clean_found_masks(found, space, options)


def tile_masks(crop: CropGenerator) -> list[TileMask]:
    """The masks of one tile, on the CPU."""
    found, tile = crop.find_masks(), crop.window.box
    rows = zip(found.items, found.boxes.int().tolist(), found.scores.tolist(), found.stability.tolist(), strict=True)
    return [
        TileMask(crop.draw(item).cpu(), tuple(box), score, stability, tile, may_continue(box, tile, crop.space.size))
        for item, box, score, stability in rows
    ]
