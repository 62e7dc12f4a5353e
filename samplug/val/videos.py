"""Objects tracked through videos: J, F and J&F of DAVIS, presence, identities.

N objects of a video, (H, W) its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, pairwise
from statistics import fmean

import numpy as np
import torch

from samplug.data.samples import AnnotatedFrame, AnnotatedVideo
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features
from samplug.runtime.progress import JobProgress
from samplug.tracking.policies.base import Policy, Reference
from samplug.transforms import ImageTransform, Size
from samplug.val.images import preprocess
from samplug.val.metrics import jaccard, mask_scores
from samplug.val.scores import CalibrationLog, Case, Row, Scores
from samplug.val.trackers import FirstMaskTracker, MemoryTracker, NoMemoryTracker, TrackedMasks, VideoTracker

ON_OBJECT_IOU = 0.5  # from which a mask counts as being on an object
NOTICE_FRAMES = 3  # within which the network should predict that an object has left
MEMORY_OFF, FIRST_MASK = "memory off", "first mask kept"


@dataclass(frozen=True)
class VideoProtocol:
    """How the objects of videos are prompted and tracked."""

    prompts: tuple[str, ...] = ("mask",)  # each on its first frame, by "mask", "box" or "click", one run each
    policy: Callable[[], Policy] = Reference  # which memories are used
    non_overlap: bool = True  # leave each pixel to one object, as the predictor does
    batch: int = 1  # frames encoded at once
    baselines: bool = False  # whether to track with the memory off, and with the first mask kept, too
    verbose: bool = False  # whether a long video shows a bar

    def trackers(self, model: SAM2Model) -> dict[str, Callable[[], VideoTracker]]:
        """Makers of trackers, by name."""
        made: dict[str, Callable[[], VideoTracker]] = {
            prompt: partial(MemoryTracker, model, prompt, self.policy, self.non_overlap) for prompt in self.prompts
        }
        if self.baselines:
            made |= {MEMORY_OFF: partial(NoMemoryTracker, model, self.prompts[0]), FIRST_MASK: FirstMaskTracker}
        return made


def evaluate_videos(
    model: SAM2Model, videos: Iterable[AnnotatedVideo], size: Size, protocol: VideoProtocol = VideoProtocol()
) -> dict[str, Scores]:
    """Prompt every object on the first frame where it is visible, track it to the end, and score the masks.

    The rest is as in `evaluate_images`.

    Returns:
        For each kind of prompt, and for each baseline, the scores of every object: `J`, `F` and their mean `J&F`, over
        its frames after the first and before the video's last, as DAVIS counts; `switches`, how often its mask went
        over to another object; `gone`, the share of its absences of three frames or more that were noticed (presence
        below 0) within three; `found`, the share of its returns after which its mask was on it again.
    """
    trackers = protocol.trackers(model)
    results = {name: Scores(calibration={"iou": CalibrationLog(), "presence": CalibrationLog()}) for name in trackers}
    for video in videos:
        with torch.inference_mode():
            made = {name: make() for name, make in trackers.items()}
            logs = track_video(model, video, size, made, protocol.batch, protocol.verbose)
        for name, log in logs.items():
            log.add_to(results[name], video.name)
    for scores in results.values():
        rows = [row.scores for row in scores.rows]
        scores.counts["switches"] = sum(row.pop("switches") for row in rows)
        scores.counts |= {
            name: sum(key in row for row in rows) for name, key in (("left", "gone"), ("returned", "found"))
        }
    return results


def track_video(
    model: SAM2Model, video: AnnotatedVideo, size: Size, trackers: Mapping[str, VideoTracker], batch: int,
    verbose: bool = False,
) -> dict[str, VideoLog]:  # fmt: skip
    """Run trackers through a video side by side, so that each frame is read and encoded once."""
    logs = {name: VideoLog() for name in trackers}
    known: set[int] = set()
    with JobProgress({"frame": len(video.frames)}, "A smaller imgsz=, or clips=, takes less.", verbose) as progress:
        for number, (frame, features, transform) in enumerate(encoded_frames(model, video, size, batch, progress)):
            with progress.timed("frame"):
                masks = () if frame.masks is None else frame.masks
                new = {index: mask for index, mask in enumerate(masks) if index not in known and mask.any()}
                known |= new.keys()
                for name, tracker in trackers.items():
                    logs[name].add(frame, new.keys(), tracker.step(number, features, transform, new))
    return logs


def encoded_frames(
    model: SAM2Model, video: AnnotatedVideo, size: Size, batch: int, progress: JobProgress | None = None
) -> Iterator[tuple[AnnotatedFrame, Features, ImageTransform]]:
    """The frames of a video with their features, encoded so many at once."""
    for start in range(0, len(video.frames), batch):
        with progress.timed("frame", 0) if progress else nullcontext():
            frames = [video.frames[i] for i in range(start, min(start + batch, len(video.frames)))]
            features = model.encode_image(preprocess(model, [frame.image for frame in frames], size))
        for i, frame in enumerate(frames):
            yield frame, features[i], ImageTransform((frame.image.shape[0], frame.image.shape[1]), size)


@dataclass(frozen=True)
class FrameScore:
    """One object on one frame: whether it is visible, its mask's scores, presence and predicted IoU (or None)."""

    visible: bool
    scores: dict[str, float]
    presence: float | None
    iou: float | None


@dataclass(eq=False)
class VideoLog:
    """The objects of one video under one tracker."""

    frames: dict[int, list[FrameScore]] = field(default_factory=dict)  # annotated, after the one where it was prompted
    on_object: dict[int, list[int]] = field(
        default_factory=dict
    )  # those that its mask was on, in order; at first itself
    shares: dict[int, float] = field(default_factory=dict)  # of the image that each filled when it was prompted
    worst: dict[int, Case] = field(default_factory=dict)  # each object's worst frame

    def add(self, frame: AnnotatedFrame, new: Iterable[int], tracked: TrackedMasks) -> None:
        """Add a frame, on which the objects in `new` were prompted."""
        if frame.masks is None:
            return
        for index in new:
            self.frames[index], self.on_object[index] = [], [index]
            self.shares[index] = float(frame.masks[index].mean())
        for row, index in enumerate(tracked.objects):
            if index not in new:
                self._score(frame, index, tracked, row)

    def _score(self, frame: AnnotatedFrame, index: int, tracked: TrackedMasks, row: int) -> None:
        assert frame.masks is not None
        predicted, truth = tracked.masks[row], frame.masks[index]
        scores = mask_scores(predicted, truth, frame.void)
        presence, iou = (None if each is None else float(each[row]) for each in (tracked.presence, tracked.iou))
        self.frames[index].append(FrameScore(bool(truth.any()), scores, presence, iou))
        self._note_object(index, predicted, frame.masks, scores["J"])
        if index not in self.worst or scores["J"] < self.worst[index].score:
            self.worst[index] = Case(str(index), scores["J"], frame.image, truth, predicted)

    def _note_object(self, index: int, predicted: np.ndarray, masks: np.ndarray, own: float) -> None:
        """Note which object a mask is on, if it is clearly on one."""
        ious = [own if i == index else jaccard(predicted, mask) if mask.any() else 0.0 for i, mask in enumerate(masks)]
        if not masks[index].any():
            ious[index] = 0.0
        best = int(np.argmax(ious))
        if ious[best] >= ON_OBJECT_IOU and best != self.on_object[index][-1]:
            self.on_object[index].append(best)

    def add_to(self, scores: Scores, video: str) -> None:
        """Add the video's objects to the scores of all."""
        for index, frames in self.frames.items():
            counted = frames[:-1]
            if not counted:
                continue
            means = {name: fmean(frame.scores[name] for frame in counted) for name in counted[0].scores}
            means["J&F"] = (means["J"] + means["F"]) / 2
            means |= absences(frames) | {"switches": float(len(self.on_object[index]) - 1)}
            name, worst = f"{video} #{index}", self.worst[index]
            scores.rows.append(Row(name, self.shares[index], means))
            scores.add_case("J&F", replace(worst, name=name, score=means["J&F"]))
            for frame in frames:
                if frame.presence is not None:
                    scores.calibration["presence"].add(1 / (1 + np.exp(-frame.presence)), frame.visible)
                if frame.iou is not None and frame.visible:
                    scores.calibration["iou"].add(frame.iou, frame.scores["J"])


def absences(frames: Sequence[FrameScore]) -> dict[str, float]:
    """Whether an object's absences were noticed and its returns were found; a score only where there are such.

    An absence counts from three frames on, and is noticed when the presence is below 0 on any of its first three. A
    return counts after any absence, and is found when the mask has an IoU of one half on any frame until it leaves
    again.
    """
    stretches = [list(group) for _, group in groupby(frames, lambda frame: frame.visible)]
    gaps = [gap for gap in stretches if not gap[0].visible and len(gap) >= NOTICE_FRAMES]
    returns = [after for before, after in pairwise(stretches) if not before[0].visible]
    scores = {}
    if gaps and gaps[0][0].presence is not None:
        scores["gone"] = fmean(any((frame.presence or 0) < 0 for frame in gap[:NOTICE_FRAMES]) for gap in gaps)
    if returns:
        scores["found"] = fmean(any(frame.scores["J"] >= ON_OBJECT_IOU for frame in after) for after in returns)
    return scores
