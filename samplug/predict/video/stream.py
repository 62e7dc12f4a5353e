"""One video or stream in progress: its objects, the prompts that are still to come, and the current frame."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.errors import UnknownSizeError, reject, report_slip
from samplug.host import LOGGER, Results
from samplug.nn.constants import ABSENT_LOGIT, DEFAULT_PRESENCE_LOGIT, MASK_STRIDE
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.structs import Features
from samplug.predict.base import NO_VIDEO
from samplug.predict.prediction import Prediction
from samplug.predict.results.build import ImageInfo, MaskRows, PostprocessOptions, build_results
from samplug.predict.results.objects import add_object_fields, classes_of, video_confidence
from samplug.prompts.coords import read_integer
from samplug.prompts.objects import Prompts, prompt_batches
from samplug.prompts.per_frame import FIRST_FRAME, FramePrompts, read_frame_number, read_object
from samplug.runtime.finite import check_finite
from samplug.sources.video import Video
from samplug.tracking import Objects, Tracker
from samplug.transforms import ImageTransform

EncodeImage = Callable[[np.ndarray], tuple[ImageTransform, Features]]
STATE_FIELDS = ("time_step", "tracked_frames", "any_detected", "last_boxes", "classes", "names", "max_id")


@dataclass(frozen=True, eq=False)
class FrameInfo(ImageInfo):
    """One frame, with its number in its source, from 0."""

    number: int


class KeptOutputs:
    """The objects on each frame by its number, in a temporary file, so that a video may have any length."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115  open as long as this lives
        weakref.finalize(self, self._file.close)
        self._places: dict[int, int] = {}

    def put(self, number: int, objects: Objects) -> None:
        """Keep the objects of a frame; later ones take the place of earlier ones."""
        self._places[number] = self._file.seek(0, 2)
        pickle.dump(objects, self._file, pickle.HIGHEST_PROTOCOL)

    def pop(self, number: int) -> Objects | None:
        """The objects of a frame; None where it was not run."""
        if number not in self._places:
            return None
        self._file.seek(self._places.pop(number))
        return pickle.load(self._file)  # written above, by this process


@dataclass(eq=False)
class VideoStream:
    """One video or stream."""

    tracker: Tracker  # the memory of its objects
    prompts: FramePrompts = field(default_factory=FramePrompts)  # those for frames that are still to come
    index: int = 0  # which of the source's videos this is
    video: Video | None = None  # None for what Ultralytics' loaders stream
    stride: int = 1  # frames from one to the next
    starts_run: bool = True  # the prompts of the run, those of its first frame among them, are still to be taken
    time_step: int = -1  # the tracker's number of the current frame: no gaps, for neither a stride nor a lost signal
    frame: FrameInfo | None = None  # the current frame, None before the first
    features: Features | None = None  # the frame's, None where a stream lost its signal
    objects: Objects = field(default_factory=Objects)  # the objects on the current frame
    backwards: bool = False  # whether this pass goes backwards
    tracked_frames: int = 0  # how many frames were tracked, those without a signal left out
    any_detected: bool = False  # whether a detector has found anything
    last_boxes: dict[int, Tensor] = field(default_factory=dict)  # (4,) xyxy, where a detector runs; the last seen last
    detected: set[int] = field(default_factory=set)  # the objects that a detector found
    classes: dict[int, int] = field(default_factory=dict)  # of each object that was given one
    names: dict[int, str] = field(default_factory=dict)  # of classes
    max_id: int = -1  # the largest id that an object has had
    ended: bool = False  # whether no frame is to come
    kept: KeptOutputs | None = None  # the answers of a video that is run both ways, until they are given out
    gives_out: bool = False  # whether they are being given out

    def step(self, frame: FrameInfo, features: Features | None, backwards: bool = False) -> None:
        """Segment the next frame: prompted objects by their prompts, all others by memory.

        Without features the signal is lost: every object is absent, and nothing is remembered.
        """
        if features is not None:
            self._log_moved_prompts(frame, backwards)
        prompts = [] if features is None else self.prompts.pop(frame.number, backwards, frame.transform.image_size)
        if backwards != self.backwards:
            self.tracker.rewind(reverse=backwards)
            self.backwards = backwards
        self.frame, self.features = frame, features
        if features is None:
            self.objects = absent_objects(self.tracker.ids, frame.transform)
            return
        self._forget_expired()
        self.time_step = frame.number // self.stride if self.can_seek else self.time_step + 1
        self.tracker.start_frame(self.time_step, features)
        for prompt in prompts:
            self.prompt(prompt, frame.transform)
        self.objects = self.tracker.step()
        self.tracked_frames += 1

    def keep_output(self) -> bool:
        """Keep the current answer, where answers are given out later; whether they are."""
        if self.kept is not None:
            self.kept.put(self.current_frame.number, self.objects)
        return self.kept is not None

    def give_out(self, frame: FrameInfo) -> bool:
        """Let a frame come again with the answer that was kept; whether there is one."""
        objects = None if self.kept is None else self.kept.pop(frame.number)
        if objects is not None:
            self.frame, self.objects, self.gives_out = frame, objects, True
        return objects is not None

    def _log_moved_prompts(self, frame: FrameInfo, backwards: bool) -> None:
        """Say which frame takes prompts that were given for another, or for the first of a run that begins later."""
        moved = ", ".join(map(str, self.prompts.moved_to(frame.number, backwards)))
        started_late = self.frame is None and frame.number and not backwards
        if moved or started_late and self.prompts.first is not None and self.prompts.first.has_location:
            which = f"for frame {moved}" if moved else "of the first frame"
            came = f"{frame.path}: prompts {which} are used on frame {frame.number}"
            (report_slip if moved else LOGGER.info)(f"{came}, the next that is run (frames count from 0).")

    @property
    def current_frame(self) -> FrameInfo:
        """The frame that was stepped last."""
        assert self.frame is not None
        return self.frame

    @property
    def next_number(self) -> int:
        """The number of the frame after the current one, where frames are only counted."""
        return 0 if self.frame is None else self.frame.number + 1

    @property
    def can_seek(self) -> bool:
        """Whether an earlier frame can be read again."""
        return self.video is not None and self.video.seekable

    def _forget_expired(self) -> None:
        """Drop classes and boxes of objects that the tracker removed: a stream may have any number of them."""
        alive = set(self.tracker.ids)
        self.classes = {obj_id: cls for obj_id, cls in self.classes.items() if obj_id in alive}
        self.last_boxes = {obj_id: box for obj_id, box in self.last_boxes.items() if obj_id in alive}
        self.detected &= alive

    # Prompts

    def add_prompts(
        self, obj_id: int, raw: dict[str, Any], number: int | None, encode: EncodeImage
    ) -> FrameOutput | None:
        """Prompt an object, new or known, on a frame by its number, None for the current one, by `raw` arguments.

        On a frame still to come the prompts wait, before the first also with None, and the answer is None; on the
        current or an earlier one, of which `encode` gives transform and features, they change the answer at once.
        """
        number = None if number is None else read_frame_number(number)
        if self.frame is None or number is not None and self._is_ahead(number):
            obj_id = read_integer("obj_id", obj_id)
            with suppress(UnknownSizeError):
                read_object(obj_id, raw, None)
            self._check_comes(number)
            self.prompts.add(FIRST_FRAME if number is None else number, {obj_id: raw})
            return None
        if number is None or number == self.current_frame.number:
            return self._correct(obj_id, raw)
        return self._correct_earlier(obj_id, raw, number, encode)

    def _check_comes(self, number: int | None) -> None:
        """Refuse a frame ahead that will not come."""
        if self.ended:
            last = "before its first" if self.frame is None else f"with frame {self.frame.number}"
            came = f"frame {'0' if number is None else number} will not come: the run ended {last}"
            reject("frame_idx", came, "a frame that was run, or prompts with the next run")
        length = None if self.video is None else self.video.length
        if length is not None and number is not None and number >= length:
            reject("frame_idx", f"there is no frame {number}", f"0 to {length - 1}: the video has {length} frames")

    def _is_ahead(self, number: int) -> bool:
        current = self.current_frame.number
        return number < current if self.backwards else number > current

    def prompt(self, prompts: Prompts, transform: ImageTransform, without_memory: bool = False) -> FrameOutput:
        """Prompt one object on the tracker's frame; `without_memory`: as if it had not been tracked."""
        assert prompts.ids is not None
        (obj_id,), (prompt,) = prompts.ids, prompts.objects
        if prompt.mask is not None:
            mask = (transform.mask_to_input(prompt.mask, stride=1) > 0).float()
            output = self.tracker.prompt(obj_id, mask=mask[None, None], without_memory=without_memory)
        else:
            ((_, batch),) = prompt_batches([prompts], [transform], device=self.tracker.model.device)
            output = self.tracker.prompt(obj_id, batch, without_memory=without_memory)
        self.max_id = max(self.max_id, obj_id)
        self.classes |= {} if prompts.cls is None else {obj_id: prompts.cls[0]}
        self.names |= prompts.names or {}
        return output

    def _correct(self, obj_id: int, raw: dict[str, Any]) -> FrameOutput:
        """Prompt an object on the current frame."""
        if self.features is None:
            reject("frame_idx", "the current frame is black, the stream lost its signal", "a later frame")
        transform = self.current_frame.transform
        output = self.prompt(read_object(obj_id, raw, transform.image_size), transform)
        self.objects = self.tracker.step()
        return output

    def _correct_earlier(self, obj_id: int, raw: dict[str, Any], number: int, encode: EncodeImage) -> FrameOutput:
        """Prompt an object on an earlier frame, and segment the current one again."""
        current = self.current_frame.number
        if self.video is None or not self.can_seek:
            expected = f"{current} or None, the frame returned last, or a later one"
            reject("frame_idx", f"frame {number} has passed, and this source cannot seek back to it", expected)
        if (number - current) % self.stride:
            reject("frame_idx", f"frame {number} is left out by vid_stride={self.stride}", "a frame that is run")
        assert self.features is not None
        LOGGER.info(
            f"Object {obj_id} is prompted on frame {number}, an earlier one: the frame returned last is {current} "
            "(without frame_idx= that one is meant; frames count from 0)."
        )
        transform, features = encode(self.video.read(number).image)
        prompts = read_object(obj_id, raw, transform.image_size)
        self.tracker.start_frame(number // self.stride, features)
        output = self.prompt(prompts, transform)
        self.tracker.start_frame(self.time_step, self.features)
        self.objects = self.tracker.step()
        return output

    def remove(self, obj_id: int) -> None:
        """Remove an object; ValueError if there is none, PromptError where its id is not a whole number."""
        obj_id = read_integer("obj_id", obj_id)
        had_prompts = self.prompts.forget(obj_id)
        if obj_id in self.tracker.ids or not had_prompts:
            self.tracker.remove(obj_id)
        self._drop_row(obj_id)

    def clear_prompts(self, obj_id: int | None) -> None:
        """Clear the prompts of an object, or of all; ValueError if there is none."""
        obj_id = None if obj_id is None else read_integer("obj_id", obj_id)
        had_prompts = self.prompts.forget(obj_id)
        for each in self.tracker.ids if obj_id is None else (obj_id,):
            if each in self.tracker.ids or not had_prompts:
                self.tracker.clear_prompts(each)
            self._drop_row(each)

    def reset(self) -> None:
        """Remove all objects; the current frame stays."""
        self.tracker.reset()
        self.prompts.forget(None)
        self.objects = Objects()
        if self.features is not None:
            self.tracker.start_frame(self.time_step, self.features)

    def end(self, report: bool) -> None:
        """Take no more prompts for frames to come; report those for frames past the end, if asked to."""
        self.ended = True
        unused = ", ".join(map(str, self.prompts.frames))
        if self.frame is not None and unused and report:
            report_slip(
                f"{self.frame.path}: prompts for frame {unused} were not used, the last frame was number "
                f"{self.frame.number} (frames count from 0)."
            )

    def state(self) -> dict[str, Any]:
        """All that the frames after the current one depend on, for `torch.save`; later frames do not change it."""
        return {"tracker": self.tracker.state(), **{name: copy(getattr(self, name)) for name in STATE_FIELDS}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on, as a new stream, behind the frame of a state; its prompts are those that are still to come."""
        self.tracker.restore(state["tracker"])
        for name in STATE_FIELDS:
            setattr(self, name, state[name])
        self.prompts.given = True

    @contextmanager
    def restored_on(self, error: type[BaseException]) -> Iterator[None]:
        """Restore the stream if the block raises such an error: its frame, objects, prompts, classes and names."""
        by_frame = dict(zip(self.prompts.by_frame, map(list, self.prompts.by_frame.values()), strict=True))
        prompts, tracker = replace(self.prompts, by_frame=by_frame), self.tracker.copied()
        before = vars(self) | {"prompts": prompts, "tracker": tracker}
        before |= {"detected": {*self.detected}, "classes": {**self.classes}, "names": {**self.names}}
        try:
            yield
        except error:
            vars(self).update(before)
            raise

    def _drop_row(self, obj_id: int) -> None:
        """Take an object out of the current frame's."""
        rows = [i for i, each in enumerate(self.objects.ids) if each != obj_id]
        if len(rows) < len(self.objects.ids):
            output = None if self.objects.output is None or not rows else self.objects.output[rows]
            self.objects = Objects(tuple(self.objects.ids[i] for i in rows), output)

    # Results

    def prediction(self, image_index: int = 0) -> Prediction:
        """The objects' logits (N, 4h, 4w) and confidences (N,) on the current frame, on the network's device."""
        output, device = self.objects.output, self.tracker.model.device
        if output is None:
            return Prediction(torch.zeros(0, 1, 1, device=device), torch.zeros(0, device=device))
        rows = torch.full((len(output),), image_index, dtype=torch.int64)
        logits, scores = output.logits.to(device), video_confidence(output).to(device)
        if self.features is not None:
            check_finite(self.tracker.model, self.features.image, logits, scores)
        return Prediction(logits, scores, image_index=rows)

    def results(self, prediction: Prediction, options: PostprocessOptions) -> Results:
        """The current frame's `Results`, with its number as `frame` and the fields of its objects."""
        frame, ids = self.current_frame, self.objects.ids
        classes, names = classes_of(ids, self.classes, self.names)
        class_column, id_column = (torch.tensor(column, dtype=torch.int64) for column in (classes, ids))
        rows = MaskRows(prediction.masks, prediction.scores, class_column, names, id_column)
        result, chosen = build_results(rows, frame, options)
        result.frame = frame.number
        return add_object_fields(result, ids, self.objects.output, chosen)


def check_stream_options(start: Any, reverse: Any) -> None:
    """Refuse options that need a source with a beginning and an end: PromptError."""
    for name, value in (("start", start), ("reverse", reverse)):
        if value not in (None, False):
            expected = "a file, a folder or a list: a stream runs forwards, from the frame that comes next"
            reject(name, f"{name}={value!r} came with a stream", expected)


def choose_stream(streams: Mapping[int, VideoStream], index: int | None) -> VideoStream:
    """A stream by its index, None where there is one alone.

    RuntimeError where there are no streams, ValueError where none has this index, or there are several and none was
    named, PromptError where it was run both ways and is being given out.
    """
    if not streams:
        raise RuntimeError(NO_VIDEO)
    if index is None and len(streams) > 1:
        raise ValueError(f"{len(streams)} streams are running: name one, stream=0 is the first.")
    if (index or 0) not in streams:
        raise ValueError(f"There is no stream {index}. Expected 0 to {len(streams) - 1}.")
    if streams[index or 0].gives_out:
        reject("reverse", "'both' has run: its results only come in order now", "prompts before the run, by frame")
    return streams[index or 0]


def continue_streams(streams: Mapping[int, VideoStream], count: int, input_size: tuple[int, ...]) -> bool:
    """Let streams go on with the frames of another source, if they are as many as it has; whether they do.

    PromptError if their objects are remembered at another size of the network's input.
    """
    if len(streams) != count or any(stream.frame is None for stream in streams.values()):
        return False
    before = streams[0].current_frame.transform.input_size
    if before != input_size:
        expected = f"imgsz={list(before)}, at which the objects are remembered, or a call without persist=True"
        reject("imgsz", f"got {list(input_size)} with persist=True", expected)
    for stream in streams.values():  # frames come after those so far and are only counted
        stream.starts_run, stream.index, stream.video, stream.stride, stream.ended = True, 0, None, 1, False
    return True


def absent_objects(ids: tuple[int, ...], transform: ImageTransform) -> Objects:
    """The objects of a stream where no image came: all absent."""
    if not ids:
        return Objects()
    count, (height, width) = len(ids), (side // MASK_STRIDE for side in transform.input_size)
    presence = torch.full((count,), -DEFAULT_PRESENCE_LOGIT)
    logits = torch.full((count, height, width), ABSENT_LOGIT)
    return Objects(ids, FrameOutput(logits, torch.zeros(count, 0), presence, torch.zeros(count)))
