"""What a detector found on the current frame of a stream: matched with its objects, or added to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samplug.masks.boxes import outer_boxes
from samplug.masks.iou import box_iou, mask_intersections, mask_iou
from samplug.masks.resize import resize_to_image
from samplug.nn.constants import MASK_STRIDE
from samplug.predict.detector import Detector
from samplug.predict.video.stream import VideoStream
from samplug.prompts.objects import Prompt, Prompts
from samplug.tracking import Objects
from samplug.transforms import ImageTransform

INSIDE = 0.8  # of the smaller of two boxes: from here on one lies in the other
COMPARED_SIDE = 1024  # pixels a side at which masks are compared: of larger ones every second, third, …


def detect_objects(prompter: Detector, streams: Iterable[VideoStream], option: Callable[[str], Any]) -> None:
    """Run a detector on the current frames of the streams whose turn it is, and store where objects are.

    Streams without a signal are left out. The options are `prompt_every`, `iou_match` and `max_objects` of the run.
    """
    seeing = [stream for stream in streams if stream.features is not None]
    due = [stream for stream in seeing if detection_is_due(stream, option("prompt_every"))]
    detections = prompter.detect([stream.current_frame.image for stream in due]) if due else []
    for stream, found in zip(due, detections, strict=True):
        add_detections(stream, found, option("iou_match"), option("max_objects"))
    for stream in seeing:
        update_last_boxes(stream)


def detection_is_due(stream: VideoStream, every: int | None) -> bool:
    """Whether the detector runs on the current frame: every so many, or until it has found something."""
    return not stream.any_detected if every is None else (stream.tracked_frames - 1) % every == 0


def add_detections(
    stream: VideoStream, detections: Sequence[Prompts], iou_match: float, max_objects: int | None = None
) -> None:
    """Match detections on the current frame with the objects tracked there.

    Those with ids prompt these objects. Of the others, one that matches a tracked object gives it its class at most;
    one that matches an object that was lost or has drifted prompts it without memory; a new one gets the next free id.
    New ones beyond `max_objects` at once are left out, the last first. One that was found here and is lost gives its
    place to a new one, the one lost longest first.
    """
    stream.any_detected |= bool(detections)
    transform, objects = stream.current_frame.transform, stream.objects
    unnamed = [each for each in detections if each.ids is None]
    matches = match_detections([each.objects[0] for each in unnamed], objects, stream.last_boxes, transform, iou_match)
    for i, row in (matches.tracked | matches.recovered).items():
        classify(stream, objects.ids[row], unnamed[i])
    prompted = [stream.prompt(each, transform) for each in detections if each.ids is not None]
    for i, row in matches.recovered.items():
        again = replace(unnamed[i], ids=(objects.ids[row],), cls=None)
        prompted.append(stream.prompt(again, transform, without_memory=True))
    lost = lost_objects(stream, {objects.ids[row] for row in matches.recovered.values()})
    most = len(stream.tracker.ids) + len(matches.new) if max_objects is None else max_objects
    for i in matches.new[: max(0, most - len(stream.tracker.ids) + len(lost))]:
        if len(stream.tracker.ids) >= most:
            stream.remove(lost.pop(0))
        new_id = 1 + max(stream.max_id, *stream.prompts.ids, -1)
        stream.detected.add(new_id)
        prompted.append(stream.prompt(replace(unnamed[i], ids=(new_id,)), transform))
    if prompted:
        stream.objects = stream.tracker.step()


def lost_objects(stream: VideoStream, found_again: Collection[int]) -> list[int]:
    """The detected objects that are not to be seen on the current frame, the one lost longest first."""
    visible = {*visible_objects(stream)[0], *found_again}
    ids = [obj_id for obj_id in stream.tracker.ids if obj_id in stream.detected and obj_id not in visible]
    order = {obj_id: i for i, obj_id in enumerate(stream.last_boxes)}
    return sorted(ids, key=lambda obj_id: order.get(obj_id, -1))


def visible_objects(stream: VideoStream) -> tuple[list[int], Tensor]:
    """The N objects that have a pixel on the current frame, and their masks (N, h, w) at the network's resolution."""
    if stream.objects.output is None:
        return [], torch.zeros(0, 1, 1, dtype=torch.bool)
    logits = stream.objects.output.logits
    covered = stream.current_frame.transform.content_in((logits.shape[1], logits.shape[2]))
    height, width = map(math.ceil, covered)
    masks = logits[:, :height, :width] > 0  # less the padding
    visible = masks.flatten(1).any(1)
    return [each for each, ok in zip(stream.objects.ids, visible.tolist(), strict=True) if ok], masks[visible]


def classify(stream: VideoStream, obj_id: int, detection: Prompts) -> None:
    """Give an object that has no class the one of a detection."""
    if detection.cls is not None:
        stream.classes.setdefault(obj_id, detection.cls[0])
    stream.names |= detection.names or {}


def update_last_boxes(stream: VideoStream) -> None:
    """Store the box of each object that is visible on the current frame, behind those of objects seen before."""
    ids, masks = visible_objects(stream)
    boxes = stream.current_frame.transform.boxes_to_image(outer_boxes(masks) * MASK_STRIDE).cpu()
    before = {obj_id: box for obj_id, box in stream.last_boxes.items() if obj_id not in ids}
    stream.last_boxes = before | dict(zip(ids, boxes, strict=True))


# Which detections are objects that are tracked already


@dataclass(frozen=True)
class Matches:
    """F detections matched with N objects, by their indices; a detection in none of the three is a duplicate."""

    tracked: dict[int, int]  # detection → the object that is tracked there
    recovered: dict[int, int]  # detection → the object that it prompts again, one that was lost or has drifted
    new: list[int]  # detections that are no object yet


def match_detections(
    detections: Sequence[Prompt],
    objects: Objects,
    last_boxes: Mapping[int, Tensor],
    transform: ImageTransform,
    iou_match: float,
) -> Matches:
    """Match F detections with N objects of a frame: masks by pixels, boxes by area, clicks by the masks they hit.

    Lost objects are matched by where they were last, (4,) xyxy by id.
    """
    masks = torch.zeros(0, *transform.image_size, dtype=torch.bool)
    if objects.output is not None:
        masks = resize_to_image(objects.output.logits, transform).cpu()
    boxes, tracked_boxes = detection_boxes(detections), outer_boxes(masks)
    lost = (tracked_boxes[:, 2] == tracked_boxes[:, 0]).float()
    last = [last_boxes.get(obj_id, torch.zeros(4)) for obj_id in objects.ids]
    last_iou = box_iou(boxes, torch.stack(last)) * lost if last else torch.zeros(len(detections), 0)
    if detections and all(detection.mask is not None for detection in detections):
        step = math.ceil(max(transform.image_size) / COMPARED_SIDE)
        found = torch.stack([each.mask[::step, ::step] > 0 for each in detections if each.mask is not None]).cpu()
        masks = masks[:, ::step, ::step]
        return match(mask_iou(found, masks), nested_masks(found, masks), last_iou, mask_iou(found, found), iou_match)
    iou = torch.maximum(box_iou(boxes, tracked_boxes), clicks_inside(detections, masks))
    return match(iou, nested_boxes(boxes, tracked_boxes), last_iou, box_iou(boxes, boxes), iou_match)


def match(iou: Tensor, nested: Tensor, last_iou: Tensor, self_iou: Tensor, iou_match: float) -> Matches:
    """Decide, the largest IoU first.

    1. A detection that reaches `iou_match` with an object is that object; others that reach it are duplicates.
    2. A detection in the place where a lost object was last, or one that reaches half of `iou_match` with an object
       without a detection and lies inside it or around it, prompts it again: the mask had shrunk to a part, or grown
       beyond the object.
    3. Any other detection is new, unless it reaches `iou_match` with one before it.

    `iou` (F, N) is with the objects where they are, 0 with lost ones; `nested` (F, N) whether one lies in the other;
    `last_iou` with lost objects where they were last, 0 with the others; `self_iou` (F, F) of the detections.
    """
    tracked = pairs(iou, iou_match)
    known = (iou >= iou_match).any(1)
    free = torch.ones_like(iou)
    free[:, list(tracked.values())] = 0
    free[known] = 0
    recovered = pairs(torch.maximum(iou * nested, last_iou * (last_iou >= iou_match)) * free, iou_match / 2)
    new: list[int] = []
    for i in (~known).nonzero()[:, 0].tolist():
        if i not in recovered and not (self_iou[i, [*recovered, *new]] >= iou_match).any():
            new.append(i)
    return Matches(tracked, recovered, new)


def pairs(iou: Tensor, threshold: float) -> dict[int, int]:
    """Row → column where (F, N) reaches a threshold, the largest first, each row and column once."""
    rows, columns = ((iou >= threshold) & (iou > 0)).nonzero(as_tuple=True)
    order = iou[rows, columns].argsort(descending=True, stable=True)
    chosen: dict[int, int] = {}
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in chosen and column not in chosen.values():
            chosen[row] = column
    return chosen


def detection_boxes(detections: Sequence[Prompt]) -> Tensor:
    """(F, 4) xyxy: each detection's box, or that of its mask; without area for clicks alone."""
    boxes = [each.box if each.mask is None else outer_boxes(each.mask[None] > 0)[0] for each in detections]
    return torch.stack([torch.zeros(4) if box is None else box for box in boxes]) if boxes else torch.zeros(0, 4)


def nested_boxes(a: Tensor, b: Tensor) -> Tensor:
    """(F, N) whether one of two boxes (F, 4) and (N, 4) xyxy lies in the other, nearly or wholly."""
    corner = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    areas, others = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return corner.clamp(min=0).prod(-1) >= INSIDE * torch.minimum(areas[:, None], others).clamp(min=1e-9)


def nested_masks(a: Tensor, b: Tensor) -> Tensor:
    """The same of bool masks (F, H, W) and (N, H, W)."""
    areas, others = (masks.flatten(1).sum(1) for masks in (a, b))
    return mask_intersections(a, b) >= INSIDE * torch.minimum(areas[:, None], others).clamp(min=1)


def clicks_inside(detections: Sequence[Prompt], masks: Tensor) -> Tensor:
    """(F, N) the share of a detection's clicks on the object that lie in each mask (N, H, W); 0 for boxes and masks."""
    table = torch.zeros(len(detections), len(masks))
    for i, each in enumerate(detections):
        on = each.points[each.labels > 0].long()
        if each.box is None and each.mask is None and len(on) and len(masks):
            columns, rows = on[:, 0].clamp(max=masks.shape[2] - 1), on[:, 1].clamp(max=masks.shape[1] - 1)
            table[i] = masks[:, rows, columns].float().mean(1).cpu()
    return table
