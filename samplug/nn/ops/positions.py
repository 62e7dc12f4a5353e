"""Position encodings: random Fourier features, sines, rotations.

B batch, Hd heads, C channels, (H, W) a map, L = H * W tokens, D width of a head.
"""

import math

import torch
from torch import Tensor, nn

TEMPERATURE = 10000.0  # the longest wavelength, of sines and of rotations


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


def sine_encoding(values: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of numbers at falling frequencies (arXiv 1706.03762): (...) -> (..., channels) float32."""
    angles = values.float()[..., None] / wavelengths(channels // 2, values.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def wavelengths(count: int, device: torch.device) -> Tensor:
    """(count,) from 1 to nearly `TEMPERATURE`, each twice in a row: as trained, sine and cosine share one."""
    pairs = torch.arange(count, device=device) // 2
    return TEMPERATURE ** (2 * pairs.float() / count)


def sine_positions(size: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """Sine positions (arXiv 2005.12872) of a map of a size (H, W): (1, channels, H, W), device and dtype as `like`.

    Rows first, then columns; both count from 1 and are scaled to end at two pi; sines and cosines alternate.
    """
    height, width = size
    encodings = []
    for side in size:
        ramp = torch.arange(1, side + 1, dtype=torch.float32, device=like.device)
        angles = (ramp * (2 * math.pi / (side + 1e-6)))[:, None] / wavelengths(channels // 2, like.device)
        encodings.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1).T)
    y, x = encodings  # (channels / 2, H), (channels / 2, W)
    positions = torch.cat([y[:, :, None].expand(-1, -1, width), x[:, None].expand(-1, height, -1)])
    return positions[None].to(like.dtype)


def sine_positions_like(x: Tensor) -> Tensor:
    """Sine positions of maps (B, C, H, W), of their shape and dtype."""
    return sine_positions((x.shape[2], x.shape[3]), x.shape[1], x).expand(len(x), -1, -1, -1)


def rotary_angles(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Rotations (arXiv 2104.09864) of two axes (arXiv 2403.13298) as cosines and sines, (2, L, dim / 2).

    The first half of the channel pairs turns with the column, the second with the row.
    """
    height, width = grid
    speeds = TEMPERATURE ** -(torch.arange(0, dim, 4, dtype=torch.float32, device=device) / dim)
    columns = torch.arange(width, device=device).expand(height, -1).reshape(-1, 1) * speeds
    rows = torch.arange(height, device=device)[:, None].expand(-1, width).reshape(-1, 1) * speeds
    angles = torch.cat([columns, rows], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the channel pairs of tokens (B, Hd, n * L, D), n maps of one grid in a row; in float32, as trained.

    Channels are the first members of all pairs, then the second ones: contiguous memory is read fastest.
    """
    cos, sin = angles
    a, b = x.float().unflatten(2, (-1, len(cos))).chunk(2, dim=-1)
    rotated = torch.cat([torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)], dim=-1)
    return rotated.flatten(2, 3).to(x.dtype)
