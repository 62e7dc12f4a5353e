"""Ultralytics' loop with our arguments and our networks; what is answered is left to the predictors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samplug import arguments, host
from samplug.checkpoints import BUNDLED, adopt, load_model
from samplug.host import DEFAULT_CFG, LOGGER, BasePredictor, Results
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.predict.faults import Faults
from samplug.predict.finish import Finish
from samplug.predict.items import Items, as_items, replaced
from samplug.predict.prompter import Prompter
from samplug.predict.recordings import Recordings
from samplug.predict.saving import check_drawing, fitted, write_picture
from samplug.predict.streams import counting, dropped
from samplug.predict.switches import asked_form, network_in
from samplug.room import RoomError

NOT_FOR_PHOTOS = (
    f"{Path(BUNDLED).stem} comes with samplug and was trained on drawn scenes: it is not a photo model. For photos "
    "name mobile_sam.pt, sam_b.pt, sam_l.pt or one of sam2.1_t.pt … sam2.1_l.pt (t, s, b, l), which are fetched."
)


class Loop(BasePredictor):
    """A `BasePredictor` that knows what was said, by whom, and runs one of our networks.

    Every argument of ours (`samplug.arguments.OWN`) may stand in `overrides`, in `set_prompts` or in the call; the
    later wins. Without `imgsz` the network's own size is used, without `batch` one picture at a time, without `conf`
    every prompted mask is kept.

    Attributes:
        model: the network, shared between predictors and never changed by running.
        plain: the network in float32, which `model` is or was made from.
        device: where it runs.
        prompts: what `set_prompts` stored for the next run.
        prompter: what finds objects by itself, None without `prompter=`.
        faults: what the last run left out, `faults.all`, and why.
        mean, std: (3, 1, 1) pixel statistics, 0-255.
    """

    mean: Any
    std: Any
    dataset: Any
    plotted_img: Any
    follows = False  # whether it follows objects through memory
    outlives_calls = False  # whether `SAM` goes on with the one it has when it is asked for this class again

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        overrides = overrides or {}
        super().__init__(cfg, self._host_arguments(overrides), _callbacks)
        self._listen(overrides)
        self.prompts: dict[str, Any] = {}
        self.prompter: Prompter | None = None
        self.faults = Faults()
        self._recordings = Recordings()

    @staticmethod
    def _host_arguments(overrides: dict[str, Any]) -> dict[str, Any]:
        """Copy the host's arguments out of what was given, with our defaults where nothing was said."""
        _, theirs = arguments.split(overrides)
        fixed = {"task": "segment", "retina_masks": True}
        return {"mode": "predict", "batch": 1, "model": BUNDLED, **theirs, **fixed}

    def _listen(self, overrides: dict[str, Any]) -> None:
        """Remember what was said, as opposed to what the host fills in."""
        self.options, said = arguments.split(overrides)
        self.said = dict(self.options)
        self.own_size = said.get("imgsz") is None
        self._nobodys_conf = 0.25 if host.chosen_conf(said) is None else None

    @property
    def conf(self) -> float | None:
        """Rows with a score not above this are left out; None, unless somebody chose a `conf`."""
        return None if self.args.conf == self._nobodys_conf else self.args.conf

    def _option(self, name: str) -> Any:
        """An argument of ours as it stands in this run."""
        return self.said.get(name, arguments.OWN[name].default)

    def reconfigure(self, overrides: dict[str, Any]) -> None:
        """Take the arguments of another call: what `SAM.track(persist=True)` needs to keep its trackers."""
        self.args = host.get_cfg(DEFAULT_CFG, self._host_arguments(overrides))
        self._listen(overrides)

    # Setting up

    def get_model(self) -> SAMModel | SAM2Model:
        """Load `args.model` (a path or the name of a checkpoint)."""
        return load_model(self.args.model)

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Put a network to work: ours, a path, Ultralytics' SAM module (its weights are copied), or `args.model`."""
        with torch.inference_mode(False), torch.no_grad():  # the network outlives this call
            if isinstance(model, str):
                model = load_model(model)
            model = self.get_model() if model is None else adopt(model)
            self.device = host.select_device(self.args.device, verbose=verbose)
            self.plain = model.to(self.device).eval()
        self._take_form()
        if self.model.variant == Path(BUNDLED).stem and self.args.verbose:
            host.say_once(NOT_FOR_PHOTOS)
        self.mean, self.std = self.plain.pixel_mean.float(), self.plain.pixel_std.float()
        self.done_warmup = True

    def _take_form(self, size: tuple[int, int] | None = None) -> None:
        """Compute as was asked for from now on; compiled as soon as the size (h, w) of the input is known."""
        self.form = asked_form(self.args, self._option, self.device)
        self.model = network_in(self.form, self.plain, size, self.follows)
        self.torch_dtype = self.form.dtype
        host.brand(self.model, self.torch_dtype == torch.float16)

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source; None goes on with the picture given to `set_image`."""
        prompter = self._option("prompter")
        self.prompter = None if prompter is None else Prompter(prompter, self.args.device)
        if source is None:
            if self.dataset is None:
                raise RuntimeError("There is no picture yet: give a source, or call set_image(picture) first.")
        else:
            self._open_source(source)
        self._take_form((self.imgsz[0], self.imgsz[1]))

    def _open_source(self, source: Any) -> None:
        host.drop_unsupported(self.args)
        self.args.retina_masks = True
        if self.own_size:
            self.args.imgsz = list(self.plain.image_size)
        self.faults = Faults(self._option("on_error"))
        host.setup_source(self, self._loader_of(source), self.plain.stride)
        self.dataset = counting(self._replaced(self.dataset))

    def _loader_of(self, source: Any) -> Any:
        """What runs over files and pictures and leaves out what is bad; streams and screens are the host's."""
        return as_items(source, self.faults, self.args.batch, self.args.vid_stride)

    def _replaced(self, loader: Any) -> Any:
        """The same in the place of a loader that the host made."""
        return replaced(loader, self.faults)

    def _cores(self) -> AbstractContextManager:
        """Compute on as many threads as were asked for, else on every core."""
        return host.all_cores(self._option("threads"))

    # Running

    def set_prompts(self, prompts: dict[str, Any]) -> None:
        """Store arguments for the next run, which then forgets them."""
        self.prompts = dict(prompts)

    def stream_inference(self, source: Any = None, model: Any = None, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Run over a source, one `Results` a picture; also a run that is broken off lets go of files and cameras."""
        stored, self.prompts = self.prompts, {}
        self.said = {**self.options, **{k: v for k, v in stored.items() if v is not None}, **kwargs}
        arguments.check(self.said)
        try:
            with self._recordings:
                yield from super().stream_inference(source, model, *args, **self.said)
                self.faults.conclude(self.seen)
        finally:
            if hasattr(self.dataset, "close"):
                self.dataset.close()
            for name, count in self.dropped_frames.items():
                LOGGER.info(f"{name}: {count} frames dropped, {self.seen // len(self.dropped_frames)} done")

    @property
    def dropped_frames(self) -> dict[str, int]:
        """How many frames of each live stream came and went unread so far, by its name."""
        return dropped(self.dataset)

    def _finish(self, keep_empty: bool = True, apart: bool = False) -> Finish:
        """What becomes of answers; `apart`: each pixel is left to one object where nobody said otherwise."""
        non_overlap = self._option("non_overlap")
        return Finish(
            threshold=self.model.mask_threshold,
            conf=self.conf,
            classes=self.args.classes,
            keep_empty=keep_empty,
            keep_logits=self._option("logits"),
            fill_holes=self._option("fill_holes"),
            min_area=self._option("min_area"),
            non_overlap=apart if non_overlap is None else non_overlap,
        )

    def _leave_out(self, rows: Sequence[int]) -> None:
        """Take pictures out of the batch in hand: Ultralytics' loop goes by the lists that it handed over."""
        for column in self.batch:
            for row in sorted(rows, reverse=True):
                del column[row]

    # Saving

    def write_results(self, i: int, p: Path, im: Any, s: list[str]) -> str:
        """Print and save one result; what is too large to be drawn is saved without its drawing."""
        wanted = self.args.save, self.args.show
        try:
            if any(wanted):
                check_drawing(self.results[i])
        except RoomError as error:
            self.faults.meet(str(p), error)
            self.args.save = self.args.show = False
        try:
            return super().write_results(i, p, im, s)
        finally:
            self.args.save, self.args.show = wanted

    def save_predicted_images(self, save_path: Path, frame: int | None = 0) -> None:
        """Save the drawing: a picture in one step, a frame at the size of its video's first.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        if self.dataset.mode == "image":
            write_picture(save_path.with_suffix(".jpg"), self.plotted_img)
            return
        recording = self._recordings.of(save_path, self.plotted_img.shape[:2])
        shape = recording.shape
        self.plotted_img = fitted(self.plotted_img, shape)
        recording.check_room()
        self._write_frame(save_path, frame)
        recording.took(self.vid_writer[save_path])
        if self.args.save_frames:
            folder = save_path.with_name(f"{save_path.stem}_frames")
            folder.mkdir(parents=True, exist_ok=True)
            write_picture(folder / f"{save_path.stem}_{frame}.jpg", self.plotted_img)

    def _write_frame(self, save_path: Path, frame: int | None) -> None:
        """Write a frame of a video, without the picture of it: Ultralytics does not look whether that succeeds."""
        wanted, self.args.save_frames = self.args.save_frames, False
        try:
            super().save_predicted_images(save_path, frame)
        finally:
            self.args.save_frames = wanted

    # Going elsewhere

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what does not belong to this process: neither files and cameras in use nor the lock."""
        state = dict(vars(self), vid_writer={}, _recordings=Recordings(), prompter=None)
        del state["_lock"]
        if hasattr(self.dataset, "close") and not isinstance(self.dataset, Items):
            state |= dict.fromkeys(("dataset", "batch"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
