"""What a data set holds: images and videos with their true masks, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class AnnotatedFrame:
    """A frame of a video."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    masks: np.ndarray | None  # (N, H, W) bool, what is visible of each object; None where the frame is not annotated
    void: np.ndarray | None = None  # (H, W) bool, pixels to ignore


@dataclass(frozen=True, eq=False)
class AnnotatedVideo:
    """Frames of one size, which may be read lazily."""

    name: str
    frames: Sequence[AnnotatedFrame]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image (H, W, 3) uint8 RGB, and the masks (N, H, W) bool of its objects."""

    name: str
    image: np.ndarray
    masks: np.ndarray


def as_it_is(key: Any) -> Any:
    """The item that is its own key."""
    return key


class Lazy(Sequence[Item], Generic[Item]):
    """A sequence whose items are read or drawn each time they are indexed; a slice is as lazy.

    `load` makes an item of what stands for it in `keys`, for example its file.
    """

    def __init__(self, keys: Sequence[Any] = (), load: Callable[[Any], Item] = as_it_is) -> None:
        self.keys, self.load = keys, load

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.keys[index]
        return Lazy(chosen, self.load) if isinstance(index, slice) else self.load(chosen)

    def subset(self, rows: Sequence[int]) -> Lazy[Item]:
        """Some of the items, as lazy."""
        return Lazy([self.keys[row] for row in rows], self.load)
