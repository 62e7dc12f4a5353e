"""Scores of a network in training: what `samplug.val` measures, on few enough objects for every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from samplug.data.help import SCENES
from samplug.data.open import Data, open_data
from samplug.nn.sam2 import SAM2Model
from samplug.train.data.sets import drawn_data
from samplug.transforms import Size
from samplug.val.images import ImageProtocol, Network, evaluate_images
from samplug.val.scores import Case
from samplug.val.videos import VideoProtocol, evaluate_videos

IMAGE_SCORES = ("click1", "click3", "box")
VIDEO_SCORE = "J&F"
MOST_IMAGES, MOST_VIDEOS, MOST_OBJECTS = 200, 20, 4  # that are measured
Watch = Callable[[Iterable[Any], str], Iterable[Any]]  # shows progress, and may end the run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores by name, and the worst answers of each kind."""

    scores: dict[str, float] = field(default_factory=dict)
    worst: dict[str, list[Case]] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """The mean of click1 and box, of J&F, or of both where there are images and videos."""
        images = [self.scores[name] for name in ("click1", "box") if name in self.scores]
        parts = [sum(images) / len(images)] if images else []
        parts += [self.scores[VIDEO_SCORE]] if VIDEO_SCORE in self.scores else []
        return sum(parts) / len(parts) if parts else 0.0


def evaluate(model: Network, data: Data, size: Size, batch: int, watch: Watch) -> Evaluation:
    """Mean IoU after 1 and 3 clicks and of boxes, and J&F of videos prompted by masks, of a network in eval mode.

    `size` is (h, w) of its input, `batch` the number of images at once; `watch` wraps what is iterated.
    """
    scores: dict[str, float] = {}
    worst: dict[str, list[Case]] = {}
    if len(data.images):
        protocol = ImageProtocol(clicks=3, objects=MOST_OBJECTS, batch=batch)
        found = evaluate_images(model, watch(data.images[:MOST_IMAGES], "images"), size, protocol)
        means = found.means()
        scores |= {name: means[name] for name in IMAGE_SCORES if name in means}
        worst |= found.worst
    if len(data.videos) and isinstance(model, SAM2Model):
        tracked = evaluate_videos(model, watch(data.videos[:MOST_VIDEOS], "videos"), size, VideoProtocol(batch=batch))
        means = tracked["mask"].means()
        scores |= {VIDEO_SCORE: means[VIDEO_SCORE]} if VIDEO_SCORE in means else {}
        worst["video"] = tracked["mask"].worst.get(VIDEO_SCORE, [])
    return Evaluation(scores, worst)


def open_anchor(anchor: Any, tracks: bool) -> Data | None:
    """The data set that shows what is forgotten, videos where the network tracks; None where none is wanted."""
    if not anchor or str(anchor).lower() == "none":
        return None
    if anchor != SCENES:
        found = open_data(str(anchor))
        return Data(found.images, found.videos if tracks else found.videos[:0])
    return drawn_data(tracks)
