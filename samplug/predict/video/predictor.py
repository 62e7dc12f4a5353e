"""SAM 2 on videos and streams: prompted objects are tracked through memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug import arguments, tracking
from samplug.errors import PromptError, report_slip
from samplug.host import DEFAULT_CFG, LOGGER, Results
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features
from samplug.predict.base import NO_VIDEO
from samplug.predict.detector import Detector, Everything
from samplug.predict.embedded import refuse_embedding
from samplug.predict.image import Predictor, SAM2Predictor
from samplug.predict.prediction import Prediction, public_features, report_files_without
from samplug.predict.results.objects import video_confidence
from samplug.predict.video.detections import detect_objects
from samplug.predict.video.stream import (
    FrameInfo,
    KeptOutputs,
    VideoStream,
    check_stream_options,
    choose_stream,
    continue_streams,
)
from samplug.prompts.per_frame import VideoPrompts
from samplug.prompts.raw import RawPrompts
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.runtime.run_guard import exclusive
from samplug.sources.pixels import batch_as_bgr
from samplug.sources.video import FrameOrder
from samplug.sources.video_loader import VideoLoader, video_loader_of
from samplug.tracking.steps import map_slices
from samplug.transforms import ImageTransform


@exclusive("add_new_prompts", "remove_object", "clear_prompts", "reset", "propagate_in_video_preflight")
class SAM2VideoPredictor(SAM2Predictor):
    """Track prompted objects through videos and streams with SAM 2 or 2.1.

    Sources are video files (each of a folder's by itself), a folder of images as one video, lists of images,
    tensors, iterators of frames, and Ultralytics' streams and screens. Prompts may come on the first frame by the usual
    arguments; ahead, as `prompts={frame: {obj_id: {"points": …, "labels": …}}}`; and from a callback or between two
    results of `stream=True` by `add_new_prompts`.

    A result's `boxes.id` are the objects' ids (`obj_ids=`, else 0, 1, …), `boxes.cls` the classes given, else the ids,
    and `boxes.conf` is sigmoid(presence) · predicted IoU, in (0, 1). In addition `result.frame` is the frame's number
    in its source, from 0; `result.obj_ids`, `result.presence` (logit) and `result.iou` belong to the rows.

    Attributes:
        inference_state: the video or the streams in progress, by their index in the batch.
        non_overlap_masks: leave each pixel of a result to one object.
        clear_non_cond_mem_around_input: a prompt drops the object's tracked memories around its frame; of several
            objects only with `clear_non_cond_mem_for_multi_obj`.
        persist: a run goes on with the objects of the one before, its frames numbered from there.
    """

    follows = may_lose_objects = True

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.non_overlap_masks = arguments.NON_OVERLAP_DEFAULT["videos"]
        self.clear_non_cond_mem_around_input = False
        self.clear_non_cond_mem_for_multi_obj = False
        self.persist = False
        self.inference_state: dict[int, VideoStream] = {}

    # Setup

    def get_model(self) -> SAMModel | SAM2Model:
        """Load `args.model`; prompted frames are remembered as 0 and 1, as they are by this class in any case."""
        model = super().get_model()
        if isinstance(model, SAM2Model):
            model.set_binarize(True)
        return model

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source and forget the objects of the one before."""
        refuse_embedding(self.run_options)
        if source is None:
            raise RuntimeError(NO_VIDEO)
        super().setup_source(source, stride)
        given = map(self.run_options.get, (*arguments.PROMPT_ARGUMENTS, "prompter"))
        if self._option("track") and all(value is None for value in given):
            self.prompter = Detector(Everything(Predictor, self.fp32_model, self.args, self.run_options), Predictor)
        elif self._option("tile"):
            report_slip("tile=: without effect, as memory follows objects in whole frames. track=False has tiles.")
        if isinstance(self.dataset, VideoLoader):
            self.dataset.frame_order = self._frame_order
            report_files_without(self._video_prompts(self.run_options).per_video, self.dataset.files)
        else:
            check_stream_options(self._option("start"), self._option("reverse"))
        self.frames_at_once = AdaptiveBatch.of_images(self.device, 1, self.dataset.bs, "frame")
        if not (self.persist and self._continue()):
            self.init_state(self)

    def _continue(self) -> bool:
        """Go on with the streams of the run before; whether there are as many as in this source."""
        if not continue_streams(self.inference_state, self.dataset.bs, tuple(self.imgsz)):
            return False
        check_stream_options(self._option("start"), self._option("reverse"))
        if isinstance(self.dataset, VideoLoader):
            self.dataset.first_number = self.inference_state[0].next_number
        return True

    def _loader_of(self, source: Any) -> Any:
        return video_loader_of(source, self.errors)

    @staticmethod
    def init_state(predictor: SAM2VideoPredictor) -> None:
        """Start again without objects: every stream of the source, or its first video."""
        predictor.inference_state = {slot: predictor._new_stream(slot) for slot in range(predictor.dataset.bs)}

    def _new_stream(self, index: int) -> VideoStream:
        tracker = tracking.Tracker(
            self.network,
            tracking.policy_of(self._option("policy")),
            max_prompted=self._option("max_prompted"),
            clear_around_input=self.clear_non_cond_mem_around_input,
            clear_for_multi_obj=self.clear_non_cond_mem_for_multi_obj,
            keep_corrections=self._option("keep_corrections"),
            expire_after=self._option("expire_after"),
            run_slices=self.objects_at_once.run,
        )
        video = self.dataset.videos[index] if isinstance(self.dataset, VideoLoader) else None
        stride, kept = 1 if video is None else self.args.vid_stride, self._option("reverse") == "both"
        return VideoStream(tracker, index=index, video=video, stride=stride, kept=KeptOutputs() if kept else None)

    def _frame_order(self, index: int, path: str) -> FrameOrder:
        """Which frames of a file are run; backwards from the last prompted one when prompts are given by frame."""
        prompted = self._video_prompts(self.run_options).for_video(index, path).by_frame
        return FrameOrder(self._option("start"), self.args.vid_stride, self._option("reverse")).from_prompted(prompted)

    def _video_prompts(self, options: dict[str, Any]) -> VideoPrompts:
        raw = RawPrompts.from_options(options)
        if not isinstance(self.dataset, VideoLoader):
            return VideoPrompts(raw, self.dataset.bs)
        prompts = VideoPrompts(raw, self.dataset.nf)
        prompts.per_video.check_files(self.dataset.files)
        return prompts

    def get_im_features(self, im: Tensor, batch: int = 1) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode one image (1, 3, h, w) for prompts without memory, repeated for a batch of objects.

        Returns:
            {"image_embed": (batch, C, h/16, w/16), "high_res_feats": […]}, the no-memory embedding added.
        """
        features = self.network.encode(im)
        if batch > 1:
            features = features[torch.zeros(batch, dtype=torch.int64, device=im.device)]
        return public_features(features)

    # The loop

    def _run(self, source: Any, model: Any, *args: Any, **kwargs: Any) -> Generator[Results, None, None]:
        """Run over a source, one `Results` a frame; the log names prompts for frames that never came.

        However a run ends, prompts for frames to come are refused from then on.
        """
        whole = False
        try:
            yield from super()._run(source, model, *args, **kwargs)
            whole = True
        finally:
            for stream in self.inference_state.values() if not self.persist else ():
                self._end(stream, whole)

    def _end(self, stream: VideoStream, whole: bool = True) -> None:
        """End a stream. Report prompts for frames that never came, where it ran to its end and was not skipped."""
        skipped = isinstance(self.dataset, VideoLoader) and stream.index in self.dataset.skipped
        with self._slips.active():
            stream.end(whole and not skipped)

    def inference(
        self, im: Tensor, bboxes: Any = None, points: Any = None, labels: Any = None, masks: Any = None,
        multimask_output: bool = False, *args: Any, **kwargs: Any,
    ) -> Prediction:  # fmt: skip
        """Segment the objects on the next frame of a video, or of every stream: `im` is (F, 3, h, w), normalised.

        Prompts, as in `Predictor.inference`, also `prompts`, `cls`, `names` and `obj_ids`, are for the first frame;
        `multimask_output` and further `args` are without effect.

        Returns:
            (logits (N, h/4, w/4), scores (N,)) of all objects prompted so far.

        Raises:
            RuntimeError: nothing has been prompted yet, and nothing will be.
            PromptError: a prompt cannot be read or does not fit its frame.
        """
        if self.batch is None:
            raise RuntimeError(NO_VIDEO)
        options = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, **kwargs}
        with self._threads():
            try:
                self._step(im, options)
            except PromptError as error:
                self._skip_video(error)
            return self._prediction()

    def _step(self, im: Tensor, options: dict[str, Any]) -> None:
        """Step by a frame of the video, or of every stream."""
        frames, is_video = self._current_frames(im), isinstance(self.dataset, VideoLoader)
        read_ahead = is_video and self.dataset.count in self.dataset.skipped
        if read_ahead or is_video and self.dataset.again:
            self._drop_images([0] if read_ahead or not self.inference_state[0].give_out(frames[0]) else [])
            return
        self._start_streams(frames, options)
        backwards = is_video and self.dataset.backwards
        features = self._encode_frames(im, [slot for slot, frame in enumerate(frames) if self._has_signal(frame)])
        with ExitStack() as steps:
            for stream in self.inference_state.values():
                steps.enter_context(stream.restored_on(BaseException))  # a frame counts in all streams, or in none
            for slot, frame in enumerate(frames):
                self.inference_state[slot].step(frame, features.get(slot), backwards)
            if self.prompter is not None:
                detect_objects(self.prompter, self.inference_state.values(), self._option)
        if self.inference_state[0].keep_output():
            self._drop_images([0])

    def _skip_video(self, error: PromptError) -> None:
        """Leave out the rest of a video whose prompts do not fit it, where there are others."""
        if not isinstance(self.dataset, VideoLoader) or self.dataset.nf == 1:
            raise error
        self.errors.handle(self.dataset.video.path, error)
        self.dataset.skipped.add(self.dataset.count)
        self._drop_images([0])

    def _current_frames(self, im: Tensor) -> list[FrameInfo]:
        """The batch, frame by frame."""
        paths, originals, *_ = self.batch
        images, transforms = batch_as_bgr(originals), self._transforms(im, originals)
        if isinstance(self.dataset, VideoLoader) and self.dataset.video_frame is not None:
            return [FrameInfo(images[0], self.dataset.video_frame.file, transforms[0], self.dataset.video_frame.number)]
        numbers = [stream.next_number for stream in self.inference_state.values()]
        return [FrameInfo(*row) for row in zip(images, paths, transforms, numbers, strict=True)]

    def _start_streams(self, frames: Sequence[FrameInfo], options: dict[str, Any]) -> None:
        """Give a video or stream whose first frame this is its own prompts, and no object of another's."""
        if isinstance(self.dataset, VideoLoader) and self.inference_state[0].index != self.dataset.count:
            self._end(self.inference_state[0])
            self.inference_state[0] = self._new_stream(self.dataset.count)
        for stream, frame in zip(self.inference_state.values(), frames, strict=True):
            if stream.starts_run:
                stream.starts_run = False
                path = frame.path if stream.video is None else stream.video.path
                stream.prompts.start_run(self._video_prompts(options).for_video(stream.index, path))
            if not stream.prompts.given and self.prompter is None:
                raise RuntimeError(
                    "Nothing has been prompted: give bboxes, points, masks, prompts or a prompter, or call "
                    "add_new_prompts from an on_predict_start callback (bboxes=[] starts without objects)."
                )

    def _has_signal(self, frame: FrameInfo) -> bool:
        """Whether a frame is not a black one: Ultralytics' streams give those while the signal is lost."""
        return isinstance(self.dataset, VideoLoader) or bool(frame.image.any())

    def _encode_frames(self, im: Tensor, rows: list[int]) -> dict[int, Features]:
        """Encode some frames of the batch, each once."""

        def encode(some: Sequence[int]) -> Features:
            return self.network.encode_image(im[some[0] : some[0] + 1] if len(some) == 1 else im[list(some)])

        parts = map_slices(rows, encode, self.frames_at_once.run)
        return {row: features[i] for part, features in parts for i, row in enumerate(part)}

    def _encode_earlier(self, image: np.ndarray) -> tuple[ImageTransform, Features]:
        """Encode the image (H, W, 3) of an earlier frame."""
        im = self.preprocess([image])
        return self._transforms(im, [image])[0], self.network.encode_image(im)

    def _prediction(self) -> Prediction:
        parts = [stream.prediction(slot) for slot, stream in self.inference_state.items()]
        nonempty = [part for part in parts if len(part.image_index)]
        return Prediction.cat(nonempty or parts[:1])

    def postprocess(self, preds: Prediction | tuple, img: Tensor, orig_imgs: list | Tensor) -> list[Results]:
        """Bring the objects' masks to the size of their images, one `Results` a stream."""
        prediction, self._written = preds if isinstance(preds, Prediction) else Prediction(*preds), {}
        if not self.batch[0]:  # it was skipped
            return []
        with self._threads():
            options, streams = self._postprocess_options(), self.inference_state
            return [stream.results(prediction.image(slot), options) for slot, stream in streams.items()]

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, less those of Ultralytics' trackers, which would give ids of their own."""
        for callback in self.callbacks.get(event, []):
            if not getattr(callback, "func", callback).__module__.startswith("ultralytics.trackers"):
                callback(self)

    # Prompts while the video runs

    def add_new_prompts(
        self, obj_id: int, points: Any = None, labels: Any = None, masks: Any = None, frame_idx: int | None = None, *,
        bboxes: Any = None, cls: int | None = None, names: Any = None, stream: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Prompt an object, new or known, on any frame: from a callback, or between two results of a stream.

        On the frame returned last the answer changes at once, and the new `Results` stands in `self.results`. On a
        frame to come the prompt waits. An earlier frame is read again where the source can seek; there a known object
        is corrected only as far as its memory reaches.

        Args:
            obj_id: any whole number.
            points: (P, 2) in pixels of the image, or one (2,).
            labels: (P,) 1 on the object, 0 off it; left out means 1.
            masks: instead of points and a box, the object's mask (H, W).
            frame_idx: number of the frame in its source, from 0; None is the frame returned last, and the first of the
                run before one was.
            bboxes: a box (4,) xyxy, alone or together with points.
            cls: the object's class.
            names: names of classes.
            stream: which of several streams, by index.

        Returns:
            (logits (1, h/4, w/4), scores (1,)) of the object; without rows when the frame is still to come.

        Raises:
            PromptError: prompts cannot be read, are of two kinds, or belong to a frame that cannot be read again.
            RuntimeError: there is no video.
        """
        raw = {"points": points, "labels": labels, "masks": masks, "bboxes": bboxes, "cls": cls, "names": names}
        raw = {name: value for name, value in raw.items() if value is not None}
        chosen = self._stream(stream)
        with torch.inference_mode(), self._threads(), self._slips.active(), chosen.restored_on(BaseException):
            output = chosen.add_prompts(obj_id, raw, frame_idx, self._encode_earlier)
            if output is not None:
                self._update_results(chosen)
                return output.logits, video_confidence(output)
        return torch.zeros(0, 1, 1), torch.zeros(0)

    def remove_object(self, obj_id: int, stream: int | None = None) -> None:
        """Remove an object; the others keep their ids and masks. ValueError if there is none."""
        chosen = self._stream(stream)
        chosen.remove(obj_id)
        self._update_results(chosen)

    def clear_prompts(self, obj_id: int | None = None, stream: int | None = None) -> None:
        """Clear the prompts and memories of an object, or of all; ids and classes stay. ValueError if there is none."""
        chosen = self._stream(stream)
        chosen.clear_prompts(obj_id)
        self._update_results(chosen)

    def reset(self, stream: int | None = None) -> None:
        """Remove all objects of a stream, or of all streams; the run goes on without."""
        for chosen in map(self._stream, self.inference_state if stream is None else (stream,)):
            chosen.reset()
            self._update_results(chosen)

    def propagate_in_video_preflight(self) -> None:
        """Encode the memories of new prompts now; the next frame would do it."""
        with torch.inference_mode(), self._threads():
            for stream in self.inference_state.values():
                if stream.features is not None:
                    stream.objects = stream.tracker.step()

    def _stream(self, index: int | None) -> VideoStream:
        return choose_stream(self.inference_state, index)

    def _update_results(self, stream: VideoStream) -> None:
        """Rebuild the result of a stream's current frame after its objects changed."""
        slot = next(slot for slot, each in self.inference_state.items() if each is stream)
        if stream.frame is not None and not stream.keep_output() and slot < len(self.results or ()):
            before = self.results[slot]
            with self._threads():
                self.results[slot] = stream.results(stream.prediction(), self._postprocess_options())
            self.results[slot].speed, self.results[slot].save_dir = before.speed, before.save_dir
            self._write_again(slot)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the streams in progress, which belong to a run: a warning says what a copy does not have."""
        for stream in self.inference_state.values():
            if ids := [*stream.tracker.ids]:
                LOGGER.warning(f"The copy of this predictor does not track its objects {ids}: prompt them again there.")
        return {**super().__getstate__(), "inference_state": {}, "results": None}
