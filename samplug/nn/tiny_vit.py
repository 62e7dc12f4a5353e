"""MobileSAM's image encoder: TinyViT (arXiv 2207.10666) with the classifier left idle and SAM's neck on top.

B pictures, (H, W) a map, C channels, L tokens of a window, Hd heads. Everything is a map (B, H, W, C) but inside a
window, so any input size works.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.attention import attend, join_heads
from samplug.nn.layers import DropPath, from_windows, in_strips, to_windows
from samplug.nn.linear import Linear, product
from samplug.nn.vit import neck


class ConvNorm(nn.Module):
    """A convolution and its batch norm, which are one convolution outside of training."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, before) -> (B, H / stride, W / stride, after)."""
        conv, norm = self.c, self.bn
        if self.training:
            return norm(conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
        weight = (conv.weight * scale[:, None, None, None]).to(x.dtype)
        shift = (norm.bias - norm.running_mean * scale).to(x.dtype)
        if conv.kernel_size == (1, 1):
            return product(x, weight.flatten(1), shift)
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
        return x.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Two strided convolutions: a quarter of the size."""

    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(in_chans, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, H / 4, W / 4, C)."""
        return self.seq(x)


class MBConv(nn.Module):
    """Widen, convolve each channel, narrow (arXiv 1801.04381)."""

    def __init__(self, width: int, expand_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(width * expand_ratio)
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)
        self.drop_path = DropPath(drop_path)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return self._block(x) if self.training else in_strips(self._block, x, halo=1)  # norms learn from whole maps

    def _block(self, x: Tensor) -> Tensor:
        wide = self.act(self.conv2(self.act(self.conv1(x))))
        return self.act(x + self.drop_path(self.conv3(wide)))


class PatchMerging(nn.Module):
    """To the next stage's width and size."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(before, after)
        self.conv2 = ConvNorm(after, after, 3, stride, groups=after)
        self.conv3 = ConvNorm(after, after)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, before) -> (B, H / stride, W / stride, after)."""
        return self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


class BiasedAttention(nn.Module):
    """Self-attention in a window with a learned bias for each distance of rows and columns."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.num_heads, 3, -1))  # as trained: each head has its q, k, v
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        return self.proj(join_heads(attend(q, k, v, bias=self._bias())))

    def _bias(self) -> Tensor:
        """(Hd, L, L)."""
        place = torch.arange(self.window, device=self.attention_biases.device)
        apart = (place[:, None] - place).abs()
        table = self.attention_biases.unflatten(1, (self.window, self.window))
        return table[:, apart[:, None, :, None], apart[:, None, :]].flatten(3).flatten(1, 2)


class Perceptron(nn.Module):
    """A norm and two layers, under TinyViT's names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(self.act(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Attention in windows, a depth-wise convolution across them, a perceptron."""

    def __init__(
        self, dim: int, num_heads: int, window: int, mlp_ratio: float, drop_path: float, local_conv_size: int
    ) -> None:
        super().__init__()
        self.window = window
        self.attn = BiasedAttention(dim, num_heads, window)
        self.drop_path = DropPath(drop_path)
        self.local_conv = ConvNorm(dim, dim, local_conv_size, groups=dim)
        self.reach = local_conv_size // 2
        self.mlp = Perceptron(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        if self.training:
            return self._think(self._attend(x))
        return in_strips(self._think, in_strips(self._attend, x, self.window), halo=self.reach)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within windows."""
        windows = to_windows(x, self.window)
        seen = self.attn(windows.flatten(1, 2)).view_as(windows)
        return x + self.drop_path(from_windows(seen, x.shape[1:3]))

    def _think(self, x: Tensor) -> Tensor:
        """The convolution and the perceptron."""
        x = self.local_conv(x)
        return x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """Blocks of one size, and the step to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the next stage's map."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """MobileSAM's image encoder; the defaults are its sizes."""

    def __init__(
        self, img_size: int = 1024, in_chans: int = 3, num_classes: int = 1000,
        embed_dims: Sequence[int] = (64, 128, 160, 320), depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10), window_sizes: Sequence[int] = (7, 7, 14, 7), mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0, mbconv_expand_ratio: float = 4.0, local_conv_size: int = 3,
        out_chans: int = 256,
    ) -> None:  # fmt: skip
        """Make the encoder.

        Args:
            img_size: the default input side; nothing depends on it.
            in_chans: channels of a picture.
            num_classes: classes of the classifier that the released files hold and nobody uses.
            embed_dims: width of each stage. The first is convolutional.
            depths: blocks of each stage.
            num_heads: heads of each stage.
            window_sizes: side of each stage's windows.
            mlp_ratio: hidden width of the perceptrons over the stage's width.
            drop_path_rate: stochastic depth of the last block; earlier ones get less.
            mbconv_expand_ratio: hidden width of the first stage's convolutions over its width.
            local_conv_size: kernel of the convolutions between attention and perceptron.
            out_chans: channels of the features.
        """
        super().__init__()
        self.img_size = (img_size, img_size)
        self.patch_embed = PatchEmbed(in_chans, embed_dims[0])
        drops = iter([drop_path_rate * index / max(1, sum(depths) - 1) for index in range(sum(depths))])
        self.layers = nn.ModuleList()
        for index, (width, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            heads, window = num_heads[index], window_sizes[index]
            blocks: list[nn.Module]
            if index == 0:
                blocks = [MBConv(width, mbconv_expand_ratio, next(drops)) for _ in range(depth)]
            else:
                sizes = (width, heads, window, mlp_ratio)
                blocks = [TinyViTBlock(*sizes, next(drops), local_conv_size) for _ in range(depth)]
            self.layers.append(Stage(blocks, self._step(embed_dims, index)))
        self.norm_head = nn.LayerNorm(embed_dims[-1])
        self.head = Linear(embed_dims[-1], num_classes)
        self.neck = neck(embed_dims[-1], out_chans)

    @staticmethod
    def _step(widths: Sequence[int], index: int) -> PatchMerging | None:
        """The step after a stage: half the size, but for the last, so that features stay at a sixteenth."""
        if index == len(widths) - 1:
            return None
        return PatchMerging(widths[index], widths[index + 1], stride=1 if index == len(widths) - 2 else 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> features (B, out_chans, H / 16, W / 16)."""
        x = self.patch_embed(x.permute(0, 2, 3, 1).contiguous())
        for layer in self.layers:
            x = layer(x)
        return self.neck(x.permute(0, 3, 1, 2))
