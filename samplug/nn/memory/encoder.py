"""The memory encoder of SAM 2: a frame's features and an object's mask, fused into a small map.

F frames, N objects, C channels, D memory channels, (h, w) the grid of features; masks are (16h, 16w).
"""

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from samplug.nn.constants import FEATURE_STRIDE
from samplug.nn.ops.layers import LayerNorm2d
from samplug.nn.ops.linear import Linear
from samplug.nn.ops.positions import sine_positions_like


def mask_downsampler(embed_dim: int) -> nn.Sequential:
    """Convolutions that halve a mask four times and bring it to C channels: (N, 1, 16h, 16w) -> (N, C, h, w)."""
    layers: list[nn.Module] = []
    channels = 1
    while channels < FEATURE_STRIDE**2:
        conv = nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1)
        channels *= 4
        layers += [conv, LayerNorm2d(channels), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, kernel_size=1))


class CXBlock(nn.Module):
    """A ConvNeXt block (arXiv 2201.03545): a depth-wise 7×7 convolution, then an MLP on every pixel."""

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


class MemoryEncoder(nn.Module):
    """Fuse the features of a frame with an object's mask."""

    def __init__(self, out_dim: int, in_dim: int = 256) -> None:
        """Make the encoder of memories with `out_dim` channels D, from features with `in_dim` channels C."""
        super().__init__()
        self.mask_downsampler = nn.Sequential(OrderedDict(encoder=mask_downsampler(in_dim)))
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        block = CXBlock(in_dim)
        self.fuser = nn.Sequential(OrderedDict(layers=nn.Sequential(block, copy.deepcopy(block))))
        self.out_proj = nn.Conv2d(in_dim, out_dim, kernel_size=1) if out_dim != in_dim else nn.Identity()

    def forward(self, pix_feat: Tensor, masks: Tensor, skip_mask_sigmoid: bool = False) -> dict[str, Tensor | list]:
        """Encode one object a frame.

        Args:
            pix_feat: features (N, C, h, w).
            masks: logits (N, 1, 16h, 16w).
            skip_mask_sigmoid: whether `masks` are used as they are, not as logits.

        Returns:
            `vision_features`, the memories (N, D, h, w), and `vision_pos_enc`, a list with their sine positions.
        """
        memory = self.encode(pix_feat, masks if skip_mask_sigmoid else masks.sigmoid())
        return {"vision_features": memory, "vision_pos_enc": [sine_positions_like(memory)]}

    def encode(self, pix_feat: Tensor, masks: Tensor, image_index: Tensor | None = None) -> Tensor:
        """Encode any number of objects a frame: features (F, C, h, w), masks (N, 1, 16h, 16w) -> memories (N, D, h, w).

        Masks are scaled as in training. `image_index` (N,) is the index of each object's frame; None if there is one
        object a frame, in order.
        """
        x = self.pix_feat_proj(pix_feat)
        x = x if image_index is None else x[image_index]  # (N, C, h, w)
        return self.out_proj(self.fuser(x + self.mask_downsampler(masks)))
