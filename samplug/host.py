"""Everything in which Ultralytics' releases differ, found by looking at features; nobody else asks for a version."""

from __future__ import annotations

import atexit
import inspect
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.data.augment import LetterBox
from ultralytics.engine.model import Model
from ultralytics.engine.predictor import BasePredictor
from ultralytics.engine.results import Results
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, LOGGER, NUM_THREADS, TQDM, patches
from ultralytics.utils.callbacks import add_integration_callbacks
from ultralytics.utils.patches import imread
from ultralytics.utils.torch_utils import select_device as _select_device

from samplug.arguments import IGNORED
from samplug.errors import CheckpointError, SourceError, one_line, report_slip
from samplug.values import check_folder

__all__ = ["DEFAULT_CFG", "DEFAULT_CFG_DICT", "LOGGER", "NUM_THREADS", "TQDM", "BasePredictor", "LetterBox", "Model"]
__all__ += ["Results", "get_cfg", "imread"]  # what is Ultralytics' and others import from here

PIL_FORMATS = (  # those that PIL decodes by itself
    *("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "PPM", "PSD", "QOI"),
    *("SGI", "DDS", "ICNS", "ICO", "PCX", "TGA"),
)
FOLDER_OPTIONS = ("project", "name", "exist_ok", "save_dir", "task", "mode")  # what a run's folder follows from
STREAM_METHODS = "preprocess pre_transform inference postprocess setup_model setup_source write_results"


def check() -> None:
    """Raise ImportError in one sentence when this Ultralytics lacks what samplug's predictors stand on."""
    absent = [name for name in STREAM_METHODS.split() if not callable(getattr(BasePredictor, name, None))]
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


def copied_callbacks(callbacks: Mapping[str, list[Any]]) -> defaultdict[str, list[Any]]:
    """A model's callbacks for one predictor, which the host adds its own to."""
    return defaultdict(list, {event: list(functions) for event, functions in callbacks.items()})


def replace_callbacks(predictor: BasePredictor, callbacks: Mapping[str, list[Any]]) -> None:
    """Give a predictor that is kept a model's callbacks as they are now, beside the host's own."""
    predictor.callbacks = copied_callbacks(callbacks)
    add_integration_callbacks(predictor)


def register_kept_trackers(model: Any, persist: bool) -> None:
    """Register the trackers of a predictor that is kept, as newer releases do on every call, in place of earlier ones.

    Older releases register them once, and rely on the callbacks that the first call left on the model.
    """
    if hasattr(model.predictor, "trackers"):
        from ultralytics.trackers import register_tracker

        register_tracker(model, persist)


def drop_unsupported(args: Any) -> None:
    """Switch off what the host would run through parts that a SAM network does not have; one warning names it."""
    names = (name for name in IGNORED.split() if name != "rect")  # which the host always adds
    chosen = {name: getattr(args, name, None) for name in names}
    asked = [name for name, value in chosen.items() if value and value != getattr(DEFAULT_CFG, name, None)]
    if asked:
        report_slip(f"{', '.join(asked)}: without effect on SAM.", ValueError)
    args.augment, args.embed, args.visualize = False, None, False


def chosen_conf(arguments: dict[str, Any]) -> float | None:
    """Return the `conf` somebody chose, or None.

    The host's `Model.predict` adds conf=0.25 to every call, always together with rect=True; that is nobody's choice,
    and would drop prompted masks in silence.
    """
    conf = arguments.get("conf")
    by_host = conf == 0.25 and arguments.get("rect") is True and arguments.get("batch") == 1
    return None if by_host else conf


def chosen_batch(arguments: dict[str, Any]) -> int | None:
    """Return the `batch` somebody chose, or None: the host adds batch=1 to every call, together with rect=True."""
    batch = arguments.get("batch")
    return None if batch == 1 and arguments.get("rect") is True else batch


def run_folder(**arguments: Any) -> Path:
    """Choose the folder of a run as the host does, from task, mode, project, name, exist_ok and save_dir."""
    folder = Path(get_save_dir(SimpleNamespace(**arguments)))
    check_folder(folder)
    return folder


def name_one_folder(args: Any, others: Any) -> bool:
    """Whether the arguments of two calls mean the same folder of a run."""
    return all(getattr(args, name, None) == getattr(others, name, None) for name in FOLDER_OPTIONS)


def select_device(device: Any, verbose: bool = True) -> torch.device:
    """Choose the device as the host does, but leave torch's number of threads as it was; ValueError for another."""
    threads = torch.get_num_threads()
    try:
        chosen = _select_device("" if device is None else device, verbose=verbose)
    finally:
        torch.set_num_threads(threads)
    if not isinstance(chosen, torch.device):  # tpu and intel:gpu stay text, for exported networks
        raise ValueError(f"device={device} is none of torch's. Expected cpu, mps, or GPUs by number: 0 or 0,1.")
    return chosen


@cache
def say_once(line: str) -> None:
    """Log a line the first time it is said in this process."""
    LOGGER.info(line)


@cache
def warn_once(line: str) -> None:
    """Log a warning the first time it is due in this process."""
    LOGGER.warning(line)


def download_weights(path: Path) -> Path | None:
    """Find one of the host's published files in its weights folder, or download it; None if it publishes none."""
    from ultralytics.utils import downloads

    return Path(downloads.attempt_download_asset(path)) if path.name in downloads.GITHUB_ASSETS_NAMES else None


def require_regular_file(path: Any, kind: type[Exception] = SourceError) -> None:
    """Refuse a pipe, a socket or a device: reading it may wait for ever. What does not exist is left to the reader."""
    if isinstance(path, str | Path) and os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise kind(f"{path} is a pipe, a socket or a device. Expected a regular file.")


def check_yolo_file(path: str) -> None:
    """Refuse a file of a YOLO that holds more than Ultralytics' and torch's own classes: loading it would run code.

    CheckpointError where it does, or cannot be read.
    """
    from ultralytics.nn import tasks

    require_regular_file(path, CheckpointError)
    reader = getattr(tasks, "_SafeLoad", None)
    if Path(path).suffix != ".pt":
        return
    if reader is None or not reader.SUPPORTED:  # older releases of Ultralytics, or of PyTorch
        warn_once("A YOLO's file is unpickled here, which may run code in it: give only files you trust as prompter=.")
        return
    try:
        tasks.torch_safe_load(path, safe_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of it
        raise CheckpointError(f"Cannot load {path}. {one_line(error)}") from error


def from_shell() -> bool:
    """Say whether a command line started this process, which then shows the device line as `yolo` does."""
    program = (getattr(sys, "argv", None) or [""])[0]  # an embedded Python may have none
    return Path(program).stem in {"yolo", "ultralytics", "samplug"}


def pil_image(file: str | Path | BytesIO) -> Any:
    """Open an image file with PIL, which decodes nothing yet; None where it knows nothing of it.

    The host's `Image.open` fetches a plugin from the network for what it cannot read; this is PIL's own, with its limit
    against large images lifted, and without the formats that others decode: EPS is a program, which Ghostscript runs.
    """
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file, which is told in other words
            Image.init()
            known = [name for name in PIL_FORMATS if name in Image.OPEN]
            return getattr(patches, "_image_open", Image.open)(file, formats=known)
    except (OSError, SyntaxError, ValueError, IndexError):
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


_IMAGE_LOCK = RLock()  # what is put back must not be what another thread has put there


@contextmanager
def without_plugins(reason: Callable[[Path], str]) -> Iterator[None]:
    """Let the host read image files without installing a plugin for what it cannot read, which has a reason instead.

    A plugin that is installed is used.
    """
    from PIL import Image

    with _IMAGE_LOCK:
        before = Image.open
        opened = before if find_spec("pi_heif") else getattr(patches, "_image_open", before)

        def open_image(file: Any, *args: Any, **options: Any) -> Any:
            try:
                return opened(file, *args, **options)
            except Image.UnidentifiedImageError as error:
                if not isinstance(file, str | Path):
                    raise
                raise OSError(reason(Path(file))) from error

        Image.open = open_image  # type: ignore[assignment]
        try:
            yield
        finally:
            Image.open = before


check()
