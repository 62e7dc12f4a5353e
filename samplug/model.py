"""`SAM`, the class most people call: an Ultralytics model whose predictor is ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samplug import arguments, host
from samplug.checkpoints import BUNDLED, load_model
from samplug.embeddings import Embedding
from samplug.host import LOGGER, Model, Results
from samplug.nn.sam2 import SAM2Model
from samplug.predict import Predictor, SAM2Predictor, SAM2VideoPredictor
from samplug.predict.sources import moves
from samplug.prompts import PromptError

if TYPE_CHECKING:
    from samplug.benchmark.report import Report
    from samplug.measure.measured import Measured

POINTING = ("points", "bboxes", "masks", "prompts", "prompter")
SAVED_BY = ("project", "name", "exist_ok", "task", "mode")


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

    def __init__(self, model: str | Path = BUNDLED) -> None:
        super().__init__(model=str(model), task="segment")

    def _load(self, weights: str, task: str | None = None) -> None:
        self.model = load_model(weights)
        self.task = self.overrides["task"] = "segment"
        self.overrides["model"] = self.model_name = self.ckpt_path = weights

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
        self,
        source: Any = None,
        stream: bool = False,
        bboxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        predictor: type[Predictor] | None = None,
        **kwargs: Any,
    ) -> list[Results] | Iterator[Results]:
        """Segment what prompts ask for, or everything when there are none.

        With SAM 2 or 2.1, prompts on videos and streams are followed through memory, as `track` does: on a video file,
        and on a folder, glob or list that holds one, whose pictures are then one more video. `track=False` prompts
        every frame alone, as pictures without a video always are. The log says which.

        Args:
            source: whatever `YOLO.predict` takes: paths, folders, globs, URLs, arrays, PIL pictures, tensors, lists.
            stream: return a generator instead of a list.
            bboxes: (N, 4) xyxy in pixels, one an object.
            points: (N, 2) N objects of a click each; (N, P, 2) or ragged, N objects of P clicks.
            labels: 1 on the object, 0 off it, shaped like points; left out means 1.
            masks: one an object.
            predictor: another predictor class.
            **kwargs: further arguments of ours (`samplug.arguments.OWN`) and of Ultralytics.

        Returns:
            One `Results` a picture, its rows in the order of the prompts.

        Raises:
            PromptError: a prompt cannot be read or does not fit its picture.
        """
        if isinstance(kwargs.get("boxes"), list | tuple | np.ndarray):
            raise PromptError("boxes= says whether boxes are drawn (Ultralytics' show_boxes): give prompts as bboxes=.")
        prompts = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks}
        ours, theirs = arguments.split({"save": False, **self.overrides, **kwargs})
        if source is None:
            source = _stand_in(ours.get("embedding"))
        asked = {**prompts, **ours}
        worker = self._worker(predictor or self._way(source, asked, theirs.get("mode")), theirs)
        worker.set_prompts(asked)
        return worker(source=source, stream=stream)

    def track(self, source: Any = None, stream: bool = False, persist: bool = False, **kwargs: Any) -> Any:
        """Give objects ids: prompted ones are followed through SAM 2's memory, others by one of Ultralytics' trackers.

        With `track=True` and no prompts SAM 2 follows everything that it finds on the first frame, and on every
        `prompt_every`-th what is new.

        Args:
            source: as in `predict`; a folder or a list of pictures counts as one video when prompts are followed.
            stream: return a generator instead of a list.
            persist: go on with the tracker of the call before (Ultralytics' trackers only).
            **kwargs: as in `predict`.
        """
        if self._follows(kwargs, moving=True):
            return self.predict(source, stream, mode="track", **kwargs)
        return super().track(source, stream, persist, **kwargs)

    def __call__(self, source: Any = None, stream: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Call `predict`."""
        return self.predict(source, stream, *args, **kwargs)

    def embed(self, source: Any, stream: bool = False, **kwargs: Any) -> Embedding:  # type: ignore[override]
        """Encode one picture, to be prompted later or elsewhere: `predict(picture, embedding=…, points=…)`.

        Args:
            source: one picture, a path or a BGR array.
            stream: without effect.
            **kwargs: `imgsz`, `resize`, `device` and others of `predict`; the later call must use the same.
        """
        ours, theirs = arguments.split({"save": False, **self.overrides, **kwargs})
        worker = self._worker(None, theirs)
        worker.options = worker.said = ours
        return worker.embed(source)

    def info(self, detailed: bool = False, verbose: bool = True) -> Any:
        """Log the variant and what `YOLO.info` logs; return (layers, parameters, gradients, GFLOPs)."""
        from ultralytics.utils.torch_utils import model_info

        if verbose:
            LOGGER.info(f"{self.model.variant}: {type(self.model).__name__}, input {self.model.image_size}")
        return model_info(self.model, detailed=detailed, verbose=verbose)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: fine-tuning does not exist yet."""
        raise NotImplementedError("SAM.train does not exist yet; python -m samplug.train trains the bundled model.")

    def val(self, data: str | Path | None = None, **kwargs: Any) -> Measured:  # type: ignore[override]
        """Measure on a data set: overlap by clicks and boxes, in videos J&F, calibration; the table is printed.

        Args:
            data: "scenes" (drawn, no file needed), a data.yaml, a COCO json, or a folder of pictures or videos with
                masks; `samplug.measure.settings.LAYOUTS` shows them.
            **kwargs: `samplug.measure.settings.Settings`, and Ultralytics' `imgsz`, `device`, `half`, `project`,
                `name`, `exist_ok`, `save_dir` and `verbose`.

        Raises:
            TypeError: an argument that does not exist.
            ValueError: a value that cannot be, or a data set that cannot be read.
        """
        from samplug.measure.run import val

        return val(self.model, {"data": data, **kwargs})

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: no format is supported yet."""
        raise NotImplementedError("SAM.export supports no format yet; samplug.nn holds plain torch modules.")

    def benchmark(self, **kwargs: Any) -> Report:  # type: ignore[override]
        """Measure times and memory beside every other implementation that is installed, on these weights.

        Args:
            **kwargs: `samplug.benchmark.settings.Settings`: what is measured, beside whom, where, how often.

        Returns:
            The figures, which are printed as a table and written into the run's folder.

        Raises:
            TypeError: an argument that does not exist.
            ValueError: a value that cannot be.
        """
        from samplug.benchmark.bench import of_model
        from samplug.benchmark.settings import Settings

        return of_model(self.model, Settings.read({"model": self.model_name, **kwargs}))

    def _way(self, source: Any, asked: dict[str, Any], mode: str | None) -> type[Predictor] | None:
        """Choose between memory and single frames where there is a choice, and say which it is."""
        prompted = any(asked.get(name) is not None for name in POINTING)
        moving = prompted and moves(source)
        if self._follows(asked, moving or mode == "track"):
            what, besides = ("the prompted objects", "prompts") if prompted else ("everything found", "segments")
            LOGGER.info(f"Following {what} through memory (track=False {besides} every frame alone).")
            return SAM2VideoPredictor
        if moving:
            LOGGER.info("Prompting every frame alone, without memory.")
        return None

    def _follows(self, asked: dict[str, Any], moving: bool) -> bool:
        """Whether objects are followed through SAM 2's memory: prompted ones on what moves, or everything."""
        track = asked.get("track")
        if track and not self.is_sam2:
            raise ValueError(f"track=True needs SAM 2 or 2.1, which have a memory; this is {self.model.variant}.")
        if not self.is_sam2 or track is False:
            return False
        if all(asked.get(name) is None for name in POINTING):
            return bool(track)
        return bool(track) or moving

    def _worker(self, kind: type[Predictor] | None, overrides: dict[str, Any]) -> Predictor:
        """Make a predictor over the shared network: each call its own, so that two streams never meet.

        Only the one there is goes on that carries trackers across calls, or objects that were shown to it.
        """
        kind, before = kind or self.task_map["segment"]["predictor"], self.predictor
        tracks = overrides.get("mode") == "track" and hasattr(before, "trackers")
        if before is not None and type(before) is kind and (tracks or kind.outlives_calls):
            before.reconfigure(overrides)
            return before
        worker = kind(overrides=overrides, _callbacks=self.callbacks)
        worker.setup_model(self.model, verbose=host.from_shell())
        if before is not None and all(getattr(before.args, k) == getattr(worker.args, k) for k in SAVED_BY):
            worker.save_dir = before.save_dir  # as YOLO does: the calls of one process save into one folder
        self.predictor = worker
        return worker


def _stand_in(embedding: Any) -> Any:
    """What to show when no source is given: Ultralytics' pictures, or black of the embedded picture's size."""
    if embedding is None:
        from ultralytics.utils import ASSETS

        LOGGER.warning(f"'source' is missing. Using 'source={ASSETS}'.")
        return ASSETS
    read = embedding if isinstance(embedding, Embedding) else Embedding.load(embedding)
    return np.zeros((*read.view.picture, 3), np.uint8)
