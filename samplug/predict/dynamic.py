"""Show objects on some pictures, find them in others: SAM 2's memory over pictures that are no video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from samplug import arguments, host
from samplug.embeddings import model_fingerprint
from samplug.host import DEFAULT_CFG, Results
from samplug.nn.frames import FrameOutput
from samplug.nn.types import Features
from samplug.predict.answers import Frame, Prediction
from samplug.predict.bank_files import load_bank, save_bank
from samplug.predict.by_hand import ByHand
from samplug.predict.finish import Finish, own_class
from samplug.predict.following import SURE
from samplug.predict.timeline import one_by_one
from samplug.prompt_forms import refuse
from samplug.prompts import PromptError, Prompts
from samplug.tracking import bank
from samplug.tracking.bank import MemoryBank
from samplug.view import View

POINTING = ("points", "bboxes", "masks", "prompts")
ONCE = (*arguments.PROMPTS, "update_memory")  # what belongs to one run, however it was given


class SAM2DynamicInteractivePredictor(ByHand):
    """Find objects in pictures after they were shown to it on others, with SAM 2 or 2.1.

    A run with `update_memory=True` shows objects: its prompts, with an id each in `obj_ids`, are answered with a single
    mask, without any memory, and remembered. Every run, that one included, then finds all objects in its pictures, or
    with `obj_ids` alone only those. Sources are all that Ultralytics takes; on a video or a stream the prompts are for
    the first frame. An object knows of the pictures it was shown on and of no others; an empty mask says that it is not
    there.

    A result's `boxes.id` are the ids, `boxes.cls` the classes given with `cls`, else the ids, and `boxes.conf` is the
    presence, the sigmoid of its logit, in (0, 1). In addition `result.obj_ids`, `result.presence` (logit) and
    `result.iou` (predicted) belong to the rows.

    Attributes:
        memory_bank: the pictures on which objects were shown, oldest first.
        found: the objects on each picture of the batch in hand, rows in the order of the slots.
        non_overlap_masks: leave each pixel of a result to one object.

    Examples:
        >>> predictor = SAM2DynamicInteractivePredictor(overrides={"model": "sam2.1_t.pt"})  # doctest: +SKIP
        >>> predictor("first.jpg", bboxes=[[20, 30, 90, 80]], obj_ids=[7], update_memory=True)  # doctest: +SKIP
        >>> result = predictor("other.jpg")[0]  # doctest: +SKIP
    """

    outlives_calls = True

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict | None = None,
        max_obj_num: int = 3,
        _callbacks: dict | None = None,
    ):
        """Know no object yet.

        Args:
            cfg: Ultralytics' settings.
            overrides: arguments; prompts among them are for the first run.
            max_obj_num: slots for objects to begin with; more are added when more objects come.
            _callbacks: Ultralytics' callbacks.
        """
        super().__init__(cfg, overrides, _callbacks)
        self.prompts = {name: self.options.pop(name) for name in ONCE if name in self.options}
        self.memory_bank = MemoryBank(max_obj_num)
        self.found: list[FrameOutput] = []
        self.non_overlap_masks = True

    # Objects

    @property
    def obj_id_to_idx(self) -> dict[int, int]:
        """The slot of each object."""
        return {obj_id: slot for slot, obj_id in self.obj_idx_to_id.items()}

    @property
    def obj_idx_to_id(self) -> dict[int, int]:
        """The object in each slot that has one."""
        return {slot: obj_id for slot, obj_id in enumerate(self.memory_bank.slots) if obj_id is not None}

    @property
    def obj_idx_set(self) -> set[int]:
        """The slots that have an object."""
        return set(self.obj_idx_to_id)

    def remove_object(self, obj_id: int) -> None:
        """Forget an object altogether; ValueError if there is none."""
        self.memory_bank.remove(obj_id)

    def clear_prompts(self, obj_id: int | None = None, picture: int | None = None) -> None:
        """Forget what an object, or all, looked like on one shown picture, or on all; ids and classes stay.

        Args:
            obj_id: the object; None for all.
            picture: its place in `memory_bank`, from 0; None for all.

        Raises:
            ValueError: there is no such object.
            IndexError: there is no such picture.
        """
        self.memory_bank.forget(obj_id, picture)

    def reset(self) -> None:
        """Forget all objects and all pictures."""
        self.memory_bank.clear()

    def save_memory(self, path: str | os.PathLike[str]) -> None:
        """Write the memory bank to a .npz file of plain arrays; the write is atomic."""
        save_bank(path, self.memory_bank, self.network)

    def load_memory(self, path: str | os.PathLike[str]) -> None:
        """Go on with a memory bank that was saved, in place of the one in hand.

        Raises:
            MemoryBankError: the file is missing, damaged, no memory bank, or that of another network.
        """
        if self.model is None:
            self.setup_model()
        self.memory_bank = load_bank(path, self.network)

    # Setting up

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Put a SAM 2 network with a memory to work, forgetting the memories of another; else ValueError."""
        before = self.model
        super().setup_model(model, verbose)
        if not self.network.num_maskmem:
            raise ValueError("This model has num_maskmem=0, that is no memory: objects cannot be found with it.")
        if before is not None and model_fingerprint(before) != model_fingerprint(self.model):
            self.reset()

    def set_prompts(self, prompts: dict[str, Any]) -> None:
        """Store arguments for the next run, beside those that are waiting."""
        self.prompts |= {name: value for name, value in prompts.items() if value is not None}

    # A run

    def stream_inference(self, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Run over a source, one `Results` a picture; where the run ends with a `PromptError`, nothing was shown."""
        with self.memory_bank.unchanged_by(PromptError):
            yield from super().stream_inference(*args, **kwargs)

    def inference(  # type: ignore[override]  # the order of the arguments is public, and not Predictor's
        self,
        im: Tensor,
        bboxes: Any = None,
        masks: Any = None,
        points: Any = None,
        labels: Any = None,
        obj_ids: Any = None,
        update_memory: bool = False,
        **kwargs: Any,
    ) -> Prediction:
        """Show objects on the pictures of a batch, if told so, then find objects in them; an error shows none of them.

        Args:
            im: (F, 3, h, w) normalised input.
            bboxes: of the objects to show, (N, 4) xyxy in pixels of the picture.
            masks: a mask an object.
            points: (N, 2), (N, P, 2) or ragged.
            labels: 1 on the object, 0 off it; left out means 1.
            obj_ids: an id for each object to show; without prompts, the objects to find, all if left out.
            update_memory: show objects.
            **kwargs: further arguments of ours, of which `prompts`, `cls` and `names` belong to the prompts.

        Returns:
            (logits (F·N, h/4, w/4), scores (F·N,)), N objects a picture in the order of the slots.

        Raises:
            PromptError: prompts cannot be read or do not have an id each, or do not fit and nothing may be left out.
            RuntimeError: nothing has been shown yet.
            ValueError: memories were made at another input size, or `obj_ids` names an object that is not remembered.
            FloatingPointError: an answer or a memory holds NaN or infinity.
        """
        said = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, "obj_ids": obj_ids, **kwargs}
        self._check(said, update_memory)
        self.found, frames = [], list[Frame]()
        with self._cores(), self.memory_bank.unchanged_by(BaseException):
            if update_memory and not self._went_on():
                im, frames = self._frames(im, said)  # before they are encoded: of what is left out, nothing is in hand
                frames = frames[:1] if self.dataset.mode == "video" else frames
            if not len(im):
                return Prediction.of_nothing(im)
            if self.features is None or self._key(self.batch[1]) != self._shown:
                self.get_im_features(im)
            self._show(frames)
            return self._find(None if update_memory else obj_ids)

    def _check(self, said: dict[str, Any], update_memory: bool) -> None:
        """Refuse arguments that do not go together."""
        pointed = any(said.get(name) is not None for name in POINTING)
        if pointed and not update_memory:
            refuse("update_memory", "is False, but prompts came", "True with prompts; nothing is prompted to be found")
        if update_memory and not pointed:
            refuse("update_memory", "is True, but no prompts came", "True with points, bboxes or masks, and obj_ids")
        if said.get("embedding") is not None:
            refuse("embedding", "came", "the picture itself: memory needs more than an embedding holds")

    def _went_on(self) -> bool:
        """Whether this is a later frame of a video or a stream, which the prompts are not for."""
        return self.seen > 0 and host.picture_count(self.dataset) is None

    def _show(self, frames: Sequence[Frame]) -> None:
        """Remember the objects on each picture of the batch."""
        for frame in frames:
            if len(frame.prompts) and frame.prompts.ids is None:
                refuse("obj_ids", f"{len(frame.prompts)} objects came without", "an id of its own for each object")
        for i, frame in enumerate(frames):
            if len(frame.prompts):
                features = self._pictures()[i]
                answers = [self._answer(features, one, frame.view) for one in one_by_one(frame.prompts)]
                ids = frame.prompts.ids or ()
                self._remember(features, ids, answers, frame.path)
                self.memory_bank.classify(ids, frame.prompts.cls, frame.prompts.names)

    def _answer(self, features: Features, one: Prompts, view: View) -> FrameOutput:
        """The answer to the prompt of one object."""
        (prompt,) = one.objects
        if prompt.mask is None:
            ((_, batch),) = one.batches(view, device=self.device)
            return bank.show(self.network, features, batch)
        return bank.show(self.network, features, mask=(view.mask(prompt.mask, stride=1) > 0).float().to(self.device))

    def _find(self, wanted: Any = None) -> Prediction:
        """Look for objects in every picture of the batch."""
        ids = self._ids(wanted)
        self.found = self._look(ids)
        given, names = self.memory_bank.classes, self.memory_bank.names
        names = {own_class(each): str(each) for each in ids if each not in given} | names
        prompts = Prompts(cls=tuple(given.get(each, own_class(each)) for each in ids), names=names, ids=ids)
        parts = [Prediction(each.logits, score(each)).moved_by(i) for i, each in enumerate(self.found)]
        return Prediction.cat(parts, prompts=[prompts for _ in parts])

    # Results

    def _at_picture_size(self, prediction: Prediction, frame: Frame) -> Results | None:
        """The result of one picture, with what was found there; None where its masks would not fit into memory."""
        result = super()._at_picture_size(prediction, frame)
        if result is not None:
            rows, found = result.prompt_index.tolist(), self.found[int(prediction.owner[0])]
            result.obj_ids = tuple((frame.prompts.ids or ())[row] for row in rows)
            result.presence, result.iou = found.presence.float().cpu()[rows], found.iou.float().cpu()[rows]
        return result

    def _leave_out(self, rows: Sequence[int]) -> None:
        """Take pictures out of the batch in hand, and what was found on them; what was shown on them stays known."""
        super()._leave_out(rows)
        self.found = [each for row, each in enumerate(self.found) if row not in rows]

    def _finish(self, keep_empty: bool = True, apart: bool = True) -> Finish:
        return super()._finish(keep_empty and self._option("keep_lost"), apart and self.non_overlap_masks)


def score(output: FrameOutput) -> Tensor:
    """(N,) in 0 … 1, both left out: how surely an object is there, above 0.5 where it is present."""
    return output.presence.float().sigmoid().clamp(SURE, 1 - SURE)
