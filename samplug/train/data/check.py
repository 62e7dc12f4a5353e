"""All images and labels of a data set, read once before the first step.

A file that cannot be read is an error with its name. Everything else that may surprise is counted.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from ultralytics.utils import TQDM

from samplug.data.arrays import read_image
from samplug.data.image_file import ImageFile, Labels
from samplug.data.open import Data
from samplug.data.samples import AnnotatedVideo, Lazy
from samplug.resources import usable_cores
from samplug.train.data.augment import Augmentation, vanishes
from samplug.transforms import Size

Item = TypeVar("Item")
Made = TypeVar("Made")
SEMANTIC_PARTS = 3  # separate parts of an object from which it may be several
SEMANTIC_SHARE = 0.3  # of the objects that have so many
PART = 0.02  # share of an object's area from which a part counts


@dataclass
class ImageFacts:
    """What an image, or frame, holds."""

    visible: int = 0  # objects that can be drawn
    tiny: int = 0  # objects too small for the decoder's masks
    empty: int = 0  # objects without a pixel
    scattered: int = 0  # visible objects of three or more separate parts
    classes: Counter[int] = field(default_factory=Counter)  # how many visible objects there are of each class
    ignored: bool = False  # whether some pixels are ignored


def check_image(file: ImageFile, input_size: Size) -> ImageFacts:
    """Read an image and decode all of its masks.

    Raises:
        DataError: that fails; the message names the file.
    """
    image = read_image(file.path)
    labels, size = file.labels(), (image.shape[0], image.shape[1])
    facts = ImageFacts(ignored=file.void(labels, size) is not None)
    for number, shape in enumerate(labels.shapes):
        mask = file.mask(labels, shape, size)
        fitted = Augmentation().fit_mask(mask, input_size)
        if vanishes(fitted):
            facts.tiny, facts.empty = facts.tiny + bool(mask.any()), facts.empty + (not mask.any())
            continue
        facts.visible += 1
        facts.scattered += _parts(fitted) >= SEMANTIC_PARTS
        facts.classes.update(labels.classes[number : number + 1])
    return facts


def _parts(mask: np.ndarray) -> int:
    """The number of separate parts of a mask that are not mere specks."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return int((areas > PART * areas.sum()).sum())


def check_images(
    files: Sequence[ImageFile], input_size: Size, description: str, verbose: bool = True
) -> list[ImageFacts]:
    """Check images, several at a time, with a bar."""
    return list(in_threads(lambda file: check_image(file, input_size), files, description, verbose))


def in_threads(
    function: Callable[[Item], Made], items: Sequence[Item], description: str, verbose: bool = True
) -> Iterator[Made]:
    """A function of each item in order, several at a time, with a bar; the first error ends it."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            results = pool.map(function, items)
            yield from TQDM(results, desc=description, total=len(items), disable=not verbose)
        finally:
            pool.shutdown(cancel_futures=True)


def files_of(data: Data) -> list[ImageFile]:
    """All images of a data set, and all annotated frames of its videos."""
    return [*data.images.keys, *(file for video in data.videos for file in annotated_files(video))]


def annotated_files(video: AnnotatedVideo) -> list[ImageFile]:
    """The frames of a video that have labels, in order."""
    return [file for file in video.frames.keys if file.read_labels] if isinstance(video.frames, Lazy) else []


def looks_semantic(facts: Iterable[ImageFacts]) -> bool:
    """Whether masks look like one a class, the union of its objects, not one an object.

    Many have several parts, and no class, where there are classes, comes twice in an image.
    """
    used = [each for each in facts if each.visible]
    visible, scattered = sum(each.visible for each in used), sum(each.scattered for each in used)
    twice = any(count > 1 for each in used for count in each.classes.values())
    return not twice and scattered > SEMANTIC_SHARE * visible


def twins(first: Iterable[Path], second: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Files of two lists that hold the same bytes; only those of equal length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in first:
        by_length[path.stat().st_size].append(path)
    found = []
    for path in second:
        same_length = by_length.get(path.stat().st_size, [])
        digest = file_digest(path) if same_length else ""
        found += [(other, path) for other in same_length if file_digest(other) == digest]
    return found


def label_digests(files: Iterable[ImageFile]) -> list[str]:
    """A hash of the labels of each image: of their file's bytes where it has one, else of the objects as they are read.

    Neither depends on the disk that a data set lies on, as times of files would. A file of several images is read once.
    """
    of_file = cache(file_digest)
    return [of_file(file.labels_path) if file.labels_path else _objects_digest(file.labels()) for file in files]


def _objects_digest(labels: Labels) -> str:
    """A hash of objects whose shapes are numbers, in lists or arrays, or parts of a json."""
    parts = [list(labels.shapes), list(labels.classes), list(labels.ignored)]
    content = json.dumps(parts, sort_keys=True, default=lambda value: np.asarray(value).tolist())
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """A hash of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
