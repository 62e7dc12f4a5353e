"""Parts of a data set to learn from and to measure on, where it comes without: held out by group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FEWEST_GROUPS = 5  # from which on the coarser grouping is taken
LARGEST_GROUP = 0.5  # share of the images that a group may have then
EXCESS = 1.5  # by which the share that is held out may be exceeded, rather than to split a group
COPY = re.compile(r"((_(jpe?g|png))?\.rf\.\w+|[ _-](copy|aug|flip|rot)[ _-]?\d*| ?\(\d+\))$", re.IGNORECASE)
NUMBER = re.compile(r"[ _.-]?(frame)?[ _.-]?\d+$", re.IGNORECASE)


def groups_of(paths: Sequence[Path]) -> tuple[list[str], str]:
    """A group for each image, and what it is made by: images of one group may show the same thing.

    By name, without what tools append to copies of an image; where that leaves several groups of about equal size, also
    without the number at its end, which differs between frames of a video.
    """
    images = [f"{path.parent}/{_without_copy(path.stem)}" for path in paths]
    videos = [NUMBER.sub("", name) for name in images]
    counts = Counter(videos)
    if len(counts) >= FEWEST_GROUPS and max(counts.values()) <= LARGEST_GROUP * len(paths):
        return videos, "name without its number"
    return images, "name"


def _without_copy(stem: str) -> str:
    while (shorter := COPY.sub("", stem)) not in (stem, ""):
        stem = shorter
    return stem


def hold_out(groups: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows to learn from, and rows held out: whole groups in a drawn order, until they are about the share.

    One group at least is left on either side; with a single group nothing is held out.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    held: set[str] = set()
    count, wanted = 0, share * len(groups)
    for name in np.random.default_rng([seed, len(names)]).permutation(names)[: len(names) - 1]:
        if count < wanted and count + sizes[name] <= EXCESS * wanted:
            held.add(str(name))
            count += sizes[name]
    if not held and len(names) > 1:
        held = {min(names, key=lambda name: sizes[name])}
    rows = range(len(groups))
    return [row for row in rows if groups[row] not in held], [row for row in rows if groups[row] in held]
