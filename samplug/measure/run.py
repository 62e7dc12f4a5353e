"""`SAM.val`: from arguments to a table on screen and a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from ultralytics.utils import TQDM
from ultralytics.utils.checks import check_imgsz

from samplug import __version__, arguments, host
from samplug.host import LOGGER
from samplug.measure import pictures, scenes, videos
from samplug.measure.data import Data, open_data
from samplug.measure.entering import Network
from samplug.measure.measured import Measured
from samplug.measure.pictures import BOX, CLICK, Asking
from samplug.measure.reading import DataError
from samplug.measure.settings import SCENES, Settings, read
from samplug.measure.table import pictures_table, videos_table
from samplug.measure.videos import MASK, Following
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor
from samplug.tracking import policy_of
from samplug.view import Size

DRAWN_PICTURES, DRAWN_CLIPS = 500, 60
AT_ONCE = 8  # pictures, on a GPU
T = TypeVar("T")


def val(model: Network, given: Mapping[str, Any]) -> Measured:
    """Measure a network on a data set, say what was found, and save it.

    Args:
        model: Any network of ours.
        given: The arguments of `SAM.val`: those of `Settings`, of `predict` and of Ultralytics.

    Raises:
        TypeError: an argument that does not exist.
        ValueError: a value that cannot be, or a data set that cannot be read.
    """
    settings, of_predict, of_host = read(given)
    arguments.check(of_predict)
    worker = Predictor(overrides={**of_host, "mode": "val", "save": False})
    worker.setup_model(model, verbose=host.from_shell())
    size = _size(worker)
    asking, following = _asking(settings, worker, of_predict), _following(settings, worker, of_predict)
    measured = Measured(worker.save_dir, about=_about(worker, {**asdict(settings), **of_predict}, size))
    _measure(measured, worker, _opened(settings, worker.model), size, asking, following)
    if not any(found.rows for found in (measured.pictures, *measured.videos.values()) if found is not None):
        raise DataError(
            f"data={settings.data} holds no object to measure: masks are empty, or those of videos end with the frame "
            "after the one where an object comes."
        )
    measured.save(settings.plots)
    if worker.args.verbose:
        LOGGER.info(f"\n{measured}\n\nResults saved to {measured.save_dir}")
    return measured


def _measure(
    measured: Measured, worker: Predictor, data: Data, size: Size, asking: Asking, following: Following
) -> None:
    """Measure on pictures, on videos, or on both."""
    model = worker.model
    if len(data.pictures):
        measured.pictures = pictures.measure(model, _told(data.pictures, "pictures", worker), size, asking)
        measured.tables.append(pictures_table(measured.pictures, len(data.pictures)))
    if len(data.videos) and isinstance(model, SAM2Model):
        measured.videos = videos.measure(model, _told(data.videos, "videos", worker), size, following)
        measured.tables.append(videos_table(measured.videos, len(data.videos)))


def _size(worker: Predictor) -> Size:
    """(h, w) of the network's input: its own, or `imgsz` rounded up to what the network takes."""
    if worker.own_size:
        return worker.model.image_size
    height, width = check_imgsz(worker.args.imgsz, stride=worker.model.stride, min_dim=2)
    return height, width


def _opened(settings: Settings, model: Network) -> Data:
    """The data set, as much of it as is asked for; videos only where the network can follow."""
    if settings.data != SCENES:
        data = open_data(
            str(settings.data), source=settings.source, split=settings.split, classes=_listed(settings.classes)
        )
        if len(data.videos) and not isinstance(model, SAM2Model):
            raise DataError(f"data={settings.data} holds videos, which need SAM 2 or 2.1; this is {model.variant}.")
        return Data(data.pictures[: settings.pictures], data.videos[: settings.clips])
    look: dict[str, Any] = {"side": settings.side, "level": settings.level, "held_out": settings.held_out}
    count = DRAWN_PICTURES if settings.pictures is None else settings.pictures
    clips = DRAWN_CLIPS if settings.clips is None else settings.clips
    if not isinstance(model, SAM2Model):
        clips = 0
    objects = settings.objects or scenes.OBJECTS
    drawn = scenes.drawn_clips(clips, frames=settings.frames, objects=objects, **look) if clips else ()
    return Data(scenes.drawn_pictures(count, **look), drawn)


def _listed(classes: Any) -> list[int] | None:
    return classes if classes is None else [int(each) for each in np.atleast_1d(classes)]


def _asking(settings: Settings, worker: Predictor, of_predict: Mapping[str, Any]) -> Asking:
    drawn = settings.data == SCENES
    ways = tuple(way for way in settings.asked() if way != MASK)
    return Asking(
        ask=ways or (CLICK, BOX),
        clicks=settings.clicks,
        feedback=settings.feedback,
        objects=settings.objects or (scenes.OBJECTS if drawn else None),
        batch=_batch(settings, worker),
        baselines=drawn if settings.baselines is None else settings.baselines,
        everything=_everything(worker, of_predict) if settings.everything else None,
    )


def _following(settings: Settings, worker: Predictor, of_predict: Mapping[str, Any]) -> Following:
    overlap = of_predict.get("non_overlap")
    return Following(
        ask=settings.asked() or (MASK,),
        policy=policy_of(of_predict.get("policy")),
        non_overlap=True if overlap is None else overlap,
        batch=_batch(settings, worker),
        baselines=settings.data == SCENES if settings.baselines is None else settings.baselines,
    )


def _batch(settings: Settings, worker: Predictor) -> int:
    return settings.batch or (1 if worker.device.type == "cpu" else AT_ONCE)


def _everything(worker: Predictor, of_predict: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Segment everything on RGB pictures as `predict` does: a function to masks (K, H, W)."""
    said = {name: value for name, value in of_predict.items() if name in arguments.EVERYTHING}
    same = {"imgsz": worker.args.imgsz} if not worker.own_size else {}
    finder = Predictor(overrides={**said, **same, "device": worker.args.device, "save": False, "verbose": False})
    finder.setup_model(worker.model, verbose=False)

    def masks(image: np.ndarray) -> np.ndarray:
        (result,) = finder(source=cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return result.masks.data.cpu().numpy()

    return masks


def _told(items: Iterable[T], what: str, worker: Predictor) -> Iterable[T]:
    """The same items, with a bar that says how many are done and how long the rest takes."""
    return TQDM(items, desc=what, disable=not worker.args.verbose)


def _about(worker: Predictor, said: Mapping[str, Any], size: Size) -> dict[str, Any]:
    return {
        "samplug": __version__,
        "torch": torch.__version__,
        "model": worker.model.variant,
        "device": str(worker.device),
        "precision": str(worker.torch_dtype).removeprefix("torch."),
        "imgsz": list(size),
        "arguments": {name: _plain(value) for name, value in said.items() if value is not None},
    }


def _plain(value: Any) -> Any:
    """What JSON can hold; of a class of the user's, say a policy, its name."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, bool | int | float | str) else getattr(value, "__name__", str(value))
