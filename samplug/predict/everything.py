"""Segment everything: a grid of clicks, three masks each, what survives the filters (arXiv 2304.02643, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.predict.cutouts import Cutout, Cutouts
from samplug.predict.finite import check_finite
from samplug.predict.grounds import Ground, InInput, Window, crops, grid_of
from samplug.predict.specks import without_specks
from samplug.raster import Patch, Raster
from samplug.tracking.parts import InSlices
from samplug.view import View

# By whose rules, and whether the network is a SAM 2: how pictures are fitted, and what the defaults are instead.
FITTING = {("meta", True): "stretch", ("meta", False): "pad"}
BY_RULES: dict[tuple[str, bool], dict[str, Any]] = {
    ("meta", True): {"conf_thres": 0.8, "stability_score_offset": 1.0},
    ("meta", False): {"stability_score_offset": 1.0},
}
# Networks whose predicted IoU and stability run lower than those of Meta's.
BY_NETWORK: dict[str, dict[str, Any]] = {"samplug-nano": {"conf_thres": 0.5, "stability_score_thresh": 0.8}}
CLICKS_ELSEWHERE = 256  # answered in one call on a device that is no CPU
EDGE = 20.0  # pixels; a mask that touches a crop's inner border this closely is cut off there


@dataclass(frozen=True)
class Settings:
    """The arguments of `Predictor.generate`, under its names; and of the host, `iou` for the NMS inside a crop.

    `rules` is explained at `samplug.arguments.OWN`, `conf` leaves out masks with a score not above it before small
    regions are removed.
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

    def grid_of(self, layer: int) -> np.ndarray:
        """The clicks of a layer of crops, (P, 2) xy in 0-1."""
        if self.point_grids is not None:
            return np.asarray(self.point_grids[layer], dtype=np.float64).reshape(-1, 2)
        return grid_of(max(1, int(self.points_stride / self.crop_downscale_factor**layer)))

    def in_slices(self, count: int, work: Callable[[slice], None]) -> None:
        """Do work on so many clicks, `points_batch_size` at a time."""
        for start in range(0, count, self.points_batch_size):
            work(slice(start, min(start + self.points_batch_size, count)))

    def likely(self, scores: Tensor) -> Tensor:
        """Which predicted IoUs are high enough; Meta's rule takes a threshold of 0 for none."""
        if self.rules == "meta" and self.conf_thres <= 0:
            return torch.ones_like(scores, dtype=torch.bool)
        return scores > self.conf_thres

    def firm(self, stability: Tensor) -> Tensor:
        """Which masks are stable enough: above the threshold, or at it too by Meta's rule, where 0 stands for none."""
        if self.rules != "meta":
            return stability > self.stability_score_thresh
        if self.stability_score_thresh <= 0:
            return torch.ones_like(stability, dtype=torch.bool)
        return stability >= self.stability_score_thresh


def defaults(model: SAMModel | SAM2Model, rules: str, device: torch.device) -> dict[str, Any]:
    """What the arguments are where nobody says, as far as that is not `Settings`' own."""
    at_once = {} if device.type == "cpu" else {"points_batch_size": CLICKS_ELSEWHERE}
    by_rules = BY_RULES.get((rules, isinstance(model, SAM2Model)), {})
    return {**at_once, **by_rules, **BY_NETWORK.get(model.variant, {})}


@dataclass(frozen=True, eq=False)
class Candidates:
    """N masks of one window, each as the part of the network's answer that it is made of.

    Attributes:
        patches: N of those parts.
        scores: (N,) float32, predicted IoU.
        stability: (N,) float32.
        boxes: (N, 4) float32 xyxy in pixels of the frame, the first and last that are on.
    """

    patches: list[Patch]
    scores: Tensor
    stability: Tensor
    boxes: Tensor

    def __getitem__(self, index: Tensor) -> Candidates:
        """The chosen ones, by numbers (K,)."""
        patches = [self.patches[i] for i in index.tolist()]
        return Candidates(patches, self.scores[index], self.stability[index], self.boxes[index])

    @staticmethod
    def cat(parts: Sequence[Candidates]) -> Candidates:
        """Join, in order."""
        columns = (torch.cat([getattr(part, name) for part in parts]) for name in ("scores", "stability", "boxes"))
        return Candidates([patch for part in parts for patch in part.patches], *columns)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found on one picture.

    Attributes:
        cutouts: N masks, in pixels of the ground's frame.
        scores: (N,) float32, predicted IoU.
        stability: (N,) float32.
        boxes: (N, 4) float32 xyxy, the first and last pixels that are on.
    """

    cutouts: Cutouts
    scores: Tensor
    stability: Tensor
    boxes: Tensor

    @property
    def masks(self) -> Tensor:
        """(N, H, W) bool."""
        return self.cutouts.whole()


def segment_everything(
    model: SAMModel | SAM2Model, im: Tensor, view: View, settings: Settings, features: Features | None
) -> Found:
    """Find the masks of one picture in the network's input, as Ultralytics does.

    Args:
        model: one of our networks.
        im: (1, 3, h, w), the network's normalised input.
        view: how the picture lies in it.
        settings: grids, crops and thresholds.
        features: those of `im` when they are known already.
    """
    return search(model, InInput(im, view), settings, features)


def search(
    model: SAMModel | SAM2Model,
    ground: Ground,
    settings: Settings,
    features: Features | None = None,
    in_slices: InSlices | None = None,
) -> Found:
    """Find the masks of one picture.

    Args:
        model: one of our networks.
        ground: the picture, and the pixels in which it is judged.
        settings: grids, crops and thresholds.
        features: those of the whole picture when they are known already.
        in_slices: how many clicks are answered together: does some work on 0 … count - 1, a slice at a time; left out:
            `points_batch_size` of them.

    Returns:
        Masks, the likeliest of a crop first, those of smaller crops before those of larger ones.
    """
    windows = crops(ground.frame, settings.crop_n_layers, settings.crop_overlap_ratio)
    looks = [Look(model, ground, window, settings, in_slices) for window in windows if ground.shown(window)]
    parts = [look.candidates(None if look.window.layer else features) for look in looks]
    found = Candidates.cat(parts)
    owner = torch.repeat_interleave(torch.tensor([len(part.patches) for part in parts]))
    if len(windows) > 1:
        small = torch.tensor([1 / math.prod(look.window.size) for look in looks])
        keep = nms(found.boxes, small[owner].to(found.boxes), settings.crop_nms_thresh)
        found, owner = found[keep], owner[keep.cpu()]
    items = [looks[i].cut_out(patch) for i, patch in zip(owner.tolist(), found.patches, strict=True)]
    cutouts = Cutouts(items, ground.frame, found.boxes.device)
    return tidied(Found(cutouts, found.scores, found.stability, found.boxes), ground, settings)


def tidied(found: Found, ground: Ground, settings: Settings) -> Found:
    """Fill small holes, drop small islands, and drop what has become a duplicate by that."""
    if settings.min_mask_region_area <= 0:
        return found
    if settings.conf is not None:
        found = rows(found, (found.scores > settings.conf).nonzero()[:, 0])
    area = ground.area(settings.min_mask_region_area)
    cutouts, boxes, keep = without_specks(found.cutouts, area, max(settings.iou, settings.crop_nms_thresh))
    return replace(rows(found, keep), cutouts=cutouts, boxes=boxes.to(found.boxes))


def rows(found: Found, index: Tensor) -> Found:
    """The chosen masks, by numbers (K,)."""
    return Found(found.cutouts[index], found.scores[index], found.stability[index], found.boxes[index])


class Look:
    """One window, seen by the network: its clicks, and what they find.

    Args:
        whole: masks that are cut off by the window's borders are left out.

    Attributes:
        window: the window.
    """

    def __init__(
        self,
        model: SAMModel | SAM2Model,
        ground: Ground,
        window: Window,
        settings: Settings,
        in_slices: InSlices | None = None,
        whole: bool = True,
    ) -> None:
        self._whole = whole
        self.model, self.ground, self.window, self.settings = model, ground, window, settings
        self.in_slices = in_slices or settings.in_slices
        self._raster: Raster | None = None

    def candidates(self, features: Features | None = None) -> Candidates:
        """What the clicks of its layer's grid find, less duplicates; `features` where the window's are known."""
        if features is None:
            features = self.model.encode(self.ground.input(self.window))
        height, width = features.grid
        self._raster = self.ground.raster(self.window, (4 * height, 4 * width))
        clicks = self.ground.clicks(self.settings.grid_of(self.window.layer), self.window)
        parts: list[Candidates] = []

        def answer(some: slice) -> None:
            parts.append(self._answers(features, clicks[some]))

        self.in_slices(len(clicks), answer)
        found = Candidates.cat(parts)
        return found[nms(found.boxes, found.scores, self.settings.iou)]

    def _answers(self, features: Features, clicks: Tensor) -> Candidates:
        """Answer some clicks, and keep what is likely, stable and not cut off by the window."""
        assert self._raster is not None
        owner = torch.zeros(len(clicks), dtype=torch.int64, device=clicks.device)
        labels = torch.ones(len(clicks), 1, dtype=torch.int64, device=clicks.device)
        prompts = PromptBatch(owner, points=clicks[:, None], labels=labels)
        answer = self.model.answer(features, prompts, multimask=True, worth=self._promising)
        logits, scores = answer.logits.flatten(0, 1), answer.iou.flatten(0, 1).float()
        likely = self.settings.likely(scores).nonzero()[:, 0]
        logits, scores = logits[likely], scores[likely]
        check_finite(self.model, features.image, answer.iou, logits)
        threshold = self.model.mask_threshold
        survey = self._raster.survey(logits, threshold, self.settings.stability_score_offset)
        boxes = survey.boxes + survey.boxes.new_tensor(self.window.box[:2] * 2)
        firm = (self.settings.firm(survey.stability) & ~(self._whole & self._cut_off(boxes))).nonzero()[:, 0]
        patches = [self._raster.patch(logits[i], threshold) for i in firm.tolist()]
        return Candidates(patches, scores[firm], survey.stability[firm], boxes[firm])

    def _promising(self, overlaps: Tensor) -> Tensor:
        """Which clicks have a likely mask, by their predicted overlaps (N, M), or an answer that must be reported."""
        return (self.settings.likely(overlaps.float()) | ~overlaps.isfinite()).any(1)

    def _cut_off(self, boxes: Tensor) -> Tensor:
        """Which boxes touch a border of the window that is no border of the frame."""
        height, width = self.ground.frame
        near_window = (boxes - boxes.new_tensor(self.window.box)).abs() <= EDGE
        near_edge = (boxes - boxes.new_tensor([0, 0, width, height])).abs() <= EDGE
        return (near_window & ~near_edge).any(1)

    def cut_out(self, patch: Patch) -> Cutout:
        """The mask of one of its candidates, in the frame."""
        assert self._raster is not None
        pixels, top, left = self._raster.draw(patch, self.model.mask_threshold)
        return Cutout.of(pixels, top + self.window.box[1], left + self.window.box[0], self.ground.frame)
