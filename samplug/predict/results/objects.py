"""What the results of objects with ids hold beside their masks: confidence, classes, ids, presence, predicted IoU."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from samplug.host import Results
from samplug.nn.memory.frames import FrameOutput

COUNTABLE = 1 << 16  # Ultralytics counts classes in a table with an entry for each number up to the largest
MARGIN = 1e-6  # how near to 0 and 1 a confidence may come


def video_confidence(output: FrameOutput) -> Tensor:
    """`boxes.conf` (N,) in (0, 1) of the objects of a video: sigmoid(presence) · predicted IoU."""
    return (output.presence.float().sigmoid() * output.iou.float().clamp(0, 1)).clamp(MARGIN, 1 - MARGIN)


def interactive_confidence(output: FrameOutput) -> Tensor:
    """The same of objects found in images: sigmoid(presence), above 0.5 where an object is present."""
    return output.presence.float().sigmoid().clamp(MARGIN, 1 - MARGIN)


def classes_of(
    ids: tuple[int, ...], classes: Mapping[int, int], names: Mapping[int, str]
) -> tuple[tuple[int, ...], dict[int, str]]:
    """The class of each object, and a name for each class: those given, else the id."""
    numbers, own_names = list[int](), dict[int, str]()
    for obj_id in ids:
        number = classes.get(obj_id)
        if number is None:  # its id, or, where that cannot be counted, a number above all others
            number = obj_id if 0 <= obj_id < COUNTABLE else COUNTABLE + obj_id % COUNTABLE
            own_names[number] = str(obj_id)
        own_names.setdefault(number, str(number))
        numbers.append(number)
    return tuple(numbers), own_names | dict(names)


def add_object_fields(result: Results, ids: tuple[int, ...], output: FrameOutput | None, rows: Tensor) -> Results:
    """Store on a result of some rows (K,) of N objects their ids, presence (logit) and predicted IoU."""
    chosen, nothing = rows.tolist(), torch.zeros(0)
    result.obj_ids = tuple(ids[row] for row in chosen)
    result.presence = nothing if output is None else output.presence.float().cpu()[chosen]
    result.iou = nothing if output is None else output.iou.float().cpu()[chosen]
    return result
