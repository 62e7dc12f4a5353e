"""The small parts that several networks share: norms, perceptrons, positions, windows.

B batch, C channels, (H, W) a map, (h, w) a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.linear import Linear, recorded

NUMBERS_AT_ONCE = 2**19  # of a map, on a CPU without gradients


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, H, W)."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Each pixel's channels, normalised; the result is laid out channels last."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Linear layers in a row with an activation between them, and a sigmoid at the end if asked."""

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int,
        activation: type[nn.Module] = nn.ReLU, sigmoid_output: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(Linear(before, after) for before, after in pairwise(widths))
        self.act = activation()
        self.sigmoid_output = sigmoid_output

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.act(layer(x))
        x = last(x)
        return x.sigmoid() if self.sigmoid_output else x


class MLPBlock(nn.Module):
    """The two-layer perceptron of SAM's transformers; its layers are called lin1 and lin2 in the checkpoints."""

    def __init__(self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = Linear(embedding_dim, mlp_dim)
        self.lin2 = Linear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(..., embedding_dim) -> the same shape."""
        return self.lin2(self.act(self.lin1(x)))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, a residual branch is dropped for some items of the batch."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Zero for dropped items, scaled so that the mean stays."""
        if not self.training or not self.drop_prob:
            return x
        keep = 1 - self.drop_prob
        kept = torch.rand(x.shape[:1] + (1,) * (x.dim() - 1), device=x.device) < keep
        return x * kept / keep if keep else x * kept


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions (arXiv 2006.10739): sine and cosine of frozen random projections."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__()
        matrix = (scale or 1.0) * torch.randn(2, num_pos_feats)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def encode(self, xy: Tensor) -> Tensor:
        """Positions (..., 2) from 0 to 1 -> (..., 2 * num_pos_feats), float32 whatever the network's dtype."""
        frequencies = 2 * math.pi * self.positional_encoding_gaussian_matrix.float()
        angles = (2 * xy.float() - 1) @ frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The pixel centres of a grid (H, W) -> (C, H, W) float32."""
        device = self.positional_encoding_gaussian_matrix.device
        y, x = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side for side in size)
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
        return self.encode(grid).permute(2, 0, 1)


def sine_codes(values: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sines, then cosines, of numbers at falling frequencies (arXiv 1706.03762): (...) -> (..., channels) float32."""
    angles = values.float()[..., None] / wavelengths(channels // 2, temperature, values.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def wavelengths(count: int, temperature: float, device: torch.device) -> Tensor:
    """(count,) from 1 to nearly the temperature, each twice in a row: as trained, sine and cosine share one."""
    pairs = torch.arange(count, device=device) // 2
    return temperature ** (2 * pairs.float() / count)


def sine_positions(size: tuple[int, int], channels: int, device: torch.device, temperature: float = 10000.0) -> Tensor:
    """Sine positions of a map (arXiv 2005.12872): (1, channels, H, W) float32; rows first, then columns.

    Rows and columns count from 1 and are scaled to end at two pi; sines and cosines take turns.
    """
    height, width = size
    codes = []
    for side in size:
        ramp = torch.arange(1, side + 1, dtype=torch.float32, device=device)
        angles = (ramp * (2 * math.pi / (side + 1e-6)))[:, None] / wavelengths(channels // 2, temperature, device)
        codes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1).T)
    y, x = codes
    return torch.cat([y[:, :, None].expand(-1, -1, width), x[:, None].expand(-1, height, -1)])[None]


def to_windows(x: Tensor, window: int, padding: Tensor | None = None) -> Tensor:
    """Cut a map (B, H, W, C) into square windows (B * count, window, window, C).

    Where the sides do not divide, `padding` (C,) is added right and below, zeros by default.
    """
    _, height, width, channels = x.shape
    if height % window or width % window:
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        if padding is not None:
            x[:, height:] = padding
            x[:, :, width:] = padding
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).reshape(-1, window, window, channels)


def from_windows(windows: Tensor, size: Sequence[int]) -> Tensor:
    """Put windows (B * count, h, w, C) together again as a map (B, H, W, C), the padding cut off."""
    height, width = size
    _, h, w, channels = windows.shape
    down, across = -(-height // h), -(-width // w)
    x = windows.reshape(-1, down, across, h, w, channels).transpose(2, 3).reshape(-1, down * h, across * w, channels)
    return x[:, :height, :width]


def in_strips(work: Callable[[Tensor], Tensor], x: Tensor, unit: int = 1, halo: int = 0) -> Tensor:
    """Do on some rows of maps (B, H, W, C) at a time what does not mix tokens across multiples of `unit` rows.

    What is made on the way then stays in a CPU's cache. For gradients, graphs and elsewhere it is done at once. Where
    the work mixes a token with others up to `halo` rows away, so many more rows are worked on, and left out after.
    """
    if recorded() or x.device.type != "cpu":
        return work(x)
    rows = max(1, NUMBERS_AT_ONCE // (x[:, 0].numel() * unit)) * unit
    strips = []
    for top in range(0, x.shape[1], rows):
        start = max(top - halo, 0)
        strip = work(x[:, start : top + rows + halo])
        strips.append(strip[:, top - start : top - start + rows])
    return torch.cat(strips, dim=1)
