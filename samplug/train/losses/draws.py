"""Random numbers for the prompts of a batch.

Every object has a stream of its own, so its prompts are the same in whichever chunk, and in whichever process, they
are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ObjectDraws:
    """Random numbers for N objects.

    Attributes:
        streams: one an object.
        device: of the numbers.
    """

    streams: Sequence[np.random.Generator]
    device: torch.device | str = "cpu"

    @staticmethod
    def of(
        seed: Sequence[int], image_index: Tensor, device: torch.device | str = "cpu", first: int = 0, stride: int = 1
    ) -> ObjectDraws:
        """The draws of a batch.

        Args:
            seed: of the batch.
            image_index: (N,) the image of each object.
            device: of the numbers.
            first: number of the first image, where the batch is a part of a larger one.
            stride: from the number of an image to that of the next.
        """
        rows: Counter[int] = Counter()
        streams = []
        for image in image_index.tolist():
            streams.append(np.random.default_rng([*seed, first + stride * image, rows[image]]))
            rows[image] += 1
        return ObjectDraws(streams, device)

    def __getitem__(self, rows: slice) -> ObjectDraws:
        """Those of some objects; they go on with the same streams."""
        return ObjectDraws(self.streams[rows], self.device)

    def uniform(self, count: int) -> Tensor:
        """Numbers from 0 to below 1: (N, count) float32."""
        return self._gather(lambda stream: stream.random(count, np.float32))

    def normal(self, count: int) -> Tensor:
        """Normal numbers: (N, count) float32."""
        return self._gather(lambda stream: stream.standard_normal(count, np.float32))

    def _gather(self, draw: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([draw(stream) for stream in self.streams])).to(self.device)
