"""Windows of a map, and functions that are applied to a map row by row because they mix nothing beyond a few rows.

B batch, C channels, (H, W) a map, (h, w) a window. Maps are (B, H, W, C).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.ops.linear import may_split

NUMBERS_PER_STRIP = 2**19  # of a map's rows that are worked on together: a share of a CPU's cache


def window_partition(x: Tensor, window: int, padding: Tensor | None = None) -> Tensor:
    """Cut a map (B, H, W, C) into square windows (B * count, window, window, C).

    Where the sides do not divide, `padding` (C,), zeros by default, is added right and below.
    """
    _, height, width, channels = x.shape
    if height % window or width % window:
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        if padding is not None:
            x[:, height:] = padding
            x[:, :, width:] = padding
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).reshape(-1, window, window, channels)


def window_unpartition(windows: Tensor, size: Sequence[int]) -> Tensor:
    """Windows (B * count, h, w, C) -> the map (B, H, W, C) of a size (H, W), without the padding."""
    height, width = size
    _, h, w, channels = windows.shape
    down, across = -(-height // h), -(-width // w)
    x = windows.reshape(-1, down, across, h, w, channels).transpose(2, 3).reshape(-1, down * h, across * w, channels)
    return x[:, :height, :width]


def apply_in_windows(
    function: Callable[[Tensor], Tensor], x: Tensor, window: int, padding: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
) -> Tensor:  # fmt: skip
    """`function` of each window of a map (B, H, W, C), or of the whole map if `window` is 0.

    The function may reduce the size by a stride; `padding` as in `window_partition`.
    """
    if not window:
        return function(x)
    size = [side // step for side, step in zip(x.shape[1:3], stride, strict=True)]
    return window_unpartition(function(window_partition(x, window, padding)), size)


def map_rows(function: Callable[[Tensor], Tensor], x: Tensor, window: int = 1, halo: int = 0) -> Tensor:
    """`function(x)`, computed some rows at a time so that its intermediate results stay in a CPU's cache.

    The function of maps (B, H, W, C) mixes tokens only within windows, of which strips are a multiple, and with
    neighbours up to `halo` rows away, by which strips overlap. Its result may have fewer rows a window.
    """
    if not may_split(x):
        return function(x)
    rows = max(1, NUMBERS_PER_STRIP // (x[:, 0].numel() * window)) * window
    strips = []
    for top in range(0, x.shape[1], rows):
        start = max(top - halo, 0)
        strip = function(x[:, start : top + rows + halo])
        strips.append(strip[:, top - start : top - start + rows])
    return torch.cat(strips, dim=1)


def windowed_block(
    attention: Callable[[Tensor], Tensor], mlp: Callable[[Tensor], Tensor], x: Tensor, window: int
) -> Tensor:
    """`mlp(attention(x))` of a map (B, H, W, C): attention within windows, 0 for the whole map; MLP on each token."""
    if window:
        return map_rows(lambda rows: mlp(attention(rows)), x, window)
    return map_rows(mlp, attention(x))
