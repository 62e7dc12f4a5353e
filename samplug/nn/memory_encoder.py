"""The memory encoder of SAM 2: what a frame looked like, with the object's mask, in one small map.

F frames, N objects, C channels, D memory channels, (h, w) the grid of features; masks are (16h, 16w).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from samplug.nn.fpn import positions_of
from samplug.nn.layers import LayerNorm2d
from samplug.nn.linear import Linear

MASK_STRIDE = 16


class MaskDownSampler(nn.Module):
    """Halve a mask four times while its channels grow four-fold, then widen it to the features' channels."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        channels = 1
        while channels < MASK_STRIDE**2:
            halve = nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1)
            channels *= 4
            self.encoder.extend([halve, LayerNorm2d(channels), nn.GELU()])
        self.encoder.append(nn.Conv2d(channels, embed_dim, kernel_size=1))

    def forward(self, masks: Tensor) -> Tensor:
        """(N, 1, 16h, 16w) -> (N, C, h, w)."""
        return self.encoder(masks)


class CXBlock(nn.Module):
    """A ConvNeXt block (arXiv 2201.03545): a depth-wise 7×7 convolution, then a perceptron on every pixel."""

    def __init__(self, dim: int, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Blocks in a row."""

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Fuse the features of a frame with an object's mask."""

    def __init__(self, out_dim: int, in_dim: int = 256) -> None:
        """Make the encoder.

        Args:
            out_dim: channels D of a memory.
            in_dim: channels C of the features.
        """
        super().__init__()
        self.mask_downsampler = MaskDownSampler(in_dim)
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        self.fuser = Fuser(CXBlock(in_dim), num_layers=2)
        self.out_proj = nn.Conv2d(in_dim, out_dim, kernel_size=1) if out_dim != in_dim else nn.Identity()

    def forward(self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False) -> dict[str, Tensor | list]:
        """Encode one object a frame.

        Args:
            pix_feat: features (N, C, h, w).
            masks: logits (N, 1, 16h, 16w).
            skip_mask_sigmoid: `masks` are no logits: use them as they are.

        Returns:
            `vision_features`, the memories (N, D, h, w), and `vision_pos_enc`, a list with their sine positions.
        """
        memory = self.encode(pix_feat, masks if skip_mask_sigmoid else masks.sigmoid())
        return {"vision_features": memory, "vision_pos_enc": [positions_of(memory)]}

    def encode(self, pix_feat: Tensor, masks: Tensor, owner: Tensor | None = None) -> Tensor:
        """Encode any number of objects a frame; the features are projected once a frame.

        Args:
            pix_feat: features (F, C, h, w).
            masks: (N, 1, 16h, 16w), as the network was trained to see them.
            owner: (N,) the index of each object's frame; None if there is one object a frame, in order.

        Returns:
            The memories, (N, D, h, w).
        """
        frames = self.pix_feat_proj(pix_feat)
        frames = frames if owner is None else frames[owner]
        return self.out_proj(self.fuser(frames + self.mask_downsampler(masks)))
