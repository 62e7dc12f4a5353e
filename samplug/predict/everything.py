"""Segment everything: a grid of clicks, three masks each, what survives the filters (arXiv 2304.02643, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from samplug.masks import boxes_of, remove_small_regions, stability
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.predict.finite import check_finite
from samplug.prompts import View

EDGE = 20.0  # pixels; a mask that touches a crop's inner border this closely is cut off there


@dataclass(frozen=True)
class Settings:
    """The arguments of `Predictor.generate`, under its names, and the host's `iou` for the NMS inside a crop."""

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
    min_mask_region_area: int = 0
    iou: float = 0.7


@dataclass(frozen=True, eq=False)
class Crop:
    """A window of the network's input: xyxy in its pixels, and its layer (0 is the whole)."""

    box: tuple[int, int, int, int]
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


@dataclass(frozen=True, eq=False)
class Found:
    """N masks (N, h, w) bool, their predicted IoU (N,) and boxes (N, 4) xyxy, in one frame of coordinates."""

    masks: Tensor
    scores: Tensor
    boxes: Tensor

    def __getitem__(self, index: Tensor) -> Found:
        return Found(self.masks[index], self.scores[index], self.boxes[index])

    @staticmethod
    def cat(parts: Sequence[Found]) -> Found:
        """Join what was found in several places, in order."""
        return Found(*(torch.cat([getattr(part, name) for part in parts]) for name in ("masks", "scores", "boxes")))


def segment_everything(
    model: SAMModel | SAM2Model, im: Tensor, view: View, settings: Settings, features: Features | None
) -> Found:
    """Find the masks of one picture.

    Args:
        model: one of our networks.
        im: (1, 3, h, w), the network's normalised input.
        view: how the picture lies in it; no click falls on the padding.
        settings: grids, crops and thresholds.
        features: those of `im` when they are known already.

    Returns:
        Masks (N, h, w) in pixels of the network's input, best first within a crop.
    """
    grids = settings.point_grids
    if grids is None:
        strides = [
            settings.points_stride / settings.crop_downscale_factor**i for i in range(settings.crop_n_layers + 1)
        ]
        grids = [grid(max(1, int(stride))) for stride in strides]
    crops = [crop for crop in crops_of(im.shape[-2:], settings) if shows_picture(crop, view)]
    parts = [_one_crop(model, im, view, crop, grids[crop.layer], settings, features) for crop in crops]
    found = Found.cat(parts)
    if len(crops) > 1:
        areas = torch.cat(
            [torch.full((len(p.scores),), float(math.prod(c.size))) for p, c in zip(parts, crops, strict=True)]
        )
        found = found[nms(found.boxes, 1 / areas.to(found.boxes), settings.crop_nms_thresh)]
    return _without_specks(found, view, settings)


def grid(side: int) -> np.ndarray:
    """Return side² points, xy in 0-1, in the middles of a side × side raster, row by row."""
    middles = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def crops_of(shape: Sequence[int], settings: Settings) -> list[Crop]:
    """Cut (height, width) into the whole and, in layer i, 2^i × 2^i windows that overlap."""
    height, width = shape
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, settings.crop_n_layers + 1):
        count = 2**layer
        overlap = int(settings.crop_overlap_ratio * min(height, width) * (2 / count))
        across, down = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for i in range(count * count):
            left, top = (i // count) * (across - overlap), (i % count) * (down - overlap)
            crops.append(Crop((left, top, min(left + across, width), min(top + down, height)), layer))
    return crops


def shows_picture(crop: Crop, view: View) -> bool:
    """Say whether any of the crop is picture, not padding."""
    height, width = view.content
    return crop.box[0] < width and crop.box[1] < height


def _one_crop(
    model: SAMModel | SAM2Model,
    im: Tensor,
    view: View,
    crop: Crop,
    points: np.ndarray,
    settings: Settings,
    features: Features | None,
) -> Found:
    left, top, right, bottom = crop.box
    if features is None or crop.layer:
        window = im[..., top:bottom, left:right]
        features = model.encode(F.interpolate(window, im.shape[-2:], mode="bilinear", align_corners=False))
    clicks = _clicks(points, crop, view, im.shape[-2:]).to(im.device)
    chunks = clicks.split(settings.points_batch_size)
    found = Found.cat([_answers(model, features, chunk, crop, im.shape[-2:], settings) for chunk in chunks])
    found = found[nms(found.boxes, found.scores, settings.iou)]
    offset = found.boxes.new_tensor([left, top, left, top])
    pad = (left, im.shape[-1] - right, top, im.shape[-2] - bottom)
    return Found(F.pad(found.masks, pad), found.scores, found.boxes + offset)


def _clicks(points: np.ndarray, crop: Crop, view: View, shape: Sequence[int]) -> Tensor:
    """Spread a grid in 0-1 over what is picture in a crop, in pixels of the crop brought to the input's size."""
    left, top, right, bottom = crop.box
    height, width = view.content
    share = np.minimum((width - left, height - top), (right - left, bottom - top)) / (right - left, bottom - top)
    return torch.from_numpy((points * share * (shape[1], shape[0])).astype(np.float32))


def _answers(
    model: SAMModel | SAM2Model,
    features: Features,
    clicks: Tensor,
    crop: Crop,
    shape: Sequence[int],
    settings: Settings,
) -> Found:
    """Answer some clicks on a crop, and keep what is likely, stable and not cut off by the crop."""
    owner = torch.zeros(len(clicks), dtype=torch.int64, device=clicks.device)
    labels = torch.ones(len(clicks), 1, dtype=torch.int64, device=clicks.device)
    answer = model.answer(features, PromptBatch(owner, points=clicks[:, None], labels=labels), multimask=True)
    logits, scores = answer.logits.flatten(0, 1), answer.iou.flatten(0, 1)
    likely = scores > settings.conf_thres
    check_finite(model, features.image, answer.iou, logits[likely])
    scores = scores[likely]
    logits = F.interpolate(logits[likely][:, None].float(), crop.size, mode="bilinear", align_corners=False)[:, 0]
    firm = stability(logits, model.mask_threshold, settings.stability_score_offset) > settings.stability_score_thresh
    masks = logits[firm] > model.mask_threshold
    found = Found(masks, scores[firm].float(), boxes_of(masks).float())
    return found[~_cut_off(found.boxes, crop, shape)]


def _cut_off(boxes: Tensor, crop: Crop, shape: Sequence[int]) -> Tensor:
    """Which boxes touch a border of the crop that is no border of the picture."""
    offset = boxes.new_tensor([crop.box[0], crop.box[1], crop.box[0], crop.box[1]])
    at = boxes + offset
    near_crop = (at - boxes.new_tensor(crop.box)).abs() <= EDGE
    near_edge = (at - boxes.new_tensor([0, 0, shape[1], shape[0]])).abs() <= EDGE
    return (near_crop & ~near_edge).any(1)


def _without_specks(found: Found, view: View, settings: Settings) -> Found:
    """Fill holes and drop islands below an area given in pixels of the picture."""
    if settings.min_mask_region_area <= 0 or not len(found.scores):
        return found
    area = settings.min_mask_region_area * view.gains[0] * view.gains[1]
    masks, keep = remove_small_regions(found.masks, area, max(settings.iou, settings.crop_nms_thresh))
    return Found(masks, found.scores[keep], boxes_of(masks).float())
