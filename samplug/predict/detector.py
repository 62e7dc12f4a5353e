"""`prompter=`: a detector whose detections are prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug import host
from samplug.arguments import EVERYTHING, OWN
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.load import load_model
from samplug.errors import CheckpointError, one_line, reject
from samplug.host import LOGGER, BasePredictor, Model
from samplug.masks.iou import distinct_masks
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.prompts.coords import describe, to_numpy
from samplug.prompts.objects import Prompts
from samplug.prompts.per_frame import has_int_keys, join_objects, read_frame, split_objects
from samplug.transforms import Size

Images = Sequence[np.ndarray]
Detect = Callable[[Images], Sequence[Any]]
MAX_OBJECTS = 32  # tracked where everything is: each takes memory, and time on every frame
SHARED_OPTIONS = ("resize", "bf16", "channels_last", "threads")  # everything mode runs as the tracker does
SHARED_HOST_OPTIONS = ("imgsz", "device", "half", "quantize", "iou")
PREDICT_OPTIONS = {"mode": "predict", "conf": 0.25, "batch": 1, "rect": True, "save": False, "verbose": False}


class Detector:
    """Detects objects and gives them as prompts.

    Args:
        given: a model of Ultralytics; a model of samplug, which then segments everything; the file or name of either; a
            dict of one of these as "model" and arguments for its `predict` (`conf`, `classes`, `imgsz`, …); or a
            function of a BGR image (H, W, 3) that returns boxes (N, 4) xyxy in its pixels, a `Results`, or what
            `prompts=` takes. {obj_id: prompts} sets the ids itself.
        predictor: the class that runs a model of samplug.
        device: where a model runs, unless `given` sets it.

    Raises:
        TypeError: `given` is none of these.
    """

    def __init__(self, given: Any, predictor: type[BasePredictor], device: Any = None) -> None:
        self._detect = detect_function(given, predictor, device)

    def detect(self, images: Images) -> list[list[Prompts]]:
        """Detect the objects of each image, a `Prompts` an object, with `ids` where the detector sets them."""
        with torch.inference_mode(False), torch.no_grad():  # a model of the user's outlives this run
            found = self._detect(images)
        return [parse_detections(few, image.shape[:2]) for few, image in zip(found, images, strict=True)]

    def prompts_of(self, images: Images, given: Sequence[Prompts]) -> list[Prompts]:
        """Detect the objects of images that have no prompts of their own; PromptError where they have."""
        if any(prompts.given for prompts in given):
            reject("prompter", "came together with prompts", "one of the two for images, which are each by itself")
        return [join_objects(few) for few in self.detect(images)]


def detect_function(given: Any, predictor: type[BasePredictor], device: Any = None) -> Detect:
    """A function of several images, from anything that `prompter=` takes."""
    settings = dict(given) if isinstance(given, dict) else {}
    model = settings.pop("model", None) if isinstance(given, dict) else given
    if isinstance(model, str | Path):
        model = load_detector(str(model))
    if isinstance(model, Model | SAMModel | SAM2Model):
        return model_detect_function(model, predictor, {"device": device, **settings})
    if callable(model) and not settings:
        return lambda images: [model(image) for image in images]
    raise TypeError(
        f"prompter={given!r:.80}. Expected a YOLO model or its file, a dict {{'model': one of these, …arguments of its "
        "predict}, or a function."
    )


def load_detector(path: str) -> Model | SAMModel | SAM2Model:
    """Load a file or a name: by us if the file holds one of our networks, else by Ultralytics."""
    try:
        return load_model(path)
    except CheckpointError:
        if Path(path).name.removesuffix(".pt") in VARIANTS:
            raise
    from ultralytics import YOLO

    host.check_yolo_file(path)
    try:
        return YOLO(path)
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:  # a file of neither
        raise CheckpointError(f"Cannot load {path}. {one_line(error)}") from error


def model_detect_function(
    model: Model | SAMModel | SAM2Model, predictor: type[BasePredictor], settings: dict[str, Any]
) -> Detect:
    """Run a model by a predictor of its own: its `predict` returns nothing in a program called `yolo`."""
    kind, network = predictor, model
    if isinstance(model, Model):
        kind, network, settings = model.task_map[model.task]["predictor"], model.model, {**model.overrides, **settings}
    try:
        worker = kind(overrides={**PREDICT_OPTIONS, **settings})
    except (SyntaxError, TypeError, ValueError) as error:
        reject("prompter", one_line(error), "arguments of its predict beside the model")
    worker.setup_model(network, verbose=False)
    if not isinstance(worker, predictor):
        return lambda images: worker(source=list(images))
    return lambda images: [result.boxes.xyxy for result in worker(source=list(images))]  # their classes are counted


class Everything:
    """Segments everything on an image: a function for `Detector`, whose detections are masks.

    The network, Ultralytics' arguments and our options are those of the run in which the objects are tracked;
    `max_objects` of them are taken, best first, and of those that are one object by `iou_match`, one.
    """

    def __init__(
        self, predictor: type[BasePredictor], network: SAMModel | SAM2Model, args: Any, options: dict[str, Any]
    ) -> None:
        host_options = {name: value for name, value in vars(args).items() if name in SHARED_HOST_OPTIONS}
        own_options = {name: options[name] for name in (*EVERYTHING, *SHARED_OPTIONS) if name in options}
        self.max_objects, self._logged = options.get("max_objects") or MAX_OBJECTS, False
        self.iou_match = options.get("iou_match", OWN["iou_match"].default)
        self._worker = predictor(overrides={**PREDICT_OPTIONS, **host_options, "conf": 0.0, **own_options})
        self._worker.setup_model(network, verbose=False)

    def __call__(self, image: np.ndarray) -> dict[str, Tensor] | None:
        """{"masks": (N, H, W)}, or None where there is nothing."""
        (result,) = self._worker(source=[image])
        masks = result.masks.data.cpu()
        kept = distinct_masks(masks, self.iou_match)
        if len(kept) > self.max_objects and not self._logged:
            self._logged = True
            most = self.max_objects
            LOGGER.info(f"{len(kept)} objects were found, the {most} likeliest are followed (max_objects=).")
        return {"masks": masks[kept[: self.max_objects]]} if kept else None


def parse_detections(found: Any, shape: Size) -> list[Prompts]:
    """What was detected on one image (H, W), object by object; PromptError where it cannot be read."""
    if found is None:
        return []
    if has_int_keys(found):
        return read_frame(found, shape)
    if isinstance(found, np.ndarray | Tensor | list | tuple) and not any(hasattr(each, "boxes") for each in found):
        found = {"bboxes": clip_boxes(found, shape)}
    return [replace(one, ids=None) for one in split_objects(Prompts.read(prompts=found, shape=shape))]


def clip_boxes(boxes: Any, shape: Size) -> np.ndarray:
    """Boxes (N, 4) or (4,) clipped to an image (H, W), less those of which nothing is left."""
    boxes = np.asarray(to_numpy(boxes), dtype=np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.shape[-1] != 4 or boxes.ndim > 2:
        reject("prompter", f"it returned {describe(boxes)}", "boxes (N, 4) xyxy, a Results, or what prompts= takes")
    boxes = boxes.reshape(-1, 4).clip(0, (shape[1], shape[0]) * 2)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
