"""Small layers that several networks share.

B batch, C channels, (H, W) a map.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.ops.linear import Linear


class LayerNorm(nn.LayerNorm):
    """Layer norm in its input's precision, the result in its weight's: a sum over layers may be wider than they are."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps).to(self.weight.dtype)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, H, W); the result is laid out channels last."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Patches of an image as tokens."""

    def __init__(self, in_chans: int, embed_dim: int, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H * stride, W * stride) -> (B, H, W, C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class MLP(nn.Module):
    """Linear layers with an activation between them, and a sigmoid at the end if asked."""

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


def mlp_block(dim: int, hidden: int, activation: type[nn.Module]) -> nn.Module:
    """A two-layer MLP (..., dim) -> (..., dim), its layers named as in the checkpoints."""
    return nn.Sequential(OrderedDict(lin1=Linear(dim, hidden), act=activation(), lin2=Linear(hidden, dim)))


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
