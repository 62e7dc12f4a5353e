"""Ultralytics' loop with our options and networks, which every predictor runs."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samplug import arguments, host, resources
from samplug.checkpoints.load import BUNDLED, adopt, load_model, require_values
from samplug.errors import DataError, OutOfMemoryError, SlipLog
from samplug.files.atomic import short_stem
from samplug.host import DEFAULT_CFG, LOGGER, BasePredictor, Results
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.memory_estimate import INPUT_PIXEL_BYTES, LARGE_INPUT
from samplug.predict.prediction import report_unused_files, report_unused_options
from samplug.predict.results.build import PostprocessOptions
from samplug.predict.results.saved import Recording, Recordings, check_drawing, resize_frame, write_image
from samplug.runtime.compute import compute_options_of, network_for
from samplug.runtime.run_guard import RunGuard
from samplug.runtime.threads import use_threads
from samplug.runtime.torch_state import lasting_tensors
from samplug.sources.errors import ErrorPolicy
from samplug.sources.image_loader import ImageLoader, image_loader_of
from samplug.sources.live import FrameQueue, count_dropped
from samplug.values import check_folder

NOT_FOR_PHOTOS = (
    f"{Path(BUNDLED).stem} comes with samplug and was trained on drawn scenes: it is not a photo model. For photos "
    "name mobile_sam.pt, sam_b.pt, sam_l.pt or one of sam2.1_t.pt … sam2.1_l.pt (t, s, b, l), which are fetched."
)
NO_VIDEO = "There is no video yet: call the predictor with a source first, or give prompts= with it."
NO_IMAGE = "There is no image yet: give a source, or call set_image(image) first."
FRAME_NAME_BYTES = 16  # what the names of a video's frames have beside the video's


class PredictorBase(BasePredictor):
    """`BasePredictor` with our options and networks. Remembers which options the caller set.

    Every option of ours (`samplug.arguments.OWN`) may come in `overrides`, in `set_prompts` or in the call; the
    later wins. Without `imgsz` the network's own size is used, without `batch` one image at a time (a list of
    arrays at once), without `conf` every prompted mask is kept.

    Attributes:
        model: the network, shared between predictors and never changed by running.
        fp32_model: the network in float32, which `model` is or was made from.
        device: where it runs.
        prompts: what `set_prompts` stored for the next run.
        errors: the inputs that the last run skipped, `errors.all`, and why.
        mean, std: (3, 1, 1) pixel statistics, 0-255.
    """

    args: Any
    save_dir: Any
    model: Any
    mean: Any
    std: Any
    dataset: Any
    batch: Any
    plotted_img: Any
    follows = False  # whether it tracks objects through memory
    may_lose_objects = False  # whether objects are found, by their ids, or not
    non_overlap_masks = arguments.NON_OVERLAP_DEFAULT["images"]
    outlives_calls = False  # whether `SAM` keeps the predictor of this class from call to call

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        overrides = overrides or {}
        self._guard = RunGuard()
        super().__init__(cfg, self._host_arguments(overrides), _callbacks)
        self._store_overrides(overrides)
        self.prompts: dict[str, Any] = {}
        self.errors, self._slips = ErrorPolicy(), SlipLog()
        self._recordings = Recordings()
        self._written: dict[int, tuple[Any, ...]] = {}  # what wrote each result of the batch, to write it once more

    @staticmethod
    def _host_arguments(overrides: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' arguments among the given ones, with our defaults for the others."""
        _, theirs = arguments.split(overrides)
        arguments.check_host(theirs, host.DEFAULT_CFG_DICT)
        fixed = {"task": "segment", "retina_masks": True}
        return {"mode": "predict", "batch": 1, "model": BUNDLED, **theirs, **fixed}

    def _store_overrides(self, overrides: dict[str, Any]) -> None:
        """Remember what the caller set, as opposed to Ultralytics' defaults."""
        self.options, given = arguments.split(overrides)
        arguments.check(self.options)
        self.run_options = dict(self.options)
        self.own_size, self._batch = given.get("imgsz") is None, host.chosen_batch(given)
        self._default_conf = 0.25 if host.chosen_conf(given) is None else None

    @property
    def conf(self) -> float | None:
        """Rows with a score not above this are dropped; None, unless the caller set a `conf`."""
        return None if self.args.conf == self._default_conf else self.args.conf

    def _option(self, name: str) -> Any:
        """An argument of ours as it stands in this run."""
        return self.run_options.get(name, arguments.OWN_DEFAULTS[name])

    def reconfigure(self, overrides: dict[str, Any]) -> None:
        """Replace the options: `SAM.track(persist=True)` keeps the predictor, and so its trackers, across calls."""
        with self._guard.run("this call"):
            args = host.get_cfg(DEFAULT_CFG, self._host_arguments(overrides))
            folder = self.save_dir if host.name_one_folder(self.args, args) else host.run_folder(**vars(args))
            self._store_overrides(overrides)
            self.args, self.save_dir = args, folder

    # Setting up

    def get_model(self) -> SAMModel | SAM2Model:
        """Load `args.model` (a path or the name of a checkpoint)."""
        return load_model(self.args.model)

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Load a network: one of ours, a path, Ultralytics' SAM module (its weights are copied), or `args.model`."""
        with lasting_tensors():  # the network outlives this call
            if isinstance(model, str | Path):
                model = load_model(model)
            model = self.get_model() if model is None else adopt(model)
            require_values(model)
            self.device = host.select_device(self.args.device, verbose=verbose)
            self.fp32_model = model.to(self.device).eval()
        self._apply_compute_options()
        if self.model.variant == Path(BUNDLED).stem and self.args.verbose:
            host.say_once(NOT_FOR_PHOTOS)
        self.mean, self.std = self.fp32_model.pixel_mean.float(), self.fp32_model.pixel_std.float()
        self.done_warmup = True

    def _apply_compute_options(self, size: tuple[int, int] | None = None) -> None:
        """Make `model` compute as the options say; compiled as soon as the size (h, w) of the input is known."""
        self.compute_options = compute_options_of(self.args, self.run_options, self.device)
        self.model = network_for(self.compute_options, self.fp32_model, size, self.follows)
        self.torch_dtype = self.compute_options.dtype
        host.brand(self.model, self.torch_dtype == torch.float16)

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source; None goes on with the image given to `set_image`."""
        if source is None:
            if self.dataset is None:
                raise RuntimeError(NO_IMAGE)
            self._guard.require_own_source()
        else:
            self._open_source(source)
            self._guard.note_source()
        if formats := self.run_options.get("save_format"):
            from samplug.predict.results.labels import check_label_places  # here: few runs need the writers

            check_label_places(formats, Path(self.save_dir), getattr(self.dataset, "files", ()))
        height, width = self.imgsz
        if height * width >= LARGE_INPUT:
            need = INPUT_PIXEL_BYTES * height * width
            resources.require_memory(need, f"imgsz={[height, width]}", "give a smaller one")
        self._apply_compute_options((height, width))

    def _open_source(self, source: Any) -> None:
        host.require_regular_file(self.args.tracker)
        check_folder(self.save_dir)
        host.drop_unsupported(self.args)
        self.args.retina_masks = True
        if self.own_size:
            self.args.imgsz = list(self.fp32_model.image_size)
        self.errors = ErrorPolicy(self._option("on_error") or ("raise" if self._option("strict") else None))
        host.setup_source(self, self._loader_of(source), self.fp32_model.stride)
        self.dataset = count_dropped(self._loader_of(self.dataset))
        if not self.follows:
            report_unused_files(self.run_options, self.dataset)
            report_unused_options(self.run_options)

    def _loader_of(self, source: Any) -> Any:
        """Our loader of files and images, also in place of Ultralytics' own; streams and screens stay as they are."""
        return image_loader_of(source, self.errors, self._batch, self.args.vid_stride)

    def _threads(self) -> AbstractContextManager:
        """Compute on `threads=` threads, else on every core, in torch's default state."""
        return use_threads(self.run_options.get("threads"))

    # Running

    def set_prompts(self, prompts: dict[str, Any]) -> None:
        """Store arguments for the next run, which then forgets them."""
        self.prompts = dict(prompts)

    def stream_inference(self, source: Any = None, model: Any = None, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Run over a source, one `Results` an image; files and cameras are closed also if the run is interrupted.

        Raises:
            RuntimeError: the predictor is in use: by an open stream, by its own callback, by another thread.
        """
        with self._guard.run("this call"), closing(self._run(source, model, *args, **kwargs)) as results:
            for result in results:
                try:
                    with self._guard.between_results():
                        yield result
                except Exception as error:  # thrown in by whoever reads the results: the run ends with it
                    results.throw(error)

    def _run(self, source: Any, model: Any, *args: Any, **kwargs: Any) -> Generator[Results, None, None]:
        """Run over a source, as `stream_inference` does, unguarded."""
        stored, self.prompts = self.prompts, {}
        self.run_options = {**self.options, **{k: v for k, v in stored.items() if v is not None}, **kwargs}
        arguments.check(self.run_options)
        self._slips = SlipLog(self._option("strict"))
        try:
            with self._recordings:
                try:
                    results = self._labelled(super().stream_inference(source, model, *args, **self.run_options))
                    yield from self._slips.watch(results)
                    self.errors.conclude(self.seen)
                finally:  # the last frames, which have waited for a correction
                    for path, recording in self._recordings.all.items():
                        self._write_waiting(path, recording)
        finally:
            if hasattr(self.dataset, "close"):
                self.dataset.close()
            for name, count in self.dropped_frames.items():
                LOGGER.info(f"{name}: {count} frames dropped, {self.seen // len(self.dropped_frames)} done")

    def _labelled(self, results: Any) -> Any:
        """The results of a generator, written as labels on their way where `save_format` is given."""
        formats = self._option("save_format")
        if not formats:
            return results
        if self.args.save_txt and "yolo" in str(formats):
            raise DataError("save_txt=True and save_format=yolo both write labels/. Expected one of them.")
        from samplug.predict.results.labels import LabelFiles  # here: few runs need the writers

        return LabelFiles(formats, self.save_dir, self.args.save_frames).watch(results, lambda: self.results)

    @property
    def dropped_frames(self) -> dict[str, int]:
        """How many frames of each live stream were dropped so far, by its name."""
        waiting = getattr(self.dataset, "imgs", None)
        return dict(zip(waiting.names, waiting.dropped, strict=True)) if isinstance(waiting, FrameQueue) else {}

    def _postprocess_options(self) -> PostprocessOptions:
        """Post-processing options of the run."""
        option = arguments.OWN_DEFAULTS | self.run_options
        return PostprocessOptions(
            threshold=self.model.mask_threshold,
            conf=self.conf,
            classes=self.args.classes,
            keep_empty=option["keep_lost"] or not self.may_lose_objects,
            keep_logits=option["logits"],
            fill_holes=option["fill_holes"],
            min_area=option["min_area"],
            non_overlap=self.non_overlap_masks if option["non_overlap"] is None else option["non_overlap"],
            save_ids=option["save_ids"],
        )

    def _drop_images(self, rows: Sequence[int]) -> None:
        """Take images out of the current batch: Ultralytics' loop reads the lists of the batch."""
        for column in self.batch:
            for row in sorted(rows, reverse=True):
                del column[row]

    # Saving

    def write_results(self, i: int, p: Path, im: Any, s: list[str]) -> str:
        """Print and save one result; one that is too large to be drawn is saved without its drawing."""
        wanted = self.args.save, self.args.show
        try:
            if any(wanted):
                check_drawing(self.results[i])
        except OutOfMemoryError as error:
            self.errors.handle(str(p), error)
            self.args.save = self.args.show = False
        try:
            line = super().write_results(i, p, im, s)
            self._written[i] = self.txt_path, getattr(self.results[i], "crops", ()), (p, im, s)
            return line
        finally:
            self.args.save, self.args.show = wanted

    def _write_again(self, i: int) -> None:
        """Write a result of the batch once more, after a correction."""
        if i in self._written:
            labels, crops, given = self._written[i]
            for file in (Path(f"{labels}.txt"), *crops):
                file.unlink(missing_ok=True)
            self.write_results(i, *given)

    def save_predicted_images(self, save_path: Path, frame: int | None = 0) -> None:
        """Save the drawing: an image in one step; a frame of a video when the next comes: it may still be corrected.

        OSError where the disk is full, or the folder cannot be written.
        """
        if self.dataset.mode == "image":
            write_image(save_path.with_suffix(".jpg"), self.plotted_img)
            return
        drawing = self.plotted_img
        recording = self._recordings.of(save_path, drawing.shape[:2])
        for path, each in self._recordings.all.items() if self.dataset.mode == "video" else [(save_path, recording)]:
            if path != save_path or frame is None or each.waiting and each.waiting[0] != frame:
                self._write_waiting(path, each)
        recording.waiting = frame, drawing

    def _write_waiting(self, save_path: Path, recording: Recording) -> None:
        """Write the frame that waits, at the size of its video's first."""
        if recording.waiting is None:
            return
        (frame, image), recording.waiting = recording.waiting, None
        self.plotted_img = resize_frame(image, recording.shape)
        recording.check_disk()
        self._write_frame(save_path, frame)
        recording.count_frame(self._recordings.writers[save_path])
        if self.args.save_frames:
            stem = short_stem(save_path, FRAME_NAME_BYTES)
            folder = save_path.with_name(f"{stem}_frames")
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{stem}_{frame}.jpg", self.plotted_img)

    def _write_frame(self, save_path: Path, frame: int | None) -> None:
        """Write a frame of a video, without its image: Ultralytics does not check whether that succeeds.

        Its loop finds no writer to close when it ends: a last frame is still to come.
        """
        wanted, self.args.save_frames = self.args.save_frames, False
        self.vid_writer = self._recordings.writers
        try:
            super().save_predicted_images(save_path, frame)
        finally:
            self.args.save_frames, self.vid_writer = wanted, {}

    # Pickling

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what belongs to this process: open files and cameras, and the lock."""
        state = dict(vars(self), vid_writer={}, _recordings=Recordings(), _written={})
        del state["_lock"], state["_guard"]
        if hasattr(self.dataset, "close") and not isinstance(self.dataset, ImageLoader):
            state |= dict.fromkeys(("dataset", "batch"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._guard = threading.Lock(), RunGuard()
