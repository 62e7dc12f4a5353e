"""Decoded images of a data set, kept in memory or beside their files, as Ultralytics' `cache=` keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from samplug.data.arrays import read_image
from samplug.data.image_file import ImageFile
from samplug.data.open import Data
from samplug.files.atomic import atomic_write
from samplug.resources import require_memory
from samplug.train.data.check import files_of, in_threads


@dataclass(eq=False)
class ImageCache:
    """Reads images; those that are kept are not decoded again."""

    kept: dict[Path, np.ndarray] = field(default_factory=dict)  # images by file
    on_disk: bool = False  # whether others are kept in a file beside them, `image.npy`

    @staticmethod
    def of(data: Data, kind: Any) -> ImageCache:
        """The cache of a data set: `kind` is `"ram"` or True, `"disk"`, or False for none.

        Raises:
            OutOfMemoryError: the images are larger than the memory that is free.
        """
        if kind == "disk":
            return ImageCache(on_disk=True)
        return ImageCache(_decoded(files_of(data)) if kind else {})

    def read(self, file: ImageFile) -> np.ndarray:
        """The image of a file, (H, W, 3) uint8 RGB."""
        if file.path in self.kept:
            return self.kept[file.path]
        if not self.on_disk:
            return read_image(file.path)
        path = file.path.with_suffix(f"{file.path.suffix}.npy")
        if not path.is_file() or path.stat().st_mtime < file.path.stat().st_mtime:
            with atomic_write(path, flush=False) as temporary:
                np.save(temporary, read_image(file.path))
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _decoded(files: Iterable[ImageFile]) -> dict[Path, np.ndarray]:
    """Decode images until all are in memory, or refuse when what is left would not hold the rest."""
    paths = [file.path for file in files]
    kept: dict[Path, np.ndarray] = {}
    for path, image in zip(paths, in_threads(read_image, paths, "cache=ram"), strict=True):
        kept[path] = image
        if len(kept) % 100 == 1:
            rest = sum(each.nbytes for each in kept.values()) / len(kept) * (len(paths) - len(kept))
            require_memory(rest, "cache=ram", "give cache=disk, or leave it out")
    return kept
