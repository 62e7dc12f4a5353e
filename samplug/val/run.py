"""`SAM.val`: from arguments to a table on screen and a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.utils import TQDM
from ultralytics.utils.checks import check_imgsz

from samplug import __version__, arguments, host
from samplug.data.help import SCENES
from samplug.data.open import Data, open_data
from samplug.data.synthetic import dataset
from samplug.errors import DataError
from samplug.host import LOGGER
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor
from samplug.tracking import policy_of
from samplug.transforms import Size
from samplug.val.images import ImageProtocol, Network, evaluate_images
from samplug.val.report import ValReport, images_table, videos_table
from samplug.val.settings import Settings, read
from samplug.val.videos import VideoProtocol, evaluate_videos
from samplug.values import check_folder

DRAWN_IMAGES, DRAWN_CLIPS = 500, 60
GPU_BATCH = 8  # images


def val(model: Network, options: Mapping[str, Any]) -> ValReport:
    """Evaluate a network on a data set, print the table and save the results, as `SAM.val` does."""
    settings, of_predict, of_ultralytics = read(options)
    arguments.check(of_predict)
    predictor = Predictor(overrides={**of_ultralytics, "mode": "val", "save": False})
    check_folder(predictor.save_dir)
    predictor.setup_model(model, verbose=host.from_shell())
    size = _input_size(predictor)
    protocols = _image_protocol(settings, predictor, of_predict), _video_protocol(settings, predictor, of_predict)
    report = ValReport(predictor.save_dir, about=_about(predictor, {**asdict(settings), **of_predict}, size))
    _evaluate(report, predictor, _open(settings, predictor.model), size, *protocols)
    if not any(scores.rows for scores in (report.pictures, *report.videos.values()) if scores is not None):
        raise DataError(
            f"data={settings.data} holds no object to measure: masks are empty, or those of videos end with the frame "
            "after the one where an object comes."
        )
    report.save(settings.plots)
    if predictor.args.verbose:
        LOGGER.info(f"\n{report}\n\nResults saved to {report.save_dir}")
    return report


def _evaluate(
    report: ValReport, predictor: Predictor, data: Data, size: Size, of_images: ImageProtocol, of_videos: VideoProtocol
) -> None:
    """Evaluate on images, on videos, or on both."""
    model, with_bar = predictor.model, partial(TQDM, disable=not predictor.args.verbose)
    if len(data.images):
        report.pictures = evaluate_images(model, with_bar(data.images, desc="pictures"), size, of_images)
        report.tables.append(images_table(report.pictures, len(data.images)))
    if len(data.videos) and isinstance(model, SAM2Model):
        report.videos = evaluate_videos(model, with_bar(data.videos, desc="videos"), size, of_videos)
        report.tables.append(videos_table(report.videos, len(data.videos)))


def _input_size(predictor: Predictor) -> Size:
    """(h, w) of the network's input: its own, or `imgsz` rounded up to what the network takes."""
    if predictor.own_size:
        return predictor.model.image_size
    height, width = check_imgsz(predictor.args.imgsz, stride=predictor.model.stride, min_dim=2)
    return height, width


def _open(settings: Settings, model: Network) -> Data:
    """The part of the data set that the settings choose; videos only where the network can track."""
    if settings.data == SCENES:
        return _draw(settings, isinstance(model, SAM2Model))
    classes = None if settings.classes is None else [int(each) for each in np.atleast_1d(settings.classes)]
    data = open_data(str(settings.data), source=settings.source, split=settings.split, classes=classes)
    if len(data.videos) and not isinstance(model, SAM2Model):
        raise DataError(f"data={settings.data} holds videos, which need SAM 2 or 2.1; this is {model.variant}.")
    return Data(data.images[: settings.pictures], data.videos[: settings.clips])


def _draw(settings: Settings, tracks: bool) -> Data:
    """The built-in data set."""
    images = DRAWN_IMAGES if settings.pictures is None else settings.pictures
    clips = DRAWN_CLIPS if settings.clips is None else settings.clips
    objects = settings.objects or dataset.OBJECTS
    look: dict[str, Any] = {"side": settings.side, "level": settings.level, "held_out": settings.held_out}
    videos = dataset.drawn_clips(clips if tracks else 0, frames=settings.frames, objects=objects, **look)
    return Data(dataset.drawn_images(images, **look), videos)


def _image_protocol(settings: Settings, predictor: Predictor, of_predict: Mapping[str, Any]) -> ImageProtocol:
    drawn = settings.data == SCENES
    prompts = tuple(kind for kind in settings.prompts() if kind != "mask")
    return ImageProtocol(
        prompts=prompts or ImageProtocol.prompts,
        clicks=settings.clicks,
        feedback=settings.feedback,
        objects=settings.objects or (dataset.OBJECTS if drawn else None),
        batch=_batch(settings, predictor),
        baselines=drawn if settings.baselines is None else settings.baselines,
        everything=_everything(predictor, of_predict) if settings.everything else None,
    )


def _video_protocol(settings: Settings, predictor: Predictor, of_predict: Mapping[str, Any]) -> VideoProtocol:
    non_overlap = of_predict.get("non_overlap")
    return VideoProtocol(
        prompts=settings.prompts() or VideoProtocol.prompts,
        policy=policy_of(of_predict.get("policy")),
        non_overlap=arguments.NON_OVERLAP_DEFAULT["videos"] if non_overlap is None else non_overlap,
        batch=_batch(settings, predictor),
        verbose=predictor.args.verbose,
        baselines=settings.data == SCENES if settings.baselines is None else settings.baselines,
    )


def _batch(settings: Settings, predictor: Predictor) -> int:
    return settings.batch or (1 if predictor.device.type == "cpu" else GPU_BATCH)


def _everything(predictor: Predictor, of_predict: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Segment everything on RGB images as `predict` does: a function to masks (K, H, W)."""
    options = {name: value for name, value in of_predict.items() if name in arguments.EVERYTHING}
    same = {"imgsz": predictor.args.imgsz} if not predictor.own_size else {}
    quiet = {"device": predictor.args.device, "save": False, "verbose": False}
    generator = Predictor(overrides={**options, **same, **quiet})
    generator.setup_model(predictor.model, verbose=False)

    def masks(image: np.ndarray) -> np.ndarray:
        (result,) = generator(source=cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return result.masks.data.cpu().numpy()

    return masks


def _about(predictor: Predictor, options: Mapping[str, Any], size: Size) -> dict[str, Any]:
    return {
        "samplug": __version__,
        "torch": torch.__version__,
        "model": predictor.model.variant,
        "device": str(predictor.device),
        "precision": str(predictor.torch_dtype).removeprefix("torch."),
        "imgsz": list(size),
        "arguments": {name: _json_value(value) for name, value in options.items() if value is not None},
    }


def _json_value(value: Any) -> Any:
    """A value that JSON can hold; of a class of the user's, say a policy, its name."""
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, bool | int | float | str) else getattr(value, "__name__", str(value))
