"""What is said to a video while it runs: prompts at any time, corrections, objects removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samplug.host import Results
from samplug.nn.frames import FrameOutput
from samplug.predict.answers import Prediction
from samplug.predict.following import Following, Here, score
from samplug.predict.sam2 import SAM2Predictor
from samplug.predict.timeline import read_object
from samplug.prompt_forms import refuse

START = "There is no video yet: call the predictor with a source first, or give prompts= with it."


class Conversation(SAM2Predictor):
    """The side of a video predictor that its user speaks to while the video or the streams run.

    Attributes:
        inference_state: the video or the streams in progress, by their place in the batch.
    """

    inference_state: dict[int, Following]

    def add_new_prompts(
        self,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        frame_idx: int | None = 0,
        *,
        bboxes: Any = None,
        cls: int | None = None,
        names: Any = None,
        stream: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Show an object, new or known, on any frame: from a callback, or between two results of a stream.

        On the frame returned last its features and logits are at hand: the answer changes at once, and the new
        `Results` stands in `self.results`. On a frame to come the prompt waits. A frame that went by is read again
        where the source can; there a known object is corrected only as far as its memory reaches.

        Args:
            obj_id: any whole number.
            points: (P, 2) in pixels of the picture, or one (2,).
            labels: (P,) 1 on the object, 0 off it; left out means 1.
            masks: instead of points and a box, the object's mask (H, W).
            frame_idx: number of the frame in its source, from 0; None is the frame returned last.
            bboxes: a box (4,) xyxy, alone or together with points.
            cls: the object's class.
            names: names of classes.
            stream: which of several streams, by place.

        Returns:
            (logits (1, h/4, w/4), scores (1,)) of the object; with no rows when the frame is still to come.

        Raises:
            PromptError: prompts cannot be read, are of two kinds, or belong to a frame that cannot be seen again.
            RuntimeError: there is no video, or no frame yet and `frame_idx` is None.
        """
        spelled = {"points": points, "labels": labels, "masks": masks, "bboxes": bboxes, "cls": cls, "names": names}
        spelled = {name: value for name, value in spelled.items() if value is not None}
        one = self._stream(stream)
        here = one.here
        if frame_idx is None and here is None:
            raise RuntimeError("No frame has been returned yet: name one, frame_idx=0 is the first.")
        if here is None or frame_idx is not None and self._lies_ahead(one, here, frame_idx):
            assert frame_idx is not None
            read_object(obj_id, spelled, None)
            one.timeline.add(frame_idx, {int(obj_id): spelled})
            return torch.zeros(0, 1, 1), torch.zeros(0)
        with torch.inference_mode(), self._cores():
            number = here.number if frame_idx is None else frame_idx
            output = self._show(one, here, number, obj_id, spelled)
            self._renew(one)
            return output.logits, score(output)

    @staticmethod
    def _lies_ahead(one: Following, here: Here, frame: int) -> bool:
        return frame < here.number if one.backwards else frame > here.number

    def _show(self, one: Following, here: Here, number: int, obj_id: int, spelled: dict[str, Any]) -> FrameOutput:
        """Prompt an object on the frame in hand, or on one that went by."""
        if number == here.number:
            if one.features is None:
                refuse("frame_idx", "the frame in hand is black, the stream lost its signal", "a later frame")
            return one.correct(read_object(obj_id, spelled, here.view.picture))
        if one.clip is None or not one.can_go_back:
            accepted = f"{here.number} or None, the frame returned last, or a later one"
            refuse("frame_idx", f"frame {number} went by, and this source cannot go back to it", accepted)
        if (number - here.number) % one.stride:
            refuse("frame_idx", f"frame {number} is left out by vid_stride={one.stride}", "a frame that is run")
        shot = one.clip.read(number)
        im = self.preprocess([shot.picture])
        (view,) = self._views(im, [shot.picture])
        return one.show_earlier(read_object(obj_id, spelled, view.picture), number, view, self.network.see(im))

    def _renew(self, one: Following) -> None:
        """Make the result of the frame in hand anew, after its objects changed."""
        slot = next(slot for slot, each in self.inference_state.items() if each is one)
        if one.here is not None and self.results is not None and slot < len(self.results):
            before = self.results[slot]
            self.results[slot] = self._result(one, Prediction(*one.rows()))
            self.results[slot].speed, self.results[slot].save_dir = before.speed, before.save_dir

    def remove_object(self, obj_id: int, stream: int | None = None) -> None:
        """Forget an object; the others keep their ids and their masks.

        Raises:
            ValueError: there is no such object.
        """
        one = self._stream(stream)
        one.remove(obj_id)
        self._renew(one)

    def clear_prompts(self, obj_id: int | None = None, stream: int | None = None) -> None:
        """Take back the prompts of an object, or of all, and what was learnt from them; ids and classes stay.

        Raises:
            ValueError: there is no such object.
        """
        one = self._stream(stream)
        one.clear_prompts(obj_id)
        self._renew(one)

    def reset(self, stream: int | None = None) -> None:
        """Remove all objects of a stream, and of all streams when none is named; the run goes on without."""
        for one in self.inference_state.values() if stream is None else [self._stream(stream)]:
            one.restart()
            self._renew(one)

    def propagate_in_video_preflight(self) -> None:
        """Make the memories of new prompts now; the next frame would do it."""
        with torch.inference_mode(), self._cores():
            for one in self.inference_state.values():
                if one.features is not None:
                    one.objects = one.tracker.step()

    def _stream(self, which: int | None) -> Following:
        """The stream in a place; with one alone it need not be named."""
        if not self.inference_state:
            raise RuntimeError(START)
        if which is None and len(self.inference_state) > 1:
            raise ValueError(f"{len(self.inference_state)} streams are running: say which, stream=0 is the first.")
        which = 0 if which is None else which
        if which not in self.inference_state:
            raise ValueError(f"There is no stream {which}: they are 0 to {len(self.inference_state) - 1}.")
        return self.inference_state[which]

    def _result(self, one: Following, rows: Prediction) -> Results:
        """What the user is given of a frame."""
        raise NotImplementedError
