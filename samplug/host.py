"""Everything in which Ultralytics' releases differ, found by looking at features; nobody else asks for a version."""

from __future__ import annotations

import atexit
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import LetterBox
from ultralytics.engine.model import Model
from ultralytics.engine.predictor import BasePredictor
from ultralytics.engine.results import Results
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, LOGGER, NUM_THREADS, patches
from ultralytics.utils.patches import imread
from ultralytics.utils.torch_utils import select_device as _select_device

__all__ = [
    "DEFAULT_CFG",
    "DEFAULT_CFG_DICT",
    "LOGGER",
    "BasePredictor",
    "LetterBox",
    "Model",
    "Results",
    "all_cores",
    "as_bgr",
    "brand",
    "check",
    "chosen_conf",
    "drop_unsupported",
    "from_shell",
    "get_cfg",
    "imread",
    "picture_count",
    "pictures",
    "pil_picture",
    "say_once",
    "select_device",
    "setup_source",
    "wants_half",
    "warn_once",
]

NOT_FINITE = "holds NaN or infinity: give finite numbers, such as nan_to_num makes them."

STREAM_METHODS = (
    "preprocess",
    "pre_transform",
    "inference",
    "postprocess",
    "setup_model",
    "setup_source",
    "write_results",
)


def check() -> None:
    """Raise ImportError in one sentence when this Ultralytics lacks what samplug's predictors stand on."""
    absent = [name for name in STREAM_METHODS if not callable(getattr(BasePredictor, name, None))]
    if absent:
        import ultralytics

        raise ImportError(
            f"samplug does not know ultralytics {ultralytics.__version__}: its BasePredictor has no "
            f"{', '.join(absent)}. Install one that samplug is tested with: pip install 'ultralytics>=8.3.200,<9'."
        )


def brand(model: nn.Module, half: bool) -> None:
    """Give a network the attributes that Ultralytics' loop reads, of all releases at once."""
    assert not hasattr(model, "imgsz"), "the host would write model.imgsz into args on every run"
    read_by_the_host = {
        "format": "sam",
        "fp16": half,
        "names": {},
        "ch": 3,
        "channels": 3,
        **dict.fromkeys(("base_model", "end2end", "dynamic", "pt", "triton", "imx"), False),
    }
    for name, value in read_by_the_host.items():
        setattr(model, name, value)


def wants_half(args: Any) -> bool:
    """Read half precision as old releases (half=True) and new ones (quantize=16) spell it."""
    return str(getattr(args, "quantize", None)).lower() in {"16", "fp16"} or getattr(args, "half", False) is True


def setup_source(predictor: BasePredictor, source: Any, stride: int) -> None:
    """Run the host's setup_source with sides rounded up to the stride, which old releases read from the model alone."""
    if "stride" in inspect.signature(BasePredictor.setup_source).parameters:
        BasePredictor.setup_source(predictor, source, stride)
    else:
        BasePredictor.setup_source(predictor, source)
    if hasattr(predictor.dataset, "close"):
        _close_at_exit()
        _OPEN.add(predictor.dataset)


_OPEN: WeakSet[Any] = WeakSet()


@cache
def _close_at_exit() -> None:
    """Let go of every camera before the interpreter ends: its end, met by a thread that reads one, aborts the process.

    The thread asks for the interpreter's lock on its way back from OpenCV, is made to exit there, and the C++ above it
    answers with "terminate called without an active exception". That happens to runs that are never finished or closed.
    """
    atexit.register(lambda: [loader.close() for loader in list(_OPEN)])


def drop_unsupported(args: Any) -> None:
    """Switch off, with one warning, what the host would run through parts that a SAM network does not have."""
    asked = [name for name in ("augment", "embed", "visualize") if getattr(args, name, None)]
    if asked:
        LOGGER.warning(f"{', '.join(asked)}: without effect on SAM.")
    args.augment, args.embed, args.visualize = False, None, False


def chosen_conf(arguments: dict[str, Any]) -> float | None:
    """Return the `conf` somebody chose, or None.

    The host's `Model.predict` adds conf=0.25 to every call, always together with rect=True; that is nobody's choice,
    and would drop prompted masks in silence.
    """
    conf = arguments.get("conf")
    by_host = conf == 0.25 and arguments.get("rect") is True and arguments.get("batch") == 1
    return None if by_host else conf


def select_device(device: Any, verbose: bool = True) -> torch.device:
    """Choose the device as the host does, but leave torch's number of threads as it was."""
    threads = torch.get_num_threads()
    try:
        return _select_device(device or "", verbose=verbose)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def all_cores(count: int | None = None) -> Iterator[None]:
    """Compute on so many threads, or on every core this process may use, and give the setting back.

    The host's `select_device` leaves one core unused for the whole process, so a detector that ran before would halve
    the speed on two cores. Any other number was chosen by the user (or by OMP_NUM_THREADS) and is kept.
    """
    threads = torch.get_num_threads()
    if count is None and (threads != NUM_THREADS or "OMP_NUM_THREADS" in os.environ):
        yield
        return
    torch.set_num_threads(count or usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def usable_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def say_once(line: str) -> None:
    """Log a line the first time it is said in this process."""
    LOGGER.info(line)


@cache
def warn_once(line: str) -> None:
    """Log a warning the first time it is due in this process."""
    LOGGER.warning(line)


def from_shell() -> bool:
    """Say whether a command line started this process, which then shows the device line as `yolo` does."""
    return Path(sys.argv[0]).stem in {"yolo", "ultralytics", "samplug"}


def pil_picture(file: str | Path) -> Any:
    """Open a picture file with PIL, which decodes nothing yet; None where it knows nothing of it.

    The host's `Image.open` fetches a plugin from the network for what it cannot read; this is PIL's own, with its limit
    against large pictures lifted.
    """
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file, which is told in other words
            return getattr(patches, "_image_open", Image.open)(file)
    except (OSError, SyntaxError, ValueError):
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def as_bgr(picture: np.ndarray) -> np.ndarray:
    """Bring a picture to (H, W, 3) BGR bytes: grey, alpha, 16-bit and float arrays, which old releases leave alone.

    Floats are 0-1 when none is above 1, else 0-255.

    Raises:
        ValueError: one is NaN or infinite, which no byte can stand for; nor could the largest tell the range then.
    """
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    elif picture.dtype != np.uint8:
        if not np.isfinite(picture).all():
            raise ValueError(f"the picture {NOT_FINITE}")
        scale = 255 if picture.dtype.kind == "f" and picture.max(initial=0) <= 1 else 1
        picture = (picture * scale).round().clip(0, 255).astype(np.uint8)
    picture = np.atleast_3d(picture)
    channels = picture.shape[2]
    if channels == 3:
        return picture
    if channels in (1, 2):
        return cv2.cvtColor(np.ascontiguousarray(picture[..., 0]), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(picture[..., :3])


def picture_count(dataset: Any) -> int | None:
    """Count the pictures a loader will give in all; None for videos, streams and screens."""
    if hasattr(dataset, "nf"):
        return None if any(dataset.video_flag) else dataset.nf
    return None if getattr(dataset, "mode", "") == "stream" else getattr(dataset, "bs", None)


def pictures(originals: list[np.ndarray] | Tensor) -> list[np.ndarray]:
    """Return a batch as its loader gave it, a list of arrays or a (F, 3, H, W) RGB tensor in 0-1, as BGR bytes.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    if not isinstance(originals, Tensor):
        return [as_bgr(picture) for picture in originals]
    if not originals.isfinite().all():
        raise ValueError(f"the tensor {NOT_FINITE}")
    shown = (originals.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).flip(-1)
    return list(np.ascontiguousarray(shown.cpu().numpy()))


check()
