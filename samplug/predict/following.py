"""One video or stream in progress: its tracker, the frame in hand, and the rows it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from samplug.host import Results
from samplug.masks import resize_to_picture
from samplug.nn.frames import FrameOutput
from samplug.nn.sam2 import ABSENT_LOGIT, CERTAIN_PRESENCE
from samplug.nn.types import Features
from samplug.predict.clips import Clip
from samplug.predict.finish import Finish, Rows, Shown, finished, own_class
from samplug.predict.matching import Matches, boxes_of_finds, clicks_inside, compare, edges_of, iou, lie_in, match
from samplug.predict.timeline import Timeline
from samplug.prompts import Prompt, Prompts
from samplug.tracking import Objects, Tracker
from samplug.view import MASK_STRIDE, View

SURE = 1e-6  # how near to 0 and 1 a score may come
LOOKED_AT = 1024  # pixels a side at which masks are compared: of larger ones every second, third, …


@dataclass(frozen=True, eq=False)
class Here(Shown):
    """A frame in hand, with its number in its source, from 0."""

    number: int


@dataclass(eq=False)
class Following:
    """One video or stream.

    Attributes:
        tracker: what is remembered of its objects.
        timeline: the prompts that are still to come.
        place: which of the source's videos this is.
        clip: the video, None for what Ultralytics' loaders stream.
        stride: frames from one to the next.
        clock: the tracker's number of the frame in hand: no gaps, neither for a stride nor for a lost signal.
        here: the frame in hand, None before the first.
        features: the frame's, None where a stream lost its signal.
        objects: what became of the objects on it.
        backwards: whether this pass goes backwards.
        run: how many frames were answered, those without a signal left out.
        found: whether a prompter has found anything.
        places: where each object was last (4,) xyxy, while a prompter looks.
        classes: the class of each object that was given one.
        names: the names of classes.
        highest: the largest id that an object has had.
    """

    tracker: Tracker
    timeline: Timeline
    place: int = 0
    clip: Clip | None = None
    stride: int = 1
    clock: int = -1
    here: Here | None = None
    features: Features | None = None
    objects: Objects = field(default_factory=lambda: Objects((), None))
    backwards: bool = False
    run: int = 0
    found: bool = False
    places: dict[int, Tensor] = field(default_factory=dict)
    classes: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    highest: int = -1

    def follow(self, here: Here, features: Features | None, backwards: bool = False) -> None:
        """Go on to the next frame and answer it; without features there is no signal, and nothing is learnt."""
        due = [] if features is None else self.timeline.due(here.number, backwards, here.view.picture)
        if backwards != self.backwards:
            self.tracker.rewind(reverse=backwards)
            self.backwards = backwards
        self.here, self.features = here, features
        if features is None:
            self.objects = nowhere(self.tracker.ids, here.view)
            return
        self._forget_expired()
        self.clock = self._clock_at(here.number) if self.can_go_back else self.clock + 1
        self.tracker.see(self.clock, features)
        for one in due:
            self.show(one)
        self.objects = self.tracker.step()
        self.run += 1

    @property
    def can_go_back(self) -> bool:
        """Whether a frame that went by can be seen again."""
        return self.clip is not None and self.clip.seekable

    def _forget_expired(self) -> None:
        """Let go of what is noted of objects that the tracker has let go of: a stream may have any number of them."""
        alive = set(self.tracker.ids)
        self.classes = {obj_id: kind for obj_id, kind in self.classes.items() if obj_id in alive}
        self.places = {obj_id: box for obj_id, box in self.places.items() if obj_id in alive}

    def _clock_at(self, number: int) -> int:
        return number // self.stride

    def show(self, one: Prompts, view: View | None = None, anew: bool = False) -> FrameOutput:
        """Prompt one object on the frame that the tracker has in hand; `anew`: whatever is remembered of it."""
        assert self.here is not None and one.ids is not None
        view, (obj_id,), (prompt,) = view or self.here.view, one.ids, one.objects
        if prompt.mask is not None:
            mask = (view.mask(prompt.mask, stride=1) > 0).float()
            output = self.tracker.prompt(obj_id, mask=mask[None, None], anew=anew)
        else:
            ((_, batch),) = one.batches(view, device=self.tracker.model.device)
            output = self.tracker.prompt(obj_id, batch, anew=anew)
        self.highest = max(self.highest, obj_id)
        self.classes |= {} if one.cls is None else {obj_id: one.cls[0]}
        self.names |= one.names or {}
        return output

    def correct(self, one: Prompts) -> FrameOutput:
        """Prompt one object on the frame that was answered last."""
        output = self.show(one)
        self.objects = self.tracker.step()
        return output

    def show_earlier(self, one: Prompts, number: int, view: View, features: Features) -> FrameOutput:
        """Prompt one object on a frame that went by, and answer the frame in hand once more."""
        assert self.here is not None and self.features is not None
        self.tracker.see(self._clock_at(number), features)
        output = self.show(one, view)
        self.tracker.see(self.clock, self.features)
        self.objects = self.tracker.step()
        return output

    # A prompter's finds

    @property
    def picture(self) -> np.ndarray:
        """The frame in hand, (H, W, 3) BGR bytes."""
        assert self.here is not None
        return self.here.picture

    def is_due(self, every: int | None) -> bool:
        """Whether a prompter looks at the frame in hand: every so many, or until it has found something."""
        return not self.found if every is None else (self.run - 1) % every == 0

    def meet(self, finds: Sequence[Prompts], enough: float, most: int | None = None) -> None:
        """Bring finds on the frame in hand together with the objects that are followed there.

        Those with ids are shown as they are. Of the others, a repetition changes nothing but gives an object without a
        class its own; an object that was lost or has drifted is shown anew; a new one gets the next free id.

        Args:
            finds: one object each.
            enough: the overlap from which a find is an object, see `match`.
            most: objects that are followed; new ones beyond that are left out, the last first.
        """
        self.found |= bool(finds)
        ids, unnamed = self.objects.ids, [one for one in finds if one.ids is None]
        matches = self._matches([one.objects[0] for one in unnamed], enough)
        for i, row in (matches.same | matches.again).items():
            self._classify(ids[row], unnamed[i])
        shown = [self.show(one) for one in finds if one.ids is not None]
        for i, row in matches.again.items():
            shown.append(self.show(replace(unnamed[i], ids=(ids[row],), cls=None), anew=True))
        room = len(matches.new) if most is None else max(0, most - len(self.tracker.ids))
        for i in matches.new[:room]:
            free = 1 + max(self.highest, *self.timeline.ids, -1)
            shown.append(self.show(replace(unnamed[i], ids=(free,))))
        if shown:
            self.objects = self.tracker.step()

    def _matches(self, finds: Sequence[Prompt], enough: float) -> Matches:
        assert self.here is not None
        ids, output = self.objects.ids, self.objects.output
        masks = torch.zeros(0, *self.here.view.picture, dtype=torch.bool)
        if output is not None:
            masks = resize_to_picture(output.logits, self.here.view).cpu()
        boxes, theirs = boxes_of_finds(finds), edges_of(masks)
        lost = (theirs[:, 2] == theirs[:, 0]).float()
        last = [self.places.get(obj_id, torch.zeros(4)) for obj_id in ids]
        before = iou(boxes, torch.stack(last)) * lost if last else torch.zeros(len(finds), 0)
        if finds and all(find.mask is not None for find in finds):
            step = math.ceil(max(self.here.view.picture) / LOOKED_AT)
            few = torch.stack([find.mask[::step, ::step] > 0 for find in finds if find.mask is not None]).cpu()
            return match(*compare(few, masks[:, ::step, ::step]), before, compare(few, few)[0], enough)
        now = torch.maximum(iou(boxes, theirs), clicks_inside(finds, masks))
        return match(now, lie_in(boxes, theirs), before, iou(boxes, boxes), enough)

    def note_places(self) -> None:
        """Note where each object is that is anywhere."""
        assert self.here is not None
        if self.objects.output is None:
            return
        logits = self.objects.output.logits
        height, width = (math.ceil(span) for span in self.here.view.span((logits.shape[1], logits.shape[2])))
        masks = logits[:, :height, :width] > 0  # less the padding
        boxes = self.here.view.boxes_back(edges_of(masks) * MASK_STRIDE).cpu()
        seen = masks.flatten(1).any(1).tolist()
        self.places |= {each: box for each, box, there in zip(self.objects.ids, boxes, seen, strict=True) if there}

    def _classify(self, obj_id: int, one: Prompts) -> None:
        """Give an object that has no class the one of a find."""
        if one.cls is not None:
            self.classes.setdefault(obj_id, one.cls[0])
        self.names |= one.names or {}

    def remove(self, obj_id: int) -> None:
        """Forget an object."""
        planned = self.timeline.forget(obj_id)
        if obj_id in self.tracker.ids or not planned:
            self.tracker.remove(obj_id)
        self._without(obj_id)

    def clear_prompts(self, obj_id: int | None) -> None:
        """Take back the prompts of an object, or of all."""
        planned = self.timeline.forget(obj_id)
        for each in self.tracker.ids if obj_id is None else (obj_id,):
            if each in self.tracker.ids or not planned:
                self.tracker.clear_prompts(each)
            self._without(each)

    def _without(self, obj_id: int) -> None:
        """Take an object's row out of the frame in hand."""
        rows = [i for i, each in enumerate(self.objects.ids) if each != obj_id]
        if len(rows) < len(self.objects.ids):
            output = None if self.objects.output is None or not rows else self.objects.output[rows]
            self.objects = Objects(tuple(self.objects.ids[i] for i in rows), output)

    def restart(self) -> None:
        """Remove all objects; the frame in hand stays."""
        self.tracker.reset()
        self.timeline.forget(None)
        self.objects = Objects((), None)
        if self.features is not None:
            self.tracker.see(self.clock, self.features)

    def rows(self) -> tuple[Tensor, Tensor]:
        """The objects' logits (N, 4h, 4w) and their scores (N,) on the frame in hand."""
        output = self.objects.output
        if output is None:
            return torch.zeros(0, 1, 1), torch.zeros(0)
        return output.logits, score(output)

    def result(self, logits: Tensor, scores: Tensor, finish: Finish) -> Results:
        """Bring the rows (N, 4h, 4w) and (N,) of the frame in hand to the picture's size.

        What Ultralytics has no place for stands beside it: the frame's number, ids, presence and predicted IoU.
        """
        assert self.here is not None
        ids = torch.tensor(self.objects.ids, dtype=torch.int64)
        kinds = [self.classes.get(obj_id, own_class(obj_id)) for obj_id in self.objects.ids]
        unnamed = {own_class(obj_id): str(obj_id) for obj_id in self.objects.ids if obj_id not in self.classes}
        names = {number: str(number) for number in kinds} | unnamed | self.names
        rows = Rows(logits, scores, torch.tensor(kinds, dtype=torch.int64), names, ids)
        result, chosen = finished(rows, self.here, finish)
        output, nothing = self.objects.output, torch.zeros(0)
        result.frame, result.obj_ids = self.here.number, tuple(ids[chosen].tolist())
        result.presence = nothing if output is None else output.presence.float().cpu()[chosen]
        result.iou = nothing if output is None else output.iou.float().cpu()[chosen]
        return result


def score(output: FrameOutput) -> Tensor:
    """(N,) in 0 … 1, both left out: how surely an object is there times how well its mask should fit.

    That is sigmoid(presence) · predicted IoU: above 0.5 only for an object that is present.
    """
    return (output.presence.float().sigmoid() * output.iou.float().clamp(0, 1)).clamp(SURE, 1 - SURE)


def nowhere(ids: tuple[int, ...], view: View) -> Objects:
    """The answer where no picture came: every object absent."""
    if not ids:
        return Objects((), None)
    count, (height, width) = len(ids), (side // 4 for side in view.network)
    absent = torch.full((count,), -CERTAIN_PRESENCE)
    masks = torch.full((count, height, width), ABSENT_LOGIT)
    return Objects(ids, FrameOutput(masks, torch.zeros(count, 0), absent, torch.zeros(count)))
