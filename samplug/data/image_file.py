"""Images in files, with labels of any format that are read when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samplug.data.arrays import IMAGE_SUFFIXES, check_same_size, read_image
from samplug.data.samples import AnnotatedFrame, AnnotatedImage
from samplug.errors import DataError
from samplug.sources.video import natural_key
from samplug.transforms import Size

MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)  # labels may hold anything


@contextmanager
def refuse_malformed(what: str, errors: tuple[type[Exception], ...] = MALFORMED) -> Iterator[None]:
    """Turn what malformed labels raise into a `DataError` that begins with `what`."""
    try:
        yield
    except DataError:
        raise
    except errors as error:
        raise DataError(f"{what}: {error!r:.200}.") from error


def frame_files(folder: Path) -> list[Path]:
    """The frames of a video in a folder, in the order that trackers read them: 2.png before 10.png."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(found, key=lambda path: natural_key(path.name))


@dataclass(frozen=True, eq=False)
class Labels:
    """The objects of an image, whose masks are decoded one by one."""

    shapes: Sequence[Any]  # of each object, as its format has it
    decode: Callable[[Any, Size], np.ndarray]  # a shape and the image's (H, W) to a mask (H, W)
    classes: Sequence[int] = ()  # of each object; empty where the format has none
    ignored: Sequence[Any] = ()  # shapes whose pixels are neither object nor background: crowds, void


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image in a file, or a frame, and how its labels are read."""

    path: Path
    read_labels: Callable[[], Labels] | None  # None where the frame is not annotated
    labels_path: Path | None = None  # the file that the labels are in, which messages name

    def labels(self) -> Labels:
        """The labels of an annotated image."""
        assert self.read_labels is not None, f"{self.path} is not annotated"
        return self.read_labels()

    def mask(self, labels: Labels, shape: Any, size: Size) -> np.ndarray:
        """The mask (H, W) of one of the labels' shapes; DataError if it is damaged or of another size."""
        with refuse_malformed(f"A segmentation of {self.path} cannot be read"):
            mask = labels.decode(shape, size)
        check_same_size(self.labels_path or self.path, mask, size)
        return mask

    def masks(self, labels: Labels, size: Size) -> np.ndarray:
        """The masks (N, H, W) of all objects."""
        masks = [self.mask(labels, shape, size) for shape in labels.shapes]
        return np.stack(masks) if masks else np.zeros((0, *size), bool)

    def void(self, labels: Labels, size: Size) -> np.ndarray | None:
        """The pixels (H, W) to ignore, or None."""
        masks = [self.mask(labels, shape, size) for shape in labels.ignored]
        return np.any(masks, 0) if masks else None

    def load(self) -> AnnotatedImage:
        """Read the image and all of its masks."""
        image = read_image(self.path)
        return AnnotatedImage(self.path.name, image, self.masks(self.labels(), (image.shape[0], image.shape[1])))

    def load_frame(self) -> AnnotatedFrame:
        """Read the frame of a video."""
        image = read_image(self.path)
        if self.read_labels is None:
            return AnnotatedFrame(image, None)
        labels, size = self.labels(), (image.shape[0], image.shape[1])
        return AnnotatedFrame(image, self.masks(labels, size), self.void(labels, size))
