"""What `data=` of a training names: images or videos to learn from and to measure on, opened, split and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ultralytics.utils import TQDM

from samplug.data.help import SCENES
from samplug.data.open import Data, open_data
from samplug.data.synthetic import dataset
from samplug.errors import DataError, MissingSplitError, names_of
from samplug.train.data.check import (
    ImageFacts,
    annotated_files,
    check_images,
    files_of,
    label_digests,
    looks_semantic,
    twins,
)
from samplug.train.data.splits import groups_of, hold_out
from samplug.train.parallel.ranks import ONE_PROCESS, Ranks
from samplug.transforms import Size

TRAIN, VAL = "train", "val"
VAL_IMAGES, VAL_CLIPS, VAL_FRAMES = 40, 6, 8  # that are measured
Facts = Sequence[Sequence[ImageFacts]]  # of each image, one; of each video, those of its annotated frames


@dataclass(eq=False)
class TrainSets:
    """The two parts of a data set, and what was found in them.

    Attributes:
        train: to learn from; every image has an object that can be drawn, every video enough annotated frames.
        val: to measure on.
        classes: names by number.
        lines: what there is, for the log.
        warnings: what looks like a mistake.
        counts: numbers of images, videos and objects, for the card.
    """

    train: Data
    val: Data
    classes: Mapping[int, str]
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    most_objects: int = 0

    @property
    def fingerprint(self) -> str:
        """A hash of the names and sizes of all images, and one of the labels: others mean another data set.

        Runs of earlier releases know the first one alone.
        """
        if not (len(self.train.images) or len(self.train.videos)):
            return SCENES  # drawn alike everywhere
        files = [file for data in (self.train, self.val) for file in files_of(data)]
        images = [f"{file.path} {file.path.stat().st_size}" for file in files]
        return f"{_hash_of(images)}-{_hash_of(label_digests(files))}"


def open_sets(settings: Any, input_size: Size, tracks: bool = True, ranks: Ranks = ONE_PROCESS) -> TrainSets:
    """Open the data set of a `TrainSettings`, and read all of its images and labels once.

    Args:
        settings: see there; where there is no part to measure on, `holdout` of the groups are held out.
        input_size: (h, w) of the network's input, at which objects may be too small.
        tracks: whether the network has a memory, which learns from videos.
        ranks: the processes that train together, of which the first one reads the files.

    Raises:
        DataError: a file or a label cannot be read, or there is nothing to learn from or to measure on.
    """
    if settings.data == SCENES:
        if settings.clips and not tracks:
            raise DataError(f"clips={settings.clips} are learned from by SAM 2 and 2.1 alone. Expected no clips=.")
        return TrainSets(Data(), drawn_data(clips=settings.clips > 0), {})
    train, val = _open(settings, settings.data, TRAIN), _open_val(settings)
    if len(train.videos) and not tracks:
        raise DataError(f"data={settings.data} holds videos, which need SAM 2 or 2.1. Expected images with masks.")
    facts = ranks.first(lambda: _check(train, TRAIN, settings, input_size))
    rows = _usable_rows(train, facts, settings, input_size)
    sets = TrainSets(train, train, train.names, counts={"train left out": len(facts) - len(rows)})
    _warn_of_short_videos(sets, facts, settings)
    if val is None or settings.val_data is None and _paths(val) == _paths(train):
        rows, held, by = _split(train, rows, settings)
        sets.val, val_facts = _subset(train, held), [facts[row] for row in held]
        missing = f"There is no split {settings.split}" if val is None else f"{settings.split} has the images of train"
        sets.lines.append(f"{missing}: {settings.holdout:.0%} are held out, whole groups by {by}.")
    else:
        sets.val, val_facts = val, ranks.first(lambda: _check(val, VAL, settings, input_size))
        if not any(each.visible for of_item in val_facts for each in of_item):
            raise DataError(f"data={settings.val_data or settings.data} has no object to measure on.")
    chosen = _fraction_of(rows, settings)
    sets.train = _subset(train, chosen)
    sets.most_objects = max(each.visible for row in chosen for each in facts[row])
    _report(sets, [facts[row] for row in chosen], val_facts)
    return sets


def _hash_of(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=12).hexdigest()


def drawn_data(clips: bool) -> Data:
    """Drawn images, and clips, to measure on: always the same ones, which no batch has."""
    videos = dataset.drawn_clips(VAL_CLIPS if clips else 0, frames=VAL_FRAMES)
    return Data(dataset.drawn_images(VAL_IMAGES), videos)


def _open(settings: Any, data: str, split: str) -> Data:
    classes = None if settings.classes is None else [int(each) for each in np.atleast_1d(settings.classes)]
    return open_data(data, source=settings.source, split=split, classes=classes, strict=True)


def _open_val(settings: Any) -> Data | None:
    """What is measured; None where the data set has no such part."""
    try:
        return _open(settings, settings.val_data or settings.data, settings.split)
    except MissingSplitError:
        if settings.val_data is not None:
            raise
        return None


def _paths(data: Data) -> list[Any]:
    """What identifies the images and videos of a part."""
    return [*(file.path.resolve() for file in data.images.keys), *data.videos.keys]


def _subset(data: Data, rows: Sequence[int]) -> Data:
    if len(data.videos):
        return replace(data, videos=data.videos.subset(rows))
    return replace(data, images=data.images.subset(rows))


def _check(data: Data, part: str, settings: Any, input_size: Size) -> list[list[ImageFacts]]:
    """The facts of each image, in a list of one, or of the annotated frames of each video."""
    description = f"checking {part}"
    if not len(data.videos):
        return [[each] for each in check_images(data.images.keys, input_size, description, settings.verbose)]
    bar = TQDM(data.videos, desc=description, total=len(data.videos), disable=not settings.verbose)
    return [check_images(annotated_files(video), input_size, video.name, verbose=False) for video in bar]


def _usable_rows(data: Data, facts: Facts, settings: Any, input_size: Size) -> list[int]:
    """The images with an object that can be drawn, and the videos where a clip can start with one.

    Raises:
        DataError: there is none.
    """
    length = settings.frames if len(data.videos) else 1
    starts = [of_item[: max(len(of_item) - length + 1, 0)] for of_item in facts]
    rows = [row for row, of_item in enumerate(starts) if any(each.visible for each in of_item)]
    if not rows and len(data.videos):
        longest = max(map(len, facts), default=0)
        raise DataError(
            f"data={settings.data} has no video of frames={length} annotated frames that starts with a visible object; "
            f"the longest has {longest}. Expected longer videos, or a smaller frames=."
        )
    if not rows:
        raise DataError(
            f"data={settings.data} has no object to learn from that is visible in an input of {input_size}."
        )
    return rows


def _split(data: Data, rows: Sequence[int], settings: Any) -> tuple[list[int], list[int], str]:
    """Rows to learn from, rows held out, and by what they are grouped.

    Raises:
        DataError: there is a single group.
    """
    if len(data.videos):
        groups, by = [str(row) for row in rows], "video"
    else:
        groups, by = groups_of([data.images.keys[row].path for row in rows])
    parts = hold_out(groups, settings.holdout, settings.seed)
    if not all(parts):
        raise DataError(
            f"data={settings.data} has a single {by}, and nothing else to measure on. Expected two or more, or a data "
            "set to measure on: val_data=."
        )
    train, held = ([rows[place] for place in places] for places in parts)
    return train, held, by


def _fraction_of(rows: Sequence[int], settings: Any) -> list[int]:
    """A drawn share of the images or videos."""
    order = np.random.default_rng([settings.seed, len(rows)]).permutation(rows)
    return sorted(order[: max(1, round(settings.fraction * len(rows)))].tolist())


def _report(sets: TrainSets, train: Facts, val: Facts) -> None:
    """Count what the parts hold, and warn of what looks like a mistake."""
    kind = "videos" if len(sets.train.videos) else "images"
    for part, facts in ((TRAIN, train), (VAL, val)):
        each = [frame for of_item in facts for frame in of_item]
        found = {
            kind: len(facts),
            "objects": sum(frame.visible for frame in each),
            "objects too small": sum(frame.tiny for frame in each),
            "objects without a pixel": sum(frame.empty for frame in each) if kind == "images" else 0,
            "images with ignored pixels": sum(frame.ignored for frame in each),
        }
        sets.counts |= {f"{part} {name}": number for name, number in found.items()}
        sets.lines.append(f"{part}: " + ", ".join(f"{number} {name}" for name, number in found.items() if number))
    if left_out := sets.counts["train left out"]:
        sets.lines.append(f"{left_out} {kind} without a usable object are left out.")
    classes = [set().union(*(each.classes for of_item in facts for each in of_item)) for facts in (train, val)]
    if only := sorted(classes[1] - classes[0]):
        names = names_of(sets.classes.get(number, number) for number in only)
        sets.warnings.append(f"Classes that are measured and not learned from: {names}.")
    if looks_semantic(each for of_item in train for each in of_item):
        sets.warnings.append(
            "Masks look like one a class, the union of its objects: many have several parts, and no class comes twice "
            "in an image. A network learns blobs of them. Expected a mask of each object."
        )
    parts = [[file.path for file in files_of(data)] for data in (sets.train, sets.val)]
    if same := twins(*parts):
        pairs = names_of(f"{first} = {second}" for first, second in same)
        sets.warnings.append(f"Images that are learned from and measured on too ({len(same)}): {pairs}.")


def _warn_of_short_videos(sets: TrainSets, facts: Facts, settings: Any) -> None:
    pairs = zip(sets.train.videos, facts, strict=True) if len(sets.train.videos) else ()
    if short := [f"{video.name} ({len(frames)})" for video, frames in pairs if len(frames) < settings.frames]:
        sets.warnings.append(
            f"Videos with fewer than frames={settings.frames} annotated frames, left out: {names_of(short)}."
        )
