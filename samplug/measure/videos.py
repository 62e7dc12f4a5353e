"""Objects followed through videos: J, F and J&F of DAVIS, presence, identities.

N objects of a video, (H, W) its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import numpy as np
import torch

from samplug.measure.calibration import Claims
from samplug.measure.entering import entered, views_of
from samplug.measure.findings import Case, Findings, Row, Worst
from samplug.measure.followers import MASK, ByMemory, Follower, Seen, Standing, WithoutMemory
from samplug.measure.overlap import boundary_f, jaccard
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features
from samplug.tracking.policies import Policy, Reference
from samplug.view import Size, View

HELD = 0.5  # overlap from which a mask counts as being on an object
SOON = 3  # frames within which an object that leaves should be called absent
MEMORY_OFF, FIRST_MASK = "memory off", "first mask kept"


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame (H, W, 3) uint8 RGB.

    Attributes:
        image: The picture.
        masks: (N, H, W) bool, what is visible of each object; None where nobody drew the truth.
        void: (H, W) bool, where nobody knows the truth, or None.
    """

    image: np.ndarray
    masks: np.ndarray | None
    void: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Video:
    """Frames, which may be read only when they are asked for; all of one size."""

    name: str
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Following:
    """How the objects of videos are shown and followed.

    Attributes:
        ask: How each object is shown on its first frame: by `"mask"`, `"box"` or `"click"`, one run each.
        policy: Which memories are used.
        non_overlap: Leave each pixel to one object, as the predictor does.
        batch: Frames encoded at once.
        baselines: Whether to see what the network does with its memory off, and what the first mask gives if it stays.
    """

    ask: tuple[str, ...] = (MASK,)
    policy: Callable[[], Policy] = Reference
    non_overlap: bool = True
    batch: int = 1
    baselines: bool = False

    def ways(self, model: SAM2Model) -> dict[str, Callable[[], Follower]]:
        """Makers of followers, by name."""
        ways: dict[str, Callable[[], Follower]] = {
            ask: partial(ByMemory, model, ask, self.policy, self.non_overlap) for ask in self.ask
        }
        if self.baselines:
            ways |= {MEMORY_OFF: partial(WithoutMemory, model, self.ask[0]), FIRST_MASK: Standing}
        return ways


def measure(
    model: SAM2Model, videos: Iterable[Video], size: Size, following: Following = Following()
) -> dict[str, Findings]:
    """Show every object on the first frame where it is seen, follow it to the end, and compare.

    Args:
        model: A SAM 2 of ours, in eval mode, wherever it is and in whatever precision.
        videos: Read or drawn as they are needed.
        size: (h, w) of the network's input, into which frames are letterboxed.
        following: How objects are shown and followed.

    Returns:
        For each way of showing objects, and for each baseline, the scores of every object: `J`, `F` and their mean
        `J&F`, over its frames after the first and before the video's last, as DAVIS counts; `switches`, how often its
        mask went over to another object; `gone`, the share of its absences of three frames or more that were noticed
        (presence below 0) within three; `found`, the share of its returns after which its mask met it again.
    """
    ways = following.ways(model)
    findings = {name: Findings(claims={"iou": Claims(), "presence": Claims()}, worst={"J&F": Worst()}) for name in ways}
    for video in videos:
        with torch.inference_mode():
            courses = walk(model, video, size, {name: make() for name, make in ways.items()}, following.batch)
        for name, course in courses.items():
            course.close(video.name, findings[name])
    for found in findings.values():
        scores = [row.scores for row in found.rows]
        found.counts["switches"] = sum(each.pop("switches") for each in scores)
        found.counts |= {
            "left": sum("gone" in each for each in scores),
            "returned": sum("found" in each for each in scores),
        }
    return findings


def walk(
    model: SAM2Model, video: Video, size: Size, followers: Mapping[str, Follower], batch: int
) -> dict[str, Course]:
    """Take followers through a video side by side, so that each frame is read and encoded once."""
    courses = {name: Course() for name in followers}
    known: set[int] = set()
    for number, (frame, features, view) in enumerate(encoded(model, video, size, batch)):
        masks = () if frame.masks is None else frame.masks
        shown = {place: mask for place, mask in enumerate(masks) if place not in known and mask.any()}
        known |= shown.keys()
        for name, follower in followers.items():
            courses[name].add(frame, shown.keys(), follower.step(number, features, view, shown))
    return courses


def encoded(model: SAM2Model, video: Video, size: Size, batch: int) -> Iterator[tuple[Frame, Features, View]]:
    """The frames of a video with their features, encoded so many at once."""
    for start in range(0, len(video.frames), batch):
        few = [video.frames[i] for i in range(start, min(start + batch, len(video.frames)))]
        images = [frame.image for frame in few]
        views = views_of(images, size)
        features = model.see(entered(model, images, views))
        for i, frame in enumerate(few):
            yield frame, features[i], views[i]


@dataclass(frozen=True)
class Moment:
    """One object on one frame: whether it is visible, how well it was met, what the network said (or None)."""

    visible: bool
    j: float
    f: float
    presence: float | None
    iou: float | None


@dataclass(eq=False)
class Course:
    """What became of the objects of one video under one follower.

    Attributes:
        moments: Of each object, frame by frame after the one where it was shown, where the truth is known.
        holds: The objects that each one's mask was on, as they changed; at first itself.
        shares: The share of the picture that each object filled when it was shown.
        lowest: Each object's worst frame.
    """

    moments: dict[int, list[Moment]] = field(default_factory=dict)
    holds: dict[int, list[int]] = field(default_factory=dict)
    shares: dict[int, float] = field(default_factory=dict)
    lowest: dict[int, Case] = field(default_factory=dict)

    def add(self, frame: Frame, shown: Iterable[int], seen: Seen) -> None:
        """Take in a frame."""
        if frame.masks is None:
            return
        for place in shown:
            self.moments[place], self.holds[place] = [], [place]
            self.shares[place] = float(frame.masks[place].mean())
        for row, place in enumerate(seen.places):
            if place not in shown:
                self._compare(frame, place, seen, row)

    def _compare(self, frame: Frame, place: int, seen: Seen, row: int) -> None:
        assert frame.masks is not None
        found, wanted = seen.masks[row], frame.masks[place]
        j, f = jaccard(found, wanted, frame.void), boundary_f(found, wanted, frame.void)
        presence, iou = (None if said is None else float(said[row]) for said in (seen.presence, seen.iou))
        self.moments[place].append(Moment(bool(wanted.any()), j, f, presence, iou))
        self._hold(place, found, frame.masks, j)
        if place not in self.lowest or j < self.lowest[place].score:
            self.lowest[place] = Case(str(place), j, frame.image, wanted, found)

    def _hold(self, place: int, found: np.ndarray, masks: np.ndarray, own: float) -> None:
        """Note which object a mask is on, if it is clearly on one."""
        overlaps = [own if i == place else jaccard(found, mask) if mask.any() else 0.0 for i, mask in enumerate(masks)]
        if not masks[place].any():
            overlaps[place] = 0.0
        best = int(np.argmax(overlaps))
        if overlaps[best] >= HELD and best != self.holds[place][-1]:
            self.holds[place].append(best)

    def close(self, video: str, findings: Findings) -> None:
        """Add up the video's objects."""
        for place, moments in self.moments.items():
            counted = moments[:-1]
            if not counted:
                continue
            scores = {"J": fmean(m.j for m in counted), "F": fmean(m.f for m in counted)}
            scores["J&F"] = (scores["J"] + scores["F"]) / 2
            scores |= absences(moments) | {"switches": float(len(self.holds[place]) - 1)}
            name = f"{video} #{place}"
            findings.rows.append(Row(name, self.shares[place], scores))
            lowest = self.lowest[place]
            findings.worst["J&F"].show(Case(name, scores["J&F"], lowest.image, lowest.wanted, lowest.found))
            for moment in moments:
                _claim(moment, findings)


def _claim(moment: Moment, findings: Findings) -> None:
    """Note what the network said of an object on a frame."""
    if moment.presence is not None:
        findings.claims["presence"].add(1 / (1 + np.exp(-moment.presence)), moment.visible)
    if moment.iou is not None and moment.visible:
        findings.claims["iou"].add(moment.iou, moment.j)


def absences(moments: Sequence[Moment]) -> dict[str, float]:
    """Whether an object's absences were noticed and its returns were met; a score only where there are such.

    An absence counts from three frames on, and is noticed when the presence is below 0 on any of its first three. A
    return counts after any absence, and is met when the mask overlaps the object by half on any frame until it leaves
    again.
    """
    stretches = _stretches(moments)
    gaps = [stretch for stretch in stretches if not stretch[0].visible and len(stretch) >= SOON]
    returns = [after for before, after in zip(stretches, stretches[1:], strict=False) if not before[0].visible]
    scores = {}
    if gaps and gaps[0][0].presence is not None:
        scores["gone"] = fmean(any((m.presence or 0) < 0 for m in gap[:SOON]) for gap in gaps)
    if returns:
        scores["found"] = fmean(any(m.j >= HELD for m in stretch) for stretch in returns)
    return scores


def _stretches(moments: Sequence[Moment]) -> list[list[Moment]]:
    """Moments cut wherever the object leaves or returns."""
    stretches: list[list[Moment]] = []
    for moment in moments:
        if not stretches or stretches[-1][0].visible != moment.visible:
            stretches.append([])
        stretches[-1].append(moment)
    return stretches
