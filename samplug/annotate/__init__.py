"""Annotation: images and videos become labels. `samplug.annotate(...)` runs a job, or goes on with one."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samplug.annotate.job import Job


def annotate(source: Any = None, prompter: Any = None, out: str = "labels", **options: Any) -> Job:
    """Annotate images and videos, or go on with the job in `out`, and write the labels.

    Args:
        source: folder, glob, list of files, image or video; None goes on with the job in `out`.
        prompter: what says where objects are; None: everything.
        out: folder of the job.
        **options: further fields of `samplug.annotate.settings.Settings`.

    Returns:
        The job, with its `progress`, `failures` and `records()`.

    Raises:
        TypeError: an argument that does not exist.
        ValueError: a value that is not accepted.
        JobError: the job cannot be begun or gone on with, or too much of it failed.
        KeyboardInterrupt: Ctrl-C; the same call, or one with `out` alone, goes on.
    """
    from samplug.annotate.job import Job
    from samplug.annotate.settings import Settings

    return Job(Settings.read({"source": source, "prompter": prompter, "out": out, **options})).run()


def auto_annotate(  # Ultralytics' arguments, in its order
    data: Any, det_model: Any = "yolo11x.pt", sam_model: Any = "sam_b.pt", device: Any = "", conf: float = 0.25,
    iou: float = 0.45, imgsz: int = 640, max_det: int = 300, classes: list[int] | None = None,
    output_dir: str | None = None,
) -> Job:  # fmt: skip
    """Ultralytics' `auto_annotate` as a job: the arguments are the same, the classes those of the boxes.

    Returns:
        The job in `output_dir` (left out: the folder of the images with `_auto_annotate_labels` behind its name).
    """
    from pathlib import Path

    detector = {"model": det_model, "conf": conf, "iou": iou, "imgsz": imgsz, "max_det": max_det, "classes": classes}
    detector = {name: value for name, value in detector.items() if value is not None}
    folder = Path(data).absolute()
    out = output_dir or str(folder.with_name(f"{folder.stem}_auto_annotate_labels"))
    return annotate(data, detector, out, model=sam_model, device=device or None)


class _Callable(ModuleType):
    """`samplug.annotate` is both this package and its verb."""

    def __call__(self, *args: Any, **options: Any) -> Job:
        return annotate(*args, **options)


sys.modules[__name__].__class__ = _Callable
