"""The tracker of one stream: a frame at a time, any number of objects, prompts at any moment."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samplug.nn.memory.frames import FrameOutput
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features, PromptBatch
from samplug.tracking.policies.base import Policy, Reference, Rule
from samplug.tracking.steps import SliceRunner, encode_memories, prompt_object, run_at_once, track_objects
from samplug.tracking.track import Track, add_clicks


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects on one frame."""

    ids: tuple[int, ...] = ()  # in the order they were added
    output: FrameOutput | None = None  # a row each, without memories; None without objects

    def __len__(self) -> int:
        return len(self.ids)


class Tracker:
    """Track objects through one stream.

    The caller encodes a frame once (`model.encode_image`) and passes its features (`start_frame`), prompts objects on
    it (`prompt`), segments all objects (`step`), and may then correct them (`prompt` again) until the next frame.
    Objects are tracked independently. Memory stays the same however long the stream is.
    """

    def __init__(
        self, model: SAM2Model, policy: Callable[[], Policy] = Reference, *, max_prompted: int = 8,
        binarize: bool = True, clear_around_input: bool = False, clear_for_multi_obj: bool = False,
        keep_corrections: bool = False, expire_after: int | None = None, num_frames: int | None = None,
        reverse: bool = False, forget: bool = True, run_slices: SliceRunner = run_at_once,
    ) -> None:  # fmt: skip
        """Start a stream.

        Args:
            model: the network, which is not changed.
            policy: makes the policy of an object: a class of `samplug.tracking.policies.base`, or any callable.
            max_prompted: how many prompted frames of an object are attended to, and kept once they are passed; at least
                2, -1 for all. The model's own `max_cond_frames_in_attn` holds too.
            binarize: encode the masks of prompted frames as 0 and 1.
            clear_around_input: a prompt drops the object's tracked memories within stride · `num_maskmem` frames.
            clear_for_multi_obj: also where there are several objects.
            keep_corrections: a corrected frame becomes a prompted one, as with `add_all_frames_to_correct_as_cond`.
            expire_after: remove objects that were absent on so many frames running; None never does.
            num_frames: length of the video, where pointers are to be timed as in a short video; None for a stream.
            reverse: whether the first pass goes backwards.
            forget: drop what no later frame can select. False keeps all, for sources that can go back.
            run_slices: how many objects of a batch run at once; on a CPU there are no batches.

        Raises:
            ValueError: if the model has no memory, or `max_prompted` is 0, 1 or below -1.
        """
        if not model.num_maskmem:
            raise ValueError("This model has num_maskmem=0, that is no memory: objects cannot be tracked with it.")
        if max_prompted in (0, 1) or max_prompted < -1:
            raise ValueError(f"max_prompted={max_prompted}: give 2 or more, or -1 for all prompted frames.")
        caps = [cap for cap in (max_prompted, model.max_cond_frames_in_attn) if cap != -1]
        self.model = model
        self.rule = Rule(
            num_maskmem=model.num_maskmem,
            max_pointers=model.max_obj_ptrs_in_encoder,
            max_prompted=min(caps, default=-1),
            stride=model.memory_temporal_stride_for_eval,
            num_frames=num_frames,
            reverse=reverse,
            past_pointers_only=model.only_obj_ptrs_in_the_past_for_eval,
        )
        self.binarize, self.expire_after = binarize, expire_after
        self.frame: int | None = None
        self._policy, self._forget, self._run_slices = policy, forget, run_slices
        self._keep_corrections = keep_corrections or model.add_all_frames_to_correct_as_cond
        self._clear_around_input, self._clear_for_multi_obj = clear_around_input, clear_for_multi_obj
        self._features: Features | None = None
        self._stepped = False
        self._tracks: dict[int, Track] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects, in the order they were added."""
        return tuple(self._tracks)

    # A frame

    @torch.no_grad()
    def start_frame(self, frame: int, features: Features) -> None:
        """Make a frame the current one; `features`: `model.encode_image` of it, one image.

        Numbers of one stream have no gaps, whatever frames of the source are left out.
        """
        self._encode_memories()
        for track in self._tracks.values():
            if self._forget and self._stepped and self.frame is not None:
                track.prune(self.frame, self.rule)
            track.current = None
        self.frame, self._features, self._stepped = frame, features, False

    @torch.no_grad()
    def prompt(
        self, obj_id: int, prompts: PromptBatch | None = None, mask: Tensor | None = None, *, add: bool = False,
        without_memory: bool = False,
    ) -> FrameOutput:  # fmt: skip
        """Prompt an object on the current frame, or correct it there.

        An object without an output of this pass on the frame is segmented without memory, and the frame becomes a
        prompted one. Otherwise it is a correction: memory and the last mask are used, and the frame stays a tracked one
        unless `keep_corrections`.

        Args:
            obj_id: any number; a new one adds an object.
            prompts: clicks, a box, or both, of one object, in pixels of the network's input.
            mask: instead of these, its mask (1, 1, 16h, 16w), 1 on the object and 0 off it.
            add: add clicks to those already given on this frame; else they replace them.
            without_memory: segment without memory also where the object was tracked, and make the frame a prompted one:
                for an object that was lost, or whose mask is wrong.

        Returns:
            The object's output, one row. RuntimeError if no frame was started; ValueError for neither or both of
            `prompts` and `mask`, or prompts of several objects.
        """
        frame, features = self._current_frame()
        if (prompts is None) == (mask is None) or (prompts is not None and len(prompts) != 1):
            raise ValueError("Expected clicks and a box of one object, or a mask of it: give one of the two.")
        track = self._tracks.get(obj_id) or Track(obj_id, self._policy())
        prompts = PromptBatch(torch.zeros(1, dtype=torch.int64)) if prompts is None else prompts
        prompts = add_clicks(track.clicks.get(frame), prompts) if add else prompts
        initial = without_memory or track.is_initial(frame)
        context = None if initial else track.memory_context(frame, self.rule)
        previous = None if without_memory else track.previous_logits(frame)
        output = prompt_object(self.model, features, prompts, mask, context, previous)
        self._tracks[obj_id] = track
        prompted = initial or self._keep_corrections
        track.add_prompted(frame, prompts, output, initial, prompted)
        if self._clear_around_input and (len(self._tracks) == 1 or self._clear_for_multi_obj):
            track.drop_tracked_around(frame, self.rule.stride * self.rule.num_maskmem)
        return output

    @torch.no_grad()
    def step(self) -> Objects:
        """Segment all objects on the current frame, and encode their memories.

        An object that was prompted or corrected on this frame keeps that output; the others are tracked. Objects whose
        prompted frames all lie ahead are left out. RuntimeError if no frame was started.
        """
        frame, features = self._current_frame()
        tracks = list(self._tracks.values())
        for track in tracks:
            if track.current is None and frame in track.prompted and frame in track.records:
                track.current = track.records[frame]
        unprompted = [t for t in tracks if t.current is None and t.can_be_tracked(frame, self.rule)]
        track_objects(self.model, frame, features, unprompted, self.rule, self._run_slices)
        self._encode_memories()
        self._stepped = True
        return self._collect(frame)

    # Objects

    def remove(self, obj_id: int) -> None:
        """Remove an object; ValueError if there is no such object."""
        self._track(obj_id)
        del self._tracks[obj_id]

    def clear_prompts(self, obj_id: int, frame: int | None = None) -> None:
        """Remove an object's prompts on one frame, or on all, and their memories; ValueError if there is none.

        The object keeps its id; without any prompted frame it is left out until it is prompted again.
        """
        track = self._track(obj_id)
        for prompted in [f for f in track.clicks if frame in (None, f)]:
            track.drop(prompted)
            if prompted == self.frame:
                track.current, track.memory_pending = None, False

    def reset(self) -> None:
        """Remove all objects and the current frame."""
        self._tracks.clear()
        self.frame = self._features = None

    @torch.no_grad()
    def rewind(self, reverse: bool = False) -> None:
        """Start another pass, from any frame: prompted frames stay, tracked ones are dropped, corrections too."""
        self._encode_memories()
        self.rule = replace(self.rule, reverse=reverse)
        for track in self._tracks.values():
            track.restart(self._policy())
        self.frame = self._features = None

    # Snapshots

    def copied(self) -> Tracker:
        """The tracker as it is now, with the same tensors: what is done to this one does not change it."""
        copied = copy(self)
        copied._tracks = dict(zip(self._tracks, map(Track.copied, self._tracks.values()), strict=True))
        return copied

    def state(self) -> dict[str, Any]:
        """All that the frames after the current one depend on, after its `step`, as plain values and tensors."""
        return {"frame": self.frame, "tracks": [track.state() for track in self._tracks.values()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on behind the frame of a state, whose tensors are on the network's device."""
        self.frame, self._features, self._stepped = state["frame"], None, True
        tracks = [Track.of_state(each, self._policy()) for each in state["tracks"]]
        self._tracks = {track.obj_id: track for track in tracks}

    def _track(self, obj_id: int) -> Track:
        if not isinstance(obj_id, Hashable) or obj_id not in self._tracks:
            raise ValueError(f"There is no object {obj_id}; the objects are {list(self._tracks)}.")
        return self._tracks[obj_id]

    def _current_frame(self) -> tuple[int, Features]:
        if self.frame is None or self._features is None:
            raise RuntimeError("There is no current frame: call start_frame(frame, features) first.")
        return self.frame, self._features

    def _collect(self, frame: int) -> Objects:
        """Collect the outputs, and remove expired objects."""
        outputs: dict[int, FrameOutput] = {}
        for obj_id, track in list(self._tracks.items()):
            if track.current is not None:
                outputs[obj_id] = replace(track.current, memory=None)
                track.extend_span(frame)
                if self.expire_after is not None and track.is_expired(frame, self.expire_after, self.rule):
                    del self._tracks[obj_id]
        return Objects(tuple(outputs), FrameOutput.cat([*outputs.values()]) if outputs else None)

    def _encode_memories(self) -> None:
        """Encode the memories that the current frame still needs."""
        if self.frame is None or self._features is None:
            return
        pairs = [(track, track.current) for track in self._tracks.values() if track.current is not None]
        rows = [i for i, (track, _) in enumerate(pairs) if track.memory_pending]
        if not rows:
            return
        outputs, prompted = [output for _, output in pairs], [self.frame in track.clicks for track, _ in pairs]
        memories = encode_memories(self.model, self._features, outputs, rows, prompted, self.binarize, self._run_slices)
        for row, memory in memories:
            pairs[row][0].add_memory(self.frame, memory)
