"""Masks from the network's resolution to the image's, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from samplug.masks.boxes import mask_boxes
from samplug.transforms import ImageTransform, Size

CHUNK_PIXELS = 1 << 19  # image pixels computed at once: they fit the cache, and take little memory


@dataclass(frozen=True, eq=False)
class BilinearWeights:
    """Bilinear interpolation along one side: which two cells each pixel lies between, and the weight of the second."""

    low: Tensor  # (S,) int64
    high: Tensor  # (S,) int64
    weight: Tensor  # (S,) float32

    @classmethod
    def of(cls, pixels: int, span: float, cells: int, device: torch.device) -> BilinearWeights:
        """For a side of so many pixels; `span` and `cells` as in `sample_positions`."""
        at = sample_positions(pixels, span, cells)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, cells - 1)
        weight = (at - low).astype(np.float32)
        return cls(*(torch.from_numpy(part).to(device) for part in (low, high, weight)))

    def __getitem__(self, part: slice) -> BilinearWeights:
        return BilinearWeights(self.low[part], self.high[part], self.weight[part])

    def pixels_of(self, first: Tensor, last: Tensor) -> list[slice]:
        """For each range of cells first … last, (N,) int64 both, the pixels that are interpolated from any of them."""
        start = torch.searchsorted(self.high, first)
        stop = torch.searchsorted(self.low, last, right=True)
        return list(map(slice, start.tolist(), stop.tolist()))


def sample_positions(pixels: int, span: float, cells: int) -> np.ndarray:
    """(S,) where the pixels of a side are sampled that covers `span` cells of a map; none beyond the first `cells`.

    Corners are not aligned.
    """
    return ((np.arange(pixels) + 0.5) * (span / pixels) - 0.5).clip(0, cells - 1)


@lru_cache(maxsize=8)  # every frame of a video lies alike
def bilinear_weights(
    grid: Size, transform: ImageTransform, device: torch.device
) -> tuple[BilinearWeights, BilinearWeights]:
    """The weights of an image's rows and columns in a map of (a, b) cells over the network's whole input."""
    spans = transform.content_in(grid)
    whole = [max(round(span), 1) for span in spans]
    # Padding is excluded where the image ends between two cells, and included where it ends inside one on either side,
    # as in Ultralytics' `scale_masks`, so that masks are equal to the last row.
    ends_between = sum(abs(span - cells) for span, cells in zip(spans, whole, strict=True)) <= 1e-3
    cells = whole if ends_between else grid
    rows, columns = (BilinearWeights.of(*each, device) for each in zip(transform.image_size, spans, cells, strict=True))
    return rows, columns


def enlarge(
    logits: Tensor, rows: BilinearWeights, columns: BilinearWeights, chunk_pixels: int = CHUNK_PIXELS
) -> Iterator[tuple[int, Tensor]]:
    """Interpolate one (a, b) map; yields (first row, (h, W) float32) chunks from top to bottom."""
    logits = logits.float()
    left, right = logits.index_select(1, columns.low), logits.index_select(1, columns.high)
    wide = torch.lerp(left, right, columns.weight)
    step = max(chunk_pixels // max(len(columns.low), 1), 1)
    for top in range(0, len(rows.low), step):
        part = slice(top, top + step)
        upper, lower = wide.index_select(0, rows.low[part]), wide.index_select(0, rows.high[part])
        yield top, torch.lerp(upper, lower, rows.weight[part, None])


def resize_to_image(logits: Tensor, transform: ImageTransform, threshold: float = 0.0) -> Tensor:
    """Masks (N, H, W) bool at the image's size, from logits (N, a, b) over the network's whole input.

    Bilinear, corners not aligned, in one step from the map to the image, which may end inside a cell of the map, as in
    Ultralytics (8.4.190) and, for a stretched image, Meta's SAM 2. Meta's SAM resizes to the network's size first; that
    moves edges by a fraction of a pixel and costs more. Only pixels with a cell above the threshold beside them are
    computed: no others can be above it. Takes a few MB beside the result for any image's size.
    """
    masks = torch.zeros((len(logits), *transform.image_size), dtype=torch.bool, device=logits.device)
    rows, columns = bilinear_weights((logits.shape[1], logits.shape[2]), transform, logits.device)
    if not masks.numel():
        return masks
    inside = logits[:, : int(rows.high[-1]) + 1, : int(columns.high[-1]) + 1] > threshold
    left, top, right, bottom = mask_boxes(inside).long().T.contiguous()
    windows = zip(rows.pixels_of(top, bottom), columns.pixels_of(left, right), strict=True)
    for i, (down, across) in enumerate(windows):
        for first, values in enlarge(logits[i], rows[down], columns[across]):
            start = down.start + first
            torch.gt(values, threshold, out=masks[i, start : start + len(values), across])
    return masks
