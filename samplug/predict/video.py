"""SAM 2 on videos and streams: prompted objects are followed through memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from samplug import arguments, host, tracking
from samplug.host import DEFAULT_CFG, LOGGER, Results
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features
from samplug.predict.answers import Prediction, public_features
from samplug.predict.clips import Course
from samplug.predict.conversation import START, Conversation
from samplug.predict.finite import check_finite
from samplug.predict.following import Following, Here
from samplug.predict.halving import Share
from samplug.predict.prompter import Everything, Prompter
from samplug.predict.sources import Clips, as_clips, replaced
from samplug.predict.timeline import Timeline, Timelines
from samplug.prompt_forms import PromptError, refuse
from samplug.tracking.parts import in_parts


class SAM2VideoPredictor(Conversation):
    """Follow what is prompted through videos and streams with SAM 2 or 2.1.

    Sources are video files (each of a folder's by itself), a folder of pictures as one video, lists of pictures,
    tensors, iterators of frames, and Ultralytics' streams and screens. Prompts may come on the first frame by the usual
    arguments; ahead, as `prompts={frame: {obj_id: {"points": …, "labels": …}}}`; and from a callback or between two
    results of `stream=True` by `add_new_prompts`.

    A result's `boxes.id` are the objects' ids (`obj_ids=`, else 0, 1, …), `boxes.cls` the classes given, else the ids,
    and `boxes.conf` is sigmoid(presence) · predicted IoU, in (0, 1). In addition `result.frame` is the frame's number
    in its source, from 0; `result.obj_ids`, `result.presence` (logit) and `result.iou` belong to the rows.

    Attributes:
        inference_state: the video or the streams in progress, by their place in the batch.
        frames_at_once: how many streams' frames are encoded together: one on a CPU, where streams together then give
            what each gives alone; else all, or fewer where a GPU's memory runs out.
        non_overlap_masks: leave each pixel of a result to one object.
        clear_non_cond_mem_around_input: a prompt drops the object's tracked memories around its frame.
        clear_non_cond_mem_for_multi_obj: also where there are several objects.
    """

    follows = True

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.non_overlap_masks = True
        self.clear_non_cond_mem_around_input = False
        self.clear_non_cond_mem_for_multi_obj = False
        self.inference_state: dict[int, Following] = {}

    # Setting up

    def get_model(self) -> SAMModel | SAM2Model:
        """Load `args.model`; prompted frames are remembered as 0 and 1, as they are by this class in any case."""
        model = super().get_model()
        if isinstance(model, SAM2Model):
            model.set_binarize(True)
        return model

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source and forget what was followed before."""
        if source is None:
            raise RuntimeError(START)
        super().setup_source(source, stride)
        if self._option("track") and all(self.said.get(name) is None for name in (*arguments.PROMPTS, "prompter")):
            self.prompter = Prompter(Everything(self.plain, self.args, self.said))
        if isinstance(self.dataset, Clips):
            self.dataset.course = self._course
        else:
            self._refuse_to_seek()
        self.frames_at_once = Share(1 if self.device.type == "cpu" else self.dataset.bs, "frame")
        self.init_state(self)

    def _refuse_to_seek(self) -> None:
        """Say what a stream cannot do."""
        for name in ("start", "reverse"):
            if self._option(name) not in (None, False):
                accepted = "a file, a folder or a list: a stream runs forwards, from the frame that comes next"
                refuse(name, f"{name}={self._option(name)!r} came with a stream", accepted)

    def _loader_of(self, source: Any) -> Any:
        """What runs over videos and leaves out what is bad."""
        return as_clips(source, self.faults)

    def _replaced(self, loader: Any) -> Any:
        """The same in the place of a loader that the host made."""
        return replaced(loader, self.faults)

    @staticmethod
    def init_state(predictor: SAM2VideoPredictor) -> None:
        """Begin anew: every stream of the source, or its first video, with nothing to follow."""
        count = 1 if isinstance(predictor.dataset, Clips) else predictor.dataset.bs
        predictor.inference_state = {slot: predictor._following(slot) for slot in range(count)}

    def _following(self, place: int) -> Following:
        """A video or stream of which nothing is known."""
        tracker = tracking.Tracker(
            self.network,
            tracking.policy_of(self._option("policy")),
            max_prompted=self._option("max_prompted"),
            clear_around_input=self.clear_non_cond_mem_around_input,
            clear_for_multi_obj=self.clear_non_cond_mem_for_multi_obj,
            expire_after=self._option("expire_after"),
            in_slices=self.objects_at_once.of,
        )
        clip = self.dataset.clips[place] if isinstance(self.dataset, Clips) else None
        stride = self.args.vid_stride if clip is not None else 1
        return Following(tracker, Timeline(), place, clip, stride)

    def _course(self, place: int, path: str) -> Course:
        """Which frames of a file are run; backwards from the last prompted one when prompts are given by frame."""
        start, reverse = self._option("start"), self._option("reverse")
        later = self._timelines(self.said).of(place, path).later
        if start is None and reverse and later:
            start = min(later) if reverse == "both" else max(later)
        return Course(start, self.args.vid_stride, reverse)

    def _timelines(self, said: dict[str, Any]) -> Timelines:
        spellings = {name: said.get(name) for name in arguments.PROMPTS}
        if not isinstance(self.dataset, Clips):
            return Timelines(self.dataset.bs, **spellings)
        timelines = Timelines(self.dataset.nf, **spellings)
        timelines.schedule.check_files(self.dataset.files)
        return timelines

    def get_im_features(self, im: Tensor, batch: int = 1) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode one picture (1, 3, h, w) for prompts without a past, repeated for a batch of objects.

        Returns:
            {"image_embed": (batch, C, h/16, w/16), "high_res_feats": […]}, the no-memory embedding added.
        """
        features = self.network.encode(im)
        if batch > 1:
            features = features[torch.zeros(batch, dtype=torch.int64, device=im.device)]
        return public_features(features)

    # The loop

    def stream_inference(self, source: Any = None, model: Any = None, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Run over a source, one `Results` a frame; says at the end which prompts are of frames that never came."""
        yield from super().stream_inference(source, model, *args, **kwargs)
        for one in self.inference_state.values():
            self._say_unused(one)

    def _say_unused(self, one: Following) -> None:
        """Warn of prompts for frames behind the end of a video, unless it broke off because of its prompts."""
        unused = ", ".join(map(str, one.timeline.frames))
        gone = isinstance(self.dataset, Clips) and one.place in self.dataset.given_up
        if one.here is not None and unused and not gone:
            LOGGER.warning(
                f"{one.here.path}: prompts for frame {unused} were not used, the last frame was number "
                f"{one.here.number} (they count from 0)."
            )

    def inference(
        self,
        im: Tensor,
        bboxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        multimask_output: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Prediction:
        """Answer the next frame of a video, or of every stream.

        Args:
            im: (F, 3, h, w) normalised input, a frame of each stream.
            bboxes: of the objects on the first frame, (N, 4) xyxy in pixels of the picture.
            points: (N, 2), (N, P, 2) or ragged.
            labels: 1 on the object, 0 off it; left out means 1.
            masks: a mask an object.
            multimask_output: without effect, the network's options decide.
            *args: without effect.
            **kwargs: further prompts: `prompts`, `cls`, `names`, `obj_ids`.

        Returns:
            (logits (N, h/4, w/4), scores (N,)) of all objects that have come.

        Raises:
            RuntimeError: nothing has been prompted yet, and nothing will be.
            PromptError: a prompt cannot be read or does not fit its frame.
        """
        if self.batch is None:
            raise RuntimeError(START)
        said = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, **kwargs}
        with self._cores():
            try:
                self._advance(im, said)
            except PromptError as error:
                self._give_up(error)
            return self._prediction()

    def _advance(self, im: Tensor, said: dict[str, Any]) -> None:
        """Go on by a frame of the video, or of every stream."""
        if isinstance(self.dataset, Clips) and self.dataset.count in self.dataset.given_up:
            self._leave_out([0])  # it had been read ahead
            return
        frames = self._frames_in_hand(im)
        self._open(frames, said)
        backwards = isinstance(self.dataset, Clips) and self.dataset.backwards
        seen = self._see(im, [slot for slot, here in enumerate(frames) if self._has_signal(here)])
        for slot, here in enumerate(frames):
            self.inference_state[slot].follow(here, seen.get(slot), backwards)
        if self.prompter is not None:
            self._look(self.prompter)

    def _give_up(self, error: PromptError) -> None:
        """Leave out the rest of a video whose prompts do not fit it, where there are others."""
        if not isinstance(self.dataset, Clips) or self.dataset.nf == 1:
            raise error
        self.faults.meet(self.dataset.clip.path, error)
        self.dataset.given_up.add(self.dataset.count)
        self._leave_out([0])

    def _frames_in_hand(self, im: Tensor) -> list[Here]:
        """The batch, frame by frame."""
        paths, originals, *_ = self.batch
        pictures, views = host.pictures(originals), self._views(im, originals)
        if isinstance(self.dataset, Clips) and self.dataset.shot is not None:
            return [Here(pictures[0], self.dataset.shot.file, views[0], self.dataset.shot.number)]
        numbers = [0 if one.here is None else one.here.number + 1 for one in self.inference_state.values()]
        return [Here(*row) for row in zip(pictures, paths, views, numbers, strict=True)]

    def _open(self, frames: Sequence[Here], said: dict[str, Any]) -> None:
        """Begin with a video or stream whose first frame this is: with its own prompts, and nothing of another's."""
        if isinstance(self.dataset, Clips) and self.inference_state[0].place != self.dataset.count:
            self._say_unused(self.inference_state[0])
            self.inference_state[0] = self._following(self.dataset.count)
        for one, here in zip(self.inference_state.values(), frames, strict=True):
            if one.here is None:
                path = here.path if one.clip is None else one.clip.path
                one.timeline.open(self._timelines(said).of(one.place, path))
            if not one.timeline.given and self.prompter is None:
                raise RuntimeError(
                    "Nothing has been prompted: give bboxes, points, masks, prompts or a prompter, or call "
                    "add_new_prompts from an on_predict_start callback (bboxes=[] begins without objects)."
                )

    def _has_signal(self, here: Here) -> bool:
        """Whether a frame shows anything: Ultralytics' streams give black ones while the signal is lost."""
        return isinstance(self.dataset, Clips) or bool(here.picture.any())

    def _see(self, im: Tensor, rows: list[int]) -> dict[int, Features]:
        """Encode frames, each once."""

        def see(some: Sequence[int]) -> Features:
            return self.network.see(im[some[0] : some[0] + 1] if len(some) == 1 else im[list(some)])

        parts = in_parts(rows, see, self.frames_at_once.of)
        return {row: together[i] for few, together in parts for i, row in enumerate(few)}

    def _look(self, prompter: Prompter) -> None:
        """Let the prompter look at the frames whose turn it is, and note where objects are."""
        seen = [one for one in self.inference_state.values() if one.features is not None]
        due = [one for one in seen if one.is_due(self._option("prompt_every"))]
        finds = prompter.look([one.picture for one in due]) if due else []
        for one, few in zip(due, finds, strict=True):
            one.meet(few, self._option("iou_match"), self._option("max_objects"))
        for one in seen:
            one.note_places()

    def _prediction(self) -> Prediction:
        parts = []
        for slot, one in self.inference_state.items():
            logits, scores = one.rows()
            if one.features is not None:
                check_finite(self.network, one.features.image, logits, scores)
            owner = torch.full((len(scores),), slot, dtype=torch.int64)
            parts.append(Prediction(logits.to(self.device), scores.to(self.device), owner=owner))
        some = [part for part in parts if len(part.owner)]
        return Prediction.cat(some or parts[:1])

    def postprocess(self, preds: Prediction | tuple, img: Tensor, orig_imgs: list | Tensor) -> list[Results]:
        """Bring the objects' masks to the size of their pictures, one `Results` a stream."""
        prediction = preds if isinstance(preds, Prediction) else Prediction(*preds)
        with self._cores():
            if not self.batch[0]:  # it was left out
                return []
            return [self._result(one, prediction.picture(slot)) for slot, one in self.inference_state.items()]

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, less those of Ultralytics' trackers, which would give ids of their own."""
        for callback in self.callbacks.get(event, []):
            if not getattr(callback, "func", callback).__module__.startswith("ultralytics.trackers"):
                callback(self)

    def _result(self, one: Following, rows: Prediction) -> Results:
        finish = self._finish(keep_empty=self._option("keep_lost"), apart=self.non_overlap_masks)
        return one.result(rows[0], rows[1], finish)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what is being followed: it belongs to a run."""
        return {**super().__getstate__(), "inference_state": {}, "results": None}
