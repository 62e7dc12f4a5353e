"""Where the objects are: a detector, labels that exist, prompts in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samplug.annotate.plan import PLAN, Source
from samplug.data.formats import read_labels
from samplug.data.label_boxes import LabelBoxes, has_namesake
from samplug.errors import CheckpointError, JobError, one_line
from samplug.host import BasePredictor
from samplug.predict.detector import Detector
from samplug.prompts.objects import Prompts
from samplug.prompts.per_frame import join_objects
from samplug.prompts.per_image import ImagePrompts
from samplug.prompts.raw import RawPrompts, from_json
from samplug.transforms import Size

Prompter = Callable[[Sequence[np.ndarray], Sequence[Source]], list[Prompts]]  # of BGR images (H, W, 3), from files
TABLES = (".txt", ".csv")  # one label, or a list: not what a prompter is made of
TAKES = (
    "a YOLO's file, a folder of YOLO's labels, a data.yaml, labels of COCO, CVAT, Label Studio or Datumaro, "
    "or prompts.json"
)
Find = Callable[[Source, Size], Prompts]  # of one image (H, W)


def prompter_of(given: Any, predictor: type[BasePredictor], device: Any, conf: float) -> Prompter | None:
    """A prompter from whatever `prompter=` takes; None for everything.

    Raises:
        JobError: a file or folder that holds neither labels nor prompts.
    """
    if given is None:
        return None
    path = Path(given) if isinstance(given, str | Path) else None
    find = None if path is None else prompts_in(path)
    if find is not None:
        return lambda images, sources: [
            find(source, image.shape[:2]) for source, image in zip(sources, images, strict=True)
        ]
    detector = Detector(given, predictor, device) if path is None else detector_of(given, predictor, device, conf)
    return lambda images, sources: [join_objects(found) for found in detector.detect(images)]


def detector_of(given: str | Path, predictor: type[BasePredictor], device: Any, conf: float) -> Detector:
    """The detector in a file, or by its name; JobError where it is none, for it may be a mistyped folder of labels."""
    try:
        return Detector({"model": given, "conf": conf}, predictor, device)
    except (CheckpointError, TypeError) as error:  # a TypeError of Ultralytics: of a file that it does not know
        raise JobError(f"prompter={given}: {one_line(error).rstrip('.')}. Expected {TAKES}.") from error


def check_prompter(given: Any) -> None:
    """Refuse a single label, or a table, before the work begins: JobError."""
    if isinstance(given, str | Path) and Path(given).suffix.lower() in TABLES and not Path(given).is_dir():
        raise JobError(f"prompter={given} is no detector. Expected {TAKES}.")


def prompts_in(path: Path) -> Find | None:
    """What a file or folder says of images: labels that exist, or prompts by name; None if it is a detector's."""
    content = from_json(path) if path.suffix == ".json" else None
    if content == []:
        raise JobError(f"prompter={path} is an empty list. Expected labels, or prompts by file name.")
    if (records := read_labels(path, content)) is not None:
        return boxes_in(LabelBoxes.of_records(records))
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return boxes_in(LabelBoxes.of_coco(path, content))
    if content is not None:
        return prompts_by_name(content)
    return boxes_in(LabelBoxes.of_yolo(path)) if path.is_dir() or path.suffix in (".yaml", ".yml") else None


def unused_names(prompter: str | Path, sources: Sequence[Source]) -> str:
    """Which prompts by name in a .json belong to none of the sources, in words; "" for any other prompter."""
    path = Path(prompter)
    content = from_json(path) if path.suffix == ".json" and path.is_file() else None
    if not isinstance(content, dict) or "annotations" in content or read_labels(path, content) is not None:
        return ""
    names = [name for source in sources for name in (source.name, source.path)]
    return ImagePrompts(RawPrompts(prompts=content)).unused_files(names)


def label_files(folder: str | Path) -> Iterator[str]:
    """The YOLO labels in a folder and its subfolders, in order; not hidden ones, and not what jobs have written."""
    for place, folders, names in os.walk(folder):
        if PLAN in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if name.endswith(".txt"))


def boxes_in(labels: LabelBoxes) -> Find:
    """The boxes of labels that exist as prompts with their classes."""

    def find(source: Source, size: Size) -> Prompts:
        boxes, classes = labels.boxes_of(source.name, source.path, size)
        return Prompts.read(bboxes=boxes, cls=classes, names=labels.names, shape=size)

    return find


def prompts_by_name(content: Any) -> Find:
    """The prompts under an image's name in the job, else under its path or file name."""
    prompts = ImagePrompts(RawPrompts(prompts=content))
    by_file = prompts.by_file
    if by_file is None:
        raise JobError('prompter=*.json. Expected prompts by file name, {"a.jpg": {"bboxes": …}}, or COCO\'s lists.')

    def find(source: Source, size: Size) -> Prompts:
        if source.name in by_file:
            return prompts.for_image(0, source.name, size)
        if source.path not in by_file and has_namesake(source.name, source.path):
            return Prompts.read(bboxes=[], shape=size)
        return prompts.for_image(0, source.path, size)

    return find
