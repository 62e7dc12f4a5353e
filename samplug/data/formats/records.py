"""What labels are made of: an image or frame, and its objects with their masks as run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch

from samplug.masks.boxes import mask_box
from samplug.masks.iou import box_iou
from samplug.masks.rle import rle_decode, rle_encode

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ObjectRecord:
    """One object on one image.

    Attributes:
        cls: class number.
        name: class name.
        box: xyxy around the mask, in pixels.
        rle: the mask as COCO's run lengths {"size": [H, W], "counts": text}; empty where labels have a box alone.
        iou: predicted IoU, 0 to 1.
        stability: IoU of the masks at two thresholds around the network's, 0 to 1; None where it is not known.
        presence: logit, in videos; None on images.
        area: pixels.
        prompt_box: the box that the object was prompted with, or None.
        agreement: IoU of both boxes, None without a prompt's.
        id: number of the object in its video; None on images.
        parts: number of its separate regions.
    """

    cls: int
    name: str
    box: Box
    rle: dict[str, Any]
    iou: float
    area: int
    stability: float | None = None
    presence: float | None = None
    prompt_box: Box | None = None
    agreement: float | None = None
    id: int | None = None
    parts: int = 1

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        return rle_decode(self.rle)

    @classmethod
    def of_mask(cls, mask: np.ndarray, number: int, name: str, iou: float = 1.0, **given: Any) -> ObjectRecord:
        """An object from its mask (H, W) bool."""
        around = mask_box(torch.from_numpy(mask))
        left, top, right, bottom = around or (0, 0, -1, -1)
        inside = mask[top : bottom + 1, left : right + 1] if around else mask[:0]
        parts = cv2.connectedComponents(inside.astype(np.uint8))[0] - 1 if around else 0
        box = (float(left), float(top), float(right + 1), float(bottom + 1))
        return cls(number, name, box, rle_encode(mask), iou, int(inside.sum()), parts=parts, **given)

    @classmethod
    def of_box(cls, box: Sequence[float], number: int, name: str, **given: Any) -> ObjectRecord:
        """An object of which only the box is known."""
        left, top, right, bottom = map(float, box)
        return cls(number, name, (left, top, right, bottom), {}, 1.0, 0, **given)

    def prompted(self, box: Sequence[float]) -> ObjectRecord:
        """The same with the box of its prompt; that both differ is the cheapest sign of a wrong mask."""
        left, top, right, bottom = (round(float(side), 2) for side in box)  # hundredths of a pixel
        given = left, top, right, bottom
        agreement = box_iou(*torch.tensor([[self.box], [given]], dtype=torch.float64)).item()
        return replace(self, prompt_box=given, agreement=round(agreement, 4))


@dataclass(frozen=True)
class ImageRecord:
    """One image, or one frame of a video, and its objects; without any if it was looked at and nothing found.

    Attributes:
        source: name of the image or video in the job.
        size: (H, W); (0, 0) if it could not be read.
        frame: number in its video from 0; None for an image.
        objects: in the order of the prompts.
        error: why it could not be annotated; empty if it was.
    """

    source: str
    size: tuple[int, int] = (0, 0)
    frame: int | None = None
    objects: tuple[ObjectRecord, ...] = field(default=())
    error: str = ""

    def with_objects(self, objects: Sequence[ObjectRecord]) -> ImageRecord:
        """The same image with other objects."""
        return replace(self, objects=tuple(objects))
