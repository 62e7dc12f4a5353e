"""Prompts of a small image as plain values, and a detector's results on it."""

import numpy as np
import torch
from ultralytics.engine.results import Boxes, Results

from samplug.prompts.per_image import ImagePrompts
from samplug.prompts.raw import RawPrompts

SHAPE = (48, 64)  # an image 64 wide and 48 high
MASK = np.zeros(SHAPE, bool)
MASK[10:20, 5:30] = True
XYXYS = [[1, 2, 30, 40], [5, 6, 9, 9]]


def click(*points, labels=None, box=None, mask=None):
    """What one object should read as: points, labels, box, mask."""
    return [list(map(float, p)) for p in points], labels or [1] * len(points), box, mask


def read(prompts):
    """What was read, as plain values in the form of `click`."""
    return [
        (
            o.points.tolist(),
            o.labels.tolist(),
            None if o.box is None else o.box.tolist(),
            None if o.mask is None else (o.mask > 0).numpy(),
        )
        for o in prompts.objects
    ]


def same(left, right):
    masks = [(a[3], b[3]) for a, b in zip(left, right, strict=True)]
    return [a[:3] for a in left] == [b[:3] for b in right] and all(
        (a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in masks
    )


def yolo_boxes(rows=XYXYS, **kind):
    return Boxes(torch.tensor([[*row, 0.9, i + 3] for i, row in enumerate(rows)]).reshape(-1, 6), SHAPE)


def tracked_boxes():
    return Boxes(torch.tensor([[*row, 11 + i, 0.9, i + 3] for i, row in enumerate(XYXYS)]), SHAPE)


def results(**fields):
    image = np.zeros((*SHAPE, 3), np.uint8)
    return Results(image, "a.jpg", {3: "cat", 4: "dog"}, **fields)


def per_image(count, files, shapes=None, **raw):
    """The prompts of all images of a batch."""
    images = ImagePrompts(RawPrompts(**raw), count)
    images.check_files(files)
    rows = zip(files, shapes or [None] * count, strict=True)
    return [images.for_image(i, file, shape) for i, (file, shape) in enumerate(rows)]
