"""Segment everything: a grid of points, three masks each, filtered, no duplicates (arXiv 2304.02643, appendix B)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import mask_box
from samplug.masks.iou import nms
from samplug.masks.packed import PackedMask, PackedMasks
from samplug.masks.raster import LogitsCrop, Raster
from samplug.masks.regions import clean_packed_masks
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.predict.auto.crops import CropSpace, Window, crop_windows, point_grid
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.runtime.finite import check_finite
from samplug.runtime.progress import JobProgress
from samplug.transforms import Size

# By `rules` and whether the network is a SAM 2: how images are fitted, and which defaults differ.
FITTING = {("meta", True): "stretch", ("meta", False): "pad"}
BY_RULES: dict[tuple[str, bool], dict[str, Any]] = {
    ("meta", True): {"conf_thres": 0.8, "stability_score_offset": 1.0},
    ("meta", False): {"stability_score_offset": 1.0},
}
# Networks whose predicted IoU and stability are lower than those of Meta's.
BY_NETWORK: dict[str, dict[str, Any]] = {"samplug-nano": {"conf_thres": 0.5, "stability_score_thresh": 0.8}}
GPU_POINTS_BATCH_SIZE = 256
CROP_BORDER = 20.0  # pixels; a mask so close to a crop's inner border is cut off there

Item = TypeVar("Item", LogitsCrop, PackedMask)


@dataclass(frozen=True)
class GenerateOptions:
    """The arguments of `Predictor.generate`, under its names, Ultralytics' `iou` for NMS inside a crop and `conf`.

    `rules` is explained at `samplug.arguments.OWN`. Masks with a score not above `conf` are left out before small
    regions are removed. `verbose` shows the progress of long jobs.
    """

    crop_n_layers: int = 0
    crop_overlap_ratio: float = 512 / 1500
    crop_downscale_factor: int = 1
    point_grids: Sequence[np.ndarray] | None = None
    points_stride: int = 32
    points_batch_size: int = 64
    conf_thres: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 0.95
    crop_nms_thresh: float = 0.7
    min_mask_region_area: float = 0
    rules: str = "ultralytics"
    iou: float = 0.7
    conf: float | None = None
    verbose: bool = False
    tile: int | None = None
    overlap: float = 0.25
    outlines: str = "grid"

    def point_grid(self, layer: int) -> np.ndarray:
        """The points of a layer of crops, (P, 2) xy in 0-1."""
        if self.point_grids is not None:
            return np.asarray(self.point_grids[layer], dtype=np.float64).reshape(-1, 2)
        return point_grid(max(1, int(self.points_stride / self.crop_downscale_factor**layer)))

    def passes_iou(self, iou: Tensor) -> Tensor:
        """Which predicted IoUs are above the threshold; by Meta's rules a threshold of 0 keeps all."""
        keep_all = self.rules == "meta" and self.conf_thres <= 0
        return torch.ones_like(iou, dtype=torch.bool) if keep_all else iou > self.conf_thres

    def passes_stability(self, stability: Tensor) -> Tensor:
        """Which masks are above the threshold; by Meta's rules also those at it, and a threshold of 0 keeps all."""
        if self.rules == "meta" and self.stability_score_thresh <= 0:
            return torch.ones_like(stability, dtype=torch.bool)
        above = torch.ge if self.rules == "meta" else torch.gt
        return above(stability, self.stability_score_thresh)


def with_defaults(
    settings: dict[str, Any], model: SAMModel | SAM2Model, device: torch.device, verbose: bool
) -> dict[str, Any]:
    """Options of everything mode, with the defaults of the rules, the network and the device where none was given."""
    batch = {} if device.type == "cpu" else {"points_batch_size": GPU_POINTS_BATCH_SIZE}
    rules, own = settings.get("rules", GenerateOptions.rules), BY_NETWORK.get(model.variant, {})
    if verbose and own.keys() - settings.keys():
        from samplug import host  # here, so that this module needs no Ultralytics

        line = ", ".join(f"{name}={value}" for name, value in own.items() if name not in settings)
        host.say_once(f"Everything with {model.variant}: {line}, unless you say otherwise.")
    return {**batch, **BY_RULES.get((rules, isinstance(model, SAM2Model)), {}), **own, **settings}


@dataclass(frozen=True, eq=False)
class FoundMasks(Generic[Item]):
    """N masks."""

    items: tuple[Item, ...]  # the logits that each is interpolated from, or, once it is drawn, the mask
    scores: Tensor  # (N,) float32, predicted IoU
    stability: Tensor  # (N,) float32
    boxes: Tensor  # (N, 4) float32 xyxy, the first and last pixels that are on

    def __getitem__(self, index: Tensor) -> FoundMasks[Item]:
        """The masks of these indices (K,)."""
        items = tuple(self.items[i] for i in index.tolist())
        return FoundMasks(items, self.scores[index], self.stability[index], self.boxes[index])

    @staticmethod
    def cat(parts: Sequence[FoundMasks[Item]]) -> FoundMasks[Item]:
        """Join, in order."""
        columns = (torch.cat([getattr(part, name) for part in parts]) for name in ("scores", "stability", "boxes"))
        return FoundMasks(tuple(item for part in parts for item in part.items), *columns)

    def packed(self: FoundMasks[PackedMask], size: Size) -> PackedMasks:
        """The masks of a frame of this size."""
        return PackedMasks(self.items, size, self.boxes.device)


def generate_masks(
    model: SAMModel | SAM2Model, space: CropSpace, options: GenerateOptions, features: Features | None = None
) -> FoundMasks[PackedMask]:
    """Find the masks of one image: by falling score within a crop, those of smaller crops before those of larger ones.

    `features` are those of the whole image, if they are known.
    """
    batch = AdaptiveBatch(options.points_batch_size, "click")
    windows = crop_windows(space.size, options.crop_n_layers, options.crop_overlap_ratio)
    windows = [window for window in windows if space.has_image(window)]
    with progress_of(windows, options, "crop", "A smaller points_stride= or crop_n_layers= takes less.") as progress:
        crops = [CropGenerator(model, space, window, options, batch, progress) for window in windows]
        parts = [crop.find_masks(None if crop.window.layer else features) for crop in crops]
    found = FoundMasks.cat(parts)
    crop_index = torch.repeat_interleave(torch.tensor([len(part.items) for part in parts]))
    if len(windows) > 1:
        small = torch.tensor([1 / math.prod(crop.window.size) for crop in crops])
        keep = nms(found.boxes, small[crop_index].to(found.boxes), options.crop_nms_thresh)
        found, crop_index = found[keep], crop_index[keep.cpu()]
    masks = (crops[i].draw(item) for i, item in zip(crop_index.tolist(), found.items, strict=True))
    drawn = FoundMasks(tuple(masks), found.scores, found.stability, found.boxes)
    if space.drawn_size != space.size:
        drawn = at_image(drawn)
    return clean_found_masks(drawn, space, options)


def progress_of(windows: Sequence[Window], options: GenerateOptions, what: str, advice: str) -> JobProgress:
    """The progress of encoding windows and of answering their clicks."""
    layers = Counter(window.layer for window in windows)
    clicks = sum(count * len(options.point_grid(layer)) for layer, count in layers.items())
    return JobProgress({what: len(windows), "click": clicks}, advice, options.verbose)


def at_image(found: FoundMasks[PackedMask]) -> FoundMasks[PackedMask]:
    """The boxes around masks that were drawn at the image's size; those that have no pixel there are dropped."""
    inside = [mask_box(mask.pixels) for mask in found.items]
    corners = [(mask.left, mask.top) * 2 for mask in found.items]
    boxes = found.boxes.new_tensor([box or (0, 0, 0, 0) for box in inside]) + found.boxes.new_tensor(corners)
    visible = torch.tensor([row for row, box in enumerate(inside) if box is not None], dtype=torch.int64)
    return replace(found, boxes=boxes.reshape(-1, 4))[visible]


def clean_found_masks(
    found: FoundMasks[PackedMask], space: CropSpace, options: GenerateOptions
) -> FoundMasks[PackedMask]:
    """Fill small holes, drop small islands, and drop what has become a duplicate by that."""
    if options.min_mask_region_area <= 0:
        return found
    if options.conf is not None:
        found = found[(found.scores > options.conf).nonzero()[:, 0]]
    area, max_iou = space.area(options.min_mask_region_area), max(options.iou, options.crop_nms_thresh)
    masks, boxes, keep = clean_packed_masks(found.packed(space.drawn_size), area, max_iou)
    return replace(found[keep], items=masks.items, boxes=boxes.to(found.boxes))


@dataclass(eq=False)
class CropGenerator:
    """Finds masks in one window of an image."""

    model: SAMModel | SAM2Model
    space: CropSpace  # the image
    window: Window  # the part of it that the network sees
    options: GenerateOptions
    batch: AdaptiveBatch  # how many points are prompted together
    progress: JobProgress  # of the whole image
    drop_cut_off: bool = True  # leave out masks that are cut off by the window's borders

    @cached_property
    def raster(self) -> Raster:
        """The window's pixels over the network's logits."""
        return self.space.raster(self.window)

    @cached_property
    def drawing(self) -> tuple[Raster, int, int]:
        """The pixels that masks are drawn in, and where they begin."""
        return self.space.drawing(self.window)

    def find_masks(self, features: Features | None = None) -> FoundMasks[LogitsCrop]:
        """The masks of its layer's points without duplicates; `features` where the window's are known."""
        with self.progress.timed([*self.progress.totals][0]):
            encoded = self.model.encode(self.space.network_input(self.window)) if features is None else features
        points = self.space.points(self.options.point_grid(self.window.layer), self.window)
        parts: list[FoundMasks[LogitsCrop]] = []

        def prompt(some: slice) -> None:
            with self.progress.timed("click", some.stop - some.start):
                parts.append(self._prompt(encoded, points[some]))

        self.batch.run(len(points), prompt)
        found = FoundMasks.cat(parts)
        return found[nms(found.boxes, found.scores, self.options.iou)]

    def _prompt(self, features: Features, points: Tensor) -> FoundMasks[LogitsCrop]:
        """The masks of some points that pass the thresholds and are not cut off."""
        image_index = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        labels = torch.ones(len(points), 1, dtype=torch.int64, device=points.device)
        prompts = PromptBatch(image_index, points=points[:, None], labels=labels)
        answer = self.model.answer(features, prompts, multimask=True, keep_prompt=self._keep_prompt)
        logits, scores = answer.logits.flatten(0, 1), answer.iou.flatten(0, 1).float()
        passing = self.options.passes_iou(scores).nonzero()[:, 0]
        logits, scores = logits[passing], scores[passing]
        check_finite(self.model, features.image, answer.iou, logits)
        threshold = self.model.mask_threshold
        statistics = self.raster.statistics(logits, threshold, self.options.stability_score_offset)
        boxes = statistics.boxes + statistics.boxes.new_tensor(self.window.box[:2] * 2)
        stable = self.options.passes_stability(statistics.stability)
        keep = (stable & ~(self.drop_cut_off & self._is_cut_off(boxes))).nonzero()[:, 0]
        crops = self.raster.crop_logits(logits, threshold, keep)
        return FoundMasks(crops, scores[keep], statistics.stability[keep], boxes[keep])

    def _keep_prompt(self, iou: Tensor) -> Tensor:
        """Which points have a mask that passes, by predicted IoUs (N, M), or NaN, which must be reported."""
        return (self.options.passes_iou(iou.float()) | ~iou.isfinite()).any(1)

    def _is_cut_off(self, boxes: Tensor) -> Tensor:
        """Which boxes touch a border of the window that is no border of the image."""
        height, width = self.space.size
        near_window = (boxes - boxes.new_tensor(self.window.box)).abs() <= CROP_BORDER
        near_edge = (boxes - boxes.new_tensor([0, 0, width, height])).abs() <= CROP_BORDER
        return (near_window & ~near_edge).any(1)

    def draw(self, crop: LogitsCrop) -> PackedMask:
        """The mask of one of its candidates."""
        raster, first_row, first_column = self.drawing
        pixels, top, left = raster.draw_mask(crop, self.model.mask_threshold)
        return PackedMask.pack(pixels, top + first_row, left + first_column, self.space.drawn_size)
