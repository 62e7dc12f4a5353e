"""A detector in the loop: whatever finds objects on pictures, its finds as prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.arguments import EVERYTHING
from samplug.checkpoints import load_model
from samplug.host import LOGGER, Model
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.timeline import by_number, one_by_one, read_frame, together
from samplug.prompt_forms import describe, plain, refuse
from samplug.prompts import Prompts
from samplug.variants import VARIANTS, CheckpointError
from samplug.view import Size

Pictures = Sequence[np.ndarray]
Finder = Callable[[Pictures], Sequence[Any]]
MOST = 32  # objects that are followed where everything is: each takes memory, and time on every frame
ALIKE = ("resize", "bf16", "channels_last", "threads")  # arguments by which everything is found as it is followed
ALIKE_OF_HOST = ("imgsz", "device", "half", "quantize", "iou")
AS_PREDICT = {"mode": "predict", "conf": 0.25, "batch": 1, "rect": True, "save": False, "verbose": False}
ACCEPTED = "a YOLO model or its file, a dict {'model': one of these, …arguments of its predict}, or a function"


class Prompter:
    """Finds the objects of pictures.

    Args:
        given: a model of Ultralytics; a model of samplug, which then segments everything; the file or name of either; a
            dict of one of these as "model" and arguments for its `predict` (`conf`, `classes`, `imgsz`, …); or a
            function of a BGR picture (H, W, 3) that returns boxes (N, 4) xyxy in its pixels, a `Results`, or what
            `prompts=` takes. {obj_id: prompts} names the objects itself.
        device: where a model runs that does not say so itself.

    Raises:
        TypeError: it is none of these.
    """

    def __init__(self, given: Any, device: Any = None) -> None:
        self._find = finder_of(given, device)

    def look(self, pictures: Pictures) -> list[list[Prompts]]:
        """Find the objects of each picture, each by itself; those with `ids` were named by whoever found them."""
        with torch.inference_mode(False), torch.no_grad():  # a model of the user's outlives this run
            answers = self._find(pictures)
        return [read_finds(found, picture.shape[:2]) for found, picture in zip(answers, pictures, strict=True)]

    def prompts_of(self, pictures: Pictures, given: Sequence[Prompts]) -> list[Prompts]:
        """Find the objects of pictures that have no prompts of their own.

        Raises:
            PromptError: they have.
        """
        if any(prompts.given for prompts in given):
            refuse("prompter", "came together with prompts", "one of the two for pictures, which are each by itself")
        return [together(few) for few in self.look(pictures)]


def finder_of(given: Any, device: Any = None) -> Finder:
    """Make any of the spellings a function of several pictures."""
    settings = dict(given) if isinstance(given, dict) else {}
    model = settings.pop("model", None) if isinstance(given, dict) else given
    if isinstance(model, str | Path):
        model = opened(str(model))
    if isinstance(model, Model | SAMModel | SAM2Model):
        return finder_by_model(model, {"device": device, **settings})
    if callable(model) and not settings:
        return lambda pictures: [model(picture) for picture in pictures]
    raise TypeError(f"prompter={given!r:.80}: give {ACCEPTED}.")


def opened(path: str) -> Model | SAMModel | SAM2Model:
    """Load a file or a name: by us if the file holds one of our networks, else by Ultralytics."""
    try:
        return load_model(path)
    except CheckpointError:
        if Path(path).name.removesuffix(".pt") in VARIANTS:
            raise
    from ultralytics import YOLO

    return YOLO(path)


def finder_by_model(model: Model | SAMModel | SAM2Model, settings: dict[str, Any]) -> Finder:
    """Run a model by a predictor of its own: its `predict` returns nothing in a program called `yolo`."""
    from samplug.predict.image import Predictor
    from samplug.predict.sam2 import SAM2Predictor

    if isinstance(model, Model):
        kind, network, settings = model.task_map[model.task]["predictor"], model.model, {**model.overrides, **settings}
    else:
        kind, network = SAM2Predictor if isinstance(model, SAM2Model) else Predictor, model
    worker = kind(overrides={**AS_PREDICT, **settings})
    worker.setup_model(network, verbose=False)
    if not isinstance(worker, Predictor):
        return lambda pictures: worker(source=list(pictures))
    return lambda pictures: [found.boxes.xyxy for found in worker(source=list(pictures))]  # their classes are counted


class Everything:
    """Finds everything on a picture: a function for `Prompter`, whose finds are masks.

    Args:
        network: the network that follows the finds.
        args: the arguments of Ultralytics of the run in which they are followed.
        said: our own, among them those of everything mode, and `max_objects`: how many are taken, the likeliest first.
    """

    def __init__(self, network: SAMModel | SAM2Model, args: Any, said: dict[str, Any]) -> None:
        from samplug.predict.sam2 import SAM2Predictor

        theirs = {name: value for name, value in vars(args).items() if name in ALIKE_OF_HOST}
        ours = {name: said[name] for name in (*EVERYTHING, *ALIKE) if name in said}
        self.most, self._said = said.get("max_objects") or MOST, False
        self._worker = SAM2Predictor(overrides={**AS_PREDICT, **theirs, "conf": 0.0, **ours})
        self._worker.setup_model(network, verbose=False)

    def __call__(self, picture: np.ndarray) -> dict[str, Tensor] | None:
        """{"masks": (N, H, W)}, or None where there is nothing."""
        (found,) = self._worker(source=[picture])
        if len(found) > self.most and not self._said:
            self._said = True
            LOGGER.info(f"{len(found)} objects were found, the {self.most} likeliest are followed (max_objects=).")
        return {"masks": found.masks.data[: self.most].cpu()} if len(found) else None


def read_finds(found: Any, shape: Size) -> list[Prompts]:
    """What was found on one picture (H, W), object by object.

    Raises:
        PromptError: it cannot be read.
    """
    if found is None:
        return []
    if by_number(found):
        return read_frame(found, shape)
    if isinstance(found, np.ndarray | Tensor | list | tuple) and not any(hasattr(each, "boxes") for each in found):
        found = {"bboxes": within(found, shape)}
    return [replace(one, ids=None) for one in one_by_one(Prompts.read(prompts=found, shape=shape))]


def within(boxes: Any, shape: Size) -> np.ndarray:
    """Boxes (N, 4) or (4,) clipped to a picture (H, W), less those of which nothing is left."""
    boxes = np.asarray(plain(boxes), dtype=np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.shape[-1] != 4 or boxes.ndim > 2:
        refuse("prompter", f"it returned {describe(boxes)}", "boxes (N, 4) xyxy, a Results, or what prompts= takes")
    boxes = boxes.reshape(-1, 4).clip(0, (shape[1], shape[0]) * 2)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
