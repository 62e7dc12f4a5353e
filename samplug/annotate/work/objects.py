"""Predictors of a job, and prompts as they take them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from samplug.annotate.settings import Settings
from samplug.errors import JobError, one_line
from samplug.host import Results
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor
from samplug.predict.results.labels import OBJECT
from samplug.prompts.objects import Prompts


def make_predictor(
    kind: type[Predictor], settings: Settings, model: SAMModel | SAM2Model, options: dict[str, Any]
) -> Any:
    """A predictor of a class with the settings of the job and some options, that runs this network."""
    host = {"imgsz": settings.imgsz, "device": settings.device, "batch": settings.batch}
    host |= {"half": True} if settings.half else {}
    given = {"mode": "predict", "save": False, "verbose": False, "conf": 0.0, "bf16": settings.bf16, **options, **host}
    try:
        made = kind(overrides={name: value for name, value in given.items() if value is not None})
        made.setup_model(model, verbose=False)
    except ValueError as error:  # a device that is not there
        raise JobError(one_line(error)) from error
    return made


def with_classes(prompts: Prompts) -> Prompts:
    """Prompts of an image whose objects have classes: `object` where nobody gave any."""
    given: dict[str, Any] = {"cls": (0,) * len(prompts), "names": {0: OBJECT}} if prompts.cls is None else {}
    return replace(prompts, ids=None, **given)


def prompt_boxes(prompts: Prompts | None, result: Results) -> list[list[float] | None] | None:
    """The prompt's box of each row of a result."""
    if prompts is None:
        return None
    boxes = [prompts.objects[int(i)].box for i in result.prompt_index]
    return [None if box is None else box.tolist() for box in boxes]
