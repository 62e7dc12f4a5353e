"""One stream in progress: a frame at a time, any number of objects, prompts at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samplug.nn.frames import FrameOutput
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features, PromptBatch
from samplug.tracking.answers import follow, remember, show
from samplug.tracking.parts import InSlices, all_at_once
from samplug.tracking.policies import Policy, Reference, Rule
from samplug.tracking.tracks import Track, joined


@dataclass(frozen=True, eq=False)
class Objects:
    """What became of the objects on one frame.

    Attributes:
        ids: the objects' ids, in the order they were added.
        output: their answers, a row each, without memories; None without objects.
    """

    ids: tuple[int, ...]
    output: FrameOutput | None

    def __len__(self) -> int:
        return len(self.ids)


class Tracker:
    """Follow objects through one stream.

    The caller encodes a frame once (`model.see`) and hands it over (`see`), prompts objects on it (`prompt`), asks for
    all objects (`step`), and may then correct the answer (`prompt` again) until the next frame comes. Objects do not
    hear of each other. Memory stays the same however long the stream is.
    """

    def __init__(
        self,
        model: SAM2Model,
        policy: Callable[[], Policy] = Reference,
        *,
        max_prompted: int = 8,
        binarize: bool = True,
        clear_around_input: bool = False,
        clear_for_multi_obj: bool = False,
        expire_after: int | None = None,
        num_frames: int | None = None,
        reverse: bool = False,
        forget: bool = True,
        in_slices: InSlices = all_at_once,
    ) -> None:
        """Begin a stream.

        Args:
            model: the network, which is read only.
            policy: makes the policy of an object: a class of `samplug.tracking.policies`, or any callable.
            max_prompted: how many prompted frames of an object are looked back at, and kept once they are passed; at
                least 2, -1 for all. The model's own `max_cond_frames_in_attn` holds too.
            binarize: remember the masks of prompted frames as 0 and 1.
            clear_around_input: a prompt drops the object's tracked memories within stride · `num_maskmem` frames.
            clear_for_multi_obj: also where there are several objects.
            expire_after: remove objects that were absent on so many frames running; None never does.
            num_frames: length of the video, where pointers are to be timed as in a short video; None for a stream.
            reverse: whether the first pass goes backwards.
            forget: drop what no frame ahead can ask for. False keeps all, for sources that can go back.
            in_slices: how many objects are answered at once where they may be one batch, which is not on a CPU.

        Raises:
            ValueError: a model without memory, or `max_prompted` is 0, 1 or below -1.
        """
        if not model.num_maskmem:
            raise ValueError("This model has num_maskmem=0, that is no memory: objects cannot be followed with it.")
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
        self._policy, self._forget, self._in_slices = policy, forget, in_slices
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
    def see(self, frame: int, features: Features) -> None:
        """Take a frame in hand.

        Args:
            frame: its number; numbers of one stream have no gaps, whatever frames of the source are left out.
            features: `model.see` of it, one picture.
        """
        self._finish()
        self._leave()
        self.frame, self._features, self._stepped = frame, features, False

    @torch.no_grad()
    def prompt(
        self,
        obj_id: int,
        prompts: PromptBatch | None = None,
        mask: Tensor | None = None,
        *,
        add: bool = False,
        anew: bool = False,
    ) -> FrameOutput:
        """Show an object on the frame in hand, or correct it there.

        An object that this pass has not answered on the frame yet is answered without looking back, and the frame is a
        prompted one from now on. Otherwise it is a correction: memory and the last mask are used, and the frame stays
        a tracked one unless the model's `add_all_frames_to_correct_as_cond` says otherwise.

        Args:
            obj_id: any number; a new one adds an object.
            prompts: clicks, a box, or both, of one object, in pixels of the network's input.
            mask: instead of these, its mask (1, 1, 16h, 16w), 1 on the object and 0 off it.
            add: add clicks to those already given on this frame; else they replace them.
            anew: answer without looking back also where the object was tracked, and make the frame a prompted one: for
                one that was lost, or whose mask is wrong.

        Returns:
            The object's answer, one row.

        Raises:
            RuntimeError: no frame is in hand.
            ValueError: neither or both of `prompts` and `mask`, or prompts of several objects.
        """
        frame, features = self._in_hand()
        if (prompts is None) == (mask is None) or (prompts is not None and len(prompts) != 1):
            raise ValueError("An object is prompted by clicks and a box of its own, or by a mask: give one of the two.")
        track = self._tracks.get(obj_id) or Track(obj_id, self._policy())
        given = PromptBatch(torch.zeros(1, dtype=torch.int64)) if prompts is None else prompts
        given = joined(track.clicks.get(frame), given) if add else given
        starts = anew or track.starts_at(frame)
        output = show(self.model, frame, features, track, given, mask, self.rule, anew)
        self._tracks[obj_id] = track
        track.prompt(frame, given, output, starts, starts or self.model.add_all_frames_to_correct_as_cond)
        if self._clear_around_input and (len(self._tracks) == 1 or self._clear_for_multi_obj):
            track.clear_around(frame, self.rule.stride * self.rule.num_maskmem)
        return output

    @torch.no_grad()
    def step(self) -> Objects:
        """Answer the frame in hand for every object that has come.

        An object that was prompted or corrected on this frame keeps that answer; the others are tracked. Objects whose
        prompted frames all lie ahead are left out. Then memories are made.

        Raises:
            RuntimeError: no frame is in hand.
        """
        frame, features = self._in_hand()
        for track in self._tracks.values():
            if track.current is None and frame in track.anchors():
                track.current = track.records[frame]
        lost = [t for t in self._tracks.values() if t.current is None and t.has_come(frame, self.rule)]
        follow(self.model, frame, features, lost, self.rule, self._in_slices)
        self._finish()
        self._stepped = True
        return self._answered(frame)

    # Objects

    def remove(self, obj_id: int) -> None:
        """Remove an object and all that is known of it.

        Raises:
            ValueError: there is no such object.
        """
        self._track(obj_id)
        del self._tracks[obj_id]

    def clear_prompts(self, obj_id: int, frame: int | None = None) -> None:
        """Take back an object's prompts on one frame, or on all, and what was remembered from them.

        The object keeps its id; without any prompted frame it is left out until it is prompted again.

        Raises:
            ValueError: there is no such object.
        """
        track = self._track(obj_id)
        for prompted in [f for f in track.clicks if frame in (None, f)]:
            track.drop(prompted)
            if prompted == self.frame:
                track.current, track.to_remember = None, False

    def reset(self) -> None:
        """Remove all objects and let go of the frame in hand."""
        self._tracks.clear()
        self.frame = self._features = None

    @torch.no_grad()
    def rewind(self, reverse: bool = False) -> None:
        """Begin another pass, from any frame: prompted frames stay, tracked ones are forgotten, corrections too."""
        self._finish()
        self.rule = replace(self.rule, reverse=reverse)
        for track in self._tracks.values():
            track.restart(self._policy())
        self.frame = self._features = None

    def state_bytes(self) -> int:
        """Count the bytes held, each storage once: the frame in hand and all objects."""
        held = [tensor for track in self._tracks.values() for tensor in track.tensors()]
        held += [] if self._features is None else [self._features.image, *self._features.fine]
        storages = (tensor.untyped_storage() for tensor in held)
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def _track(self, obj_id: int) -> Track:
        if obj_id not in self._tracks:
            raise ValueError(f"There is no object {obj_id}; the objects are {list(self._tracks)}.")
        return self._tracks[obj_id]

    def _in_hand(self) -> tuple[int, Features]:
        if self.frame is None or self._features is None:
            raise RuntimeError("No frame is in hand: call see(frame, features) first.")
        return self.frame, self._features

    def _answered(self, frame: int) -> Objects:
        """Collect the answers, and let objects go that have been away too long."""
        here = [track for track in self._tracks.values() if track.current is not None]
        for track in here:
            track.passed(frame)
            if self.expire_after is not None and track.is_gone(frame, self.expire_after, self.rule):
                del self._tracks[track.obj_id]
        rows = [replace(track.current, memory=None) for track in here if track.current is not None]
        return Objects(tuple(track.obj_id for track in here), FrameOutput.cat(rows) if rows else None)

    def _leave(self) -> None:
        """Let go of the answers on the frame in hand, and of what only this frame and those behind it could ask for."""
        for track in self._tracks.values():
            if self._forget and self._stepped and self.frame is not None:
                track.forget(self.frame, self.rule)
            track.current = None

    def _finish(self) -> None:
        """Make the memories of the frame in hand that are due."""
        if self.frame is not None and self._features is not None:
            tracks = self._tracks.values()
            remember(self.model, self.frame, self._features, tracks, self.binarize, self._in_slices)
