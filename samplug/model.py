"""`SAM`, the class most people call: an Ultralytics model whose predictor is ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import nn

from samplug import arguments, host
from samplug.checkpoints.config import build
from samplug.checkpoints.load import BUNDLED, load_model, load_weights, require_values, save_model
from samplug.errors import CheckpointError, PromptError
from samplug.files.embedding import Embedding
from samplug.host import LOGGER, Model, Results
from samplug.nn.sam2 import SAM2Model
from samplug.predict import Predictor, SAM2Predictor, SAM2VideoPredictor
from samplug.runtime.torch_state import default_torch_state, lasting_tensors, recorded_gradients
from samplug.sources.video_loader import has_video

if TYPE_CHECKING:
    from samplug.annotate.job import Job
    from samplug.benchmark.report import Report
    from samplug.train.fit.estimate import StepCost
    from samplug.train.fit.report import TrainReport
    from samplug.train.fit.trainer import SAMTrainer
    from samplug.val.report import ValReport

NOT_FOLLOWED = (
    "Every frame is segmented alone, and Ultralytics' trackers give the ids: prompts, a prompter or track=True follow "
    "objects through memory."
)
NO_MEMORY = "Every frame is segmented alone, and Ultralytics' trackers give the ids: {} has no memory."


class SAM(Model):
    """Segment Anything as an Ultralytics model: SAM, MobileSAM, SAM 2 and 2.1, recognised by their tensors.

    Args:
        model: a checkpoint's path, the name of one that Ultralytics offers (downloaded when absent), or nothing for the
            small model that comes with samplug.

    Raises:
        CheckpointError: the file cannot be read, or holds no network we know.

    Examples:
        >>> from samplug import SAM
        >>> SAM("sam2.1_b.pt").predict("bus.jpg", points=[[500, 375]])  # doctest: +SKIP
    """

    predictor: Predictor | None
    callbacks: dict[str, list[Any]]
    _followed: SAM2VideoPredictor | None = None  # what `track(…, persist=True)` goes on with

    def __init__(self, model: str | PathLike[str] = BUNDLED) -> None:
        if not isinstance(model, str | PathLike):
            raise TypeError(f"model={type(model).__name__}. Expected the path or the name of a checkpoint.")
        super().__init__(model=str(model), task="segment")

    def _load(self, weights: str, task: str | None = None) -> None:
        self.model = load_model(weights)
        self.task = self.overrides["task"] = "segment"
        self.overrides["model"] = self.model_name = self.ckpt_path = weights

    @staticmethod
    def is_triton_model(model: str) -> bool:
        """No: an address is refused like any other name that is no file."""
        return False

    def _new(self, cfg: str, *args: Any, **kwargs: Any) -> None:
        raise ValueError(f"{cfg} describes a network without weights: give a checkpoint (.pt, .pth, .safetensors).")

    @property
    def is_sam2(self) -> bool:
        """Whether the network is a SAM 2 or 2.1."""
        return isinstance(self.model, SAM2Model)

    @property
    def names(self) -> dict[int, str]:
        """No classes of its own: those of a result follow its prompts."""
        return {}

    @property
    def task_map(self) -> dict[str, dict[str, type[Predictor]]]:
        """The predictor that runs this network."""
        return {"segment": {"predictor": SAM2Predictor if self.is_sam2 else Predictor}}

    def predict(
        self, source: Any = None, stream: bool = False, bboxes: Any = None, points: Any = None, labels: Any = None,
        masks: Any = None, predictor: type[Predictor] | None = None, **kwargs: Any,
    ) -> list[Results] | Iterator[Results]:  # fmt: skip
        """Segment the prompted objects, or everything when nothing is prompted.

        With SAM 2 or 2.1, objects prompted on videos and streams are tracked through memory, as by `track`: on a video
        file, and on a folder, glob or list that holds one, whose images are then one more video. `track=False` prompts
        every frame alone, as images without a video always are. The log says which.

        Args:
            source: whatever `YOLO.predict` takes: paths, folders, globs, URLs, arrays, PIL images, tensors, lists.
            stream: return a generator instead of a list.
            bboxes: (N, 4) xyxy in pixels, one an object.
            points: (N, 2) N objects of a click each; (N, P, 2) or ragged, N objects of P clicks.
            labels: 1 on the object, 0 off it, shaped like points; left out means 1.
            masks: one an object.
            predictor: another predictor class.
            **kwargs: further arguments of ours (`samplug.arguments.OWN`) and of Ultralytics.

        Returns:
            One `Results` an image, its rows in the order of the prompts.

        Raises:
            PromptError: a prompt cannot be read or does not fit its image.
        """
        prompts = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks}
        given = {name: value for name, value in prompts.items() if value is not None}
        return self._run(source, stream, predictor, {**given, **kwargs})

    def _run(
        self, source: Any, stream: bool, kind: type[Predictor] | None, given: dict[str, Any], persist: bool = False
    ) -> list[Results] | Iterator[Results]:
        """Run a predictor of a class, or the one that the source and the options ask for."""
        if isinstance(given.get("boxes"), list | tuple | np.ndarray):
            raise PromptError("boxes= says whether boxes are drawn (Ultralytics' show_boxes): give prompts as bboxes=.")
        own, host_options = arguments.split({"save": False, **self.overrides, **given})
        if source is None and own.get("embedding") is None:
            source = _default_source()
        if persist and self._followed is not None:
            made = self.predictor = self._followed
            made.reconfigure(host_options)
        else:
            kind = kind or self._predictor_class(source, own, host_options.get("mode"))
            made = self._make_predictor(kind, host_options)
        if persist and isinstance(made, SAM2VideoPredictor):
            self._followed, made.persist = made, True
        made.set_prompts(own)
        return made(source=source, stream=stream)

    def track(self, source: Any = None, stream: bool = False, persist: bool = False, **kwargs: Any) -> Any:
        """Give objects ids: SAM 2 tracks prompted ones through its memory, Ultralytics' trackers all others.

        With `track=True` and no prompts SAM 2 tracks everything that it finds on the first frame, and on every
        `prompt_every`-th what is new.

        Args:
            source: as in `predict`; a folder or a list of images counts as one video when objects are prompted.
            stream: return a generator instead of a list.
            persist: go on with the objects of the call before: `track(frame, persist=True)` in a loop follows what was
                prompted, on the first frame or on any other, by ids (`obj_ids=`, else 0, 1, …). A call without it
                begins anew.
            **kwargs: as in `predict`.
        """
        if not persist or kwargs.get("track") is False:
            self._followed = None
        if self._followed is not None or self._uses_memory(kwargs, moving=True):
            return self._run(source, stream, kwargs.pop("predictor", None), {"mode": "track", **kwargs}, persist)
        own, theirs = arguments.split(kwargs)
        arguments.check(own)  # before Ultralytics asks for what its trackers need
        arguments.check_host(theirs, host.DEFAULT_CFG_DICT)
        host.select_device(theirs.get("device"), verbose=False)
        host.say_once(NOT_FOLLOWED if self.is_sam2 else NO_MEMORY.format(self.model.variant))
        before = host.copied_callbacks(self.callbacks)
        try:
            host.register_kept_trackers(self, persist)
            return super().track(source, stream, persist, **kwargs)
        finally:  # the predictor has the trackers' callbacks now, and only this call is theirs
            self.callbacks = before

    def __call__(self, source: Any = None, stream: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Call `predict`."""
        return self.predict(source, stream, *args, **kwargs)

    def embed(self, source: Any, stream: bool = False, **kwargs: Any) -> Embedding:  # type: ignore[override]
        """Encode one image, to be prompted later or on another machine: `predict(image, embedding=…, points=…)`.

        Args:
            source: one image, a path or a BGR array.
            stream: without effect.
            **kwargs: `imgsz`, `resize`, `device` and others of `predict`; the later call must use the same.
        """
        own, host_options = arguments.split({"save": False, **self.overrides, **kwargs})
        arguments.check(own)
        if unused := own.keys() & {*arguments.PROMPT_ARGUMENTS, "embedding"}:
            raise TypeError(f"embed takes no {', '.join(sorted(unused))}: give prompts with the embedding, to predict.")
        predictor = self._make_predictor(None, host_options)
        predictor.options = predictor.run_options = own
        return predictor.embed(source)

    def info(self, detailed: bool = False, verbose: bool = True) -> Any:
        """Log the variant and what `YOLO.info` logs; return (layers, parameters, gradients, GFLOPs)."""
        from ultralytics.utils.torch_utils import model_info

        if verbose:
            LOGGER.info(f"{self.model.variant}: {type(self.model).__name__}, input {self.model.image_size}")
        return model_info(self.model, detailed=detailed, verbose=verbose)

    def train(self, trainer: type[SAMTrainer] | None = None, **kwargs: Any) -> TrainReport | StepCost:  # type: ignore[override]
        """Fine-tune on a data set with masks; afterwards this model has the best epoch's weights.

        Args:
            trainer: a subclass of `samplug.train.fit.trainer.SAMTrainer`.
            **kwargs: `data` and the others of `samplug.train.settings.TrainSettings`.

        Returns:
            Scores before and after, and of an anchor set, which shows what was forgotten; with `dry` what a step costs.

        Raises:
            TypeError: an argument that does not exist, or that means nothing to SAM.
            ValueError: a value that is not accepted, a data set that cannot be read, a run that cannot be resumed.
            DivergedError: a loss is no finite number.
        """
        from samplug.train.fit.trainer import SAMTrainer

        require_values(self.model)
        with recorded_gradients():
            self.trainer = (trainer or SAMTrainer)(self.model, kwargs, self.model_name, self.callbacks)
            self.metrics = self.trainer.train()
        self.predictor = None
        return self.metrics

    def val(self, data: str | Path | None = None, **kwargs: Any) -> ValReport:  # type: ignore[override]
        """Measure on a data set: IoU by clicks and boxes, in videos J&F, calibration; the table is printed.

        Args:
            data: "scenes" (drawn, no file needed), a data.yaml, a COCO json, or a folder of images or videos with
                masks; `samplug.data.help.LAYOUTS` shows them.
            **kwargs: `samplug.val.settings.Settings`, and Ultralytics' `imgsz`, `device`, `half`, `project`,
                `name`, `exist_ok`, `save_dir` and `verbose`.

        Raises:
            TypeError: an argument that does not exist.
            ValueError: a value that is not accepted, or a data set that cannot be read.
        """
        from samplug.val.run import val

        with default_torch_state():
            return val(self.model, {"data": data, **kwargs})

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: no format is supported yet."""
        raise NotImplementedError("SAM.export supports no format yet; samplug.nn holds plain torch modules.")

    def annotate(self, source: Any = None, prompter: Any = None, out: str = "labels", **kwargs: Any) -> Job:
        """Annotate images and videos with this checkpoint; see `samplug.annotate`."""
        from samplug.annotate import annotate

        return annotate(source, prompter, out, **{"model": self.model_name, **kwargs})

    def benchmark(self, **kwargs: Any) -> Report:  # type: ignore[override]
        """Measure times and memory of these weights in samplug and in every other implementation that is installed.

        Args:
            **kwargs: `samplug.benchmark.settings.Settings`.

        Returns:
            The figures, which are also printed as a table and written into the run's folder.

        Raises:
            TypeError: an argument that does not exist.
            ValueError: a value that is not accepted.
        """
        from samplug.benchmark.run import of_model
        from samplug.benchmark.settings import Settings

        if "model" in kwargs:
            raise TypeError(
                f"benchmark measures this model: SAM({kwargs['model']!r:.80}).benchmark(…) measures another."
            )
        require_values(self.model)
        return of_model(self.model, Settings.read({"model": self.model_name, **kwargs}))

    # What else a model of Ultralytics can do

    def load(self, weights: str | PathLike[str] | Mapping[str, Any] | nn.Module) -> SAM:
        """Take over the weights of a checkpoint, a state dict or a module; no code in a file runs.

        Raises:
            CheckpointError: they cannot be read, or are of another network.
        """
        model = load_weights(weights)
        own, new = ({name: tensor.shape for name, tensor in each.state_dict().items()} for each in (self.model, model))
        if own != new:
            raise CheckpointError(
                f"These are the weights of {model.variant}, this network is {self.model.variant}. Expected weights of "
                "the same network: SAM(file) makes a model of any."
            )
        self.model, self.predictor = model.to("cpu" if self.device.type == "meta" else self.device), None
        return self

    def save(self, filename: str | PathLike[str] = "saved_model.pt") -> None:
        """Write a checkpoint in float32 that `SAM(filename)` loads, or `.safetensors`; the write is atomic."""
        require_values(self.model)
        if self.model.config is None:
            raise CheckpointError("This network was not made by samplug: save it by checkpoints.load.save_model.")
        save_model(filename, self.model, self.model.config, dtype=torch.float32)

    def reset_weights(self) -> SAM:
        """Give the network new random weights, as before a training."""
        if self.model.config is None:
            raise CheckpointError("This network was not made by samplug, which therefore cannot make it anew.")
        with lasting_tensors():
            self.model, self.predictor = build(self.model.config).eval().to(self.device), None
        return self

    def fuse(self, *args: Any, **kwargs: Any) -> SAM:
        """Return the model as it is: there is nothing to fuse."""
        return self

    def eval(self) -> SAM:
        """Return the model, whose network is in eval mode."""
        self.model.eval()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: `compile=True` of `predict` compiles, and checks that results agree."""
        raise NotImplementedError("SAM.compile: give compile=True to predict or track instead.")

    def tune(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: there is no search for the settings of training."""
        raise NotImplementedError("SAM.tune does not exist: `yolo sam train help` lists training's settings.")

    def calibrate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: it belongs to Ultralytics' depth models."""
        raise NotImplementedError("SAM.calibrate does not exist: it belongs to depth models. `val` shows calibration.")

    def _predictor_class(self, source: Any, options: dict[str, Any], mode: str | None) -> type[Predictor] | None:
        """Choose between memory and single frames where there is a choice, and log which it is."""
        prompted = _is_prompted(options)
        moving = prompted and has_video(source)
        if self._uses_memory(options, moving or mode == "track"):
            what, otherwise = ("the prompted objects", "prompts") if prompted else ("everything found", "segments")
            LOGGER.info(f"Following {what} through memory (track=False {otherwise} every frame alone).")
            return SAM2VideoPredictor
        if moving:
            LOGGER.info("Prompting every frame alone, without memory.")
        return None

    def _uses_memory(self, options: dict[str, Any], moving: bool) -> bool:
        """Whether SAM 2 tracks objects through its memory: prompted ones on what moves, or everything."""
        track = options.get("track")
        arguments.check_values({"track": track}, arguments.OWN)
        if track and not self.is_sam2:
            raise ValueError(f"track=True needs SAM 2 or 2.1, which have a memory; this is {self.model.variant}.")
        if not self.is_sam2 or track is False:
            return False
        return bool(track) or moving and _is_prompted(options)

    def _make_predictor(self, kind: type[Predictor] | None, overrides: dict[str, Any]) -> Predictor:
        """Make a predictor over the shared network for one call, so that two streams do not mix.

        The one before is used again only if it carries trackers, or objects that were shown to it, across calls.
        """
        kind, before = kind or self.task_map["segment"]["predictor"], self.predictor
        tracks = overrides.get("mode") == "track" and hasattr(before, "trackers")
        if before is not None and type(before) is kind and (tracks or kind.outlives_calls):
            before.reconfigure(overrides)
            host.replace_callbacks(before, self.callbacks)
            return before
        made = kind(overrides=overrides, _callbacks=host.copied_callbacks(self.callbacks))
        made.setup_model(self.model, verbose=host.from_shell())
        if before is not None and host.name_one_folder(before.args, made.args):
            made.save_dir = before.save_dir  # as YOLO does: the calls of one process save into one folder
        self.predictor = made
        return made


def _is_prompted(options: dict[str, Any]) -> bool:
    """Whether prompts or a detector say where objects are."""
    return any(options.get(name) is not None for name in (*arguments.SPATIAL_PROMPTS, "prompter"))


def _default_source() -> Path:
    """The source when none is given: Ultralytics' images."""
    from ultralytics.utils import ASSETS

    LOGGER.warning(f"'source' is missing. Using 'source={ASSETS}'.")
    return ASSETS
