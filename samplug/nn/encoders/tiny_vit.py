"""MobileSAM's image encoder: TinyViT (arXiv 2207.10666) with SAM's neck; its classifier is not used.

B images or windows, (H, W) a map, C channels, L tokens of a window, Hd heads of width D. Maps are (B, H, W, C).
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.encoders.vit import neck
from samplug.nn.ops.attention import attend, join_heads
from samplug.nn.ops.layers import DropPath
from samplug.nn.ops.linear import Linear, linear
from samplug.nn.ops.windows import apply_in_windows, map_rows


class ConvNorm(nn.Module):
    """A convolution and its batch norm, fused into one convolution outside of training."""

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
            return linear(x, weight.flatten(1), shift)
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
        return x.permute(0, 2, 3, 1)


class Bottleneck(nn.Module):
    """A depth-wise convolution between two point-wise ones; between stages it changes width and size."""

    def __init__(self, before: int, hidden: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(before, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, after)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, before) -> (B, H / stride, W / stride, after)."""
        return self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


class MBConv(Bottleneck):
    """An inverted bottleneck (arXiv 1801.04381), wider inside, as a residual."""

    def __init__(self, width: int, expand_ratio: float, drop_path: float) -> None:
        super().__init__(width, int(width * expand_ratio), width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return self._residual(x) if self.training else map_rows(self._residual, x, halo=1)

    def _residual(self, x: Tensor) -> Tensor:
        return self.act(x + self.drop_path(super().forward(x)))


class BiasedAttention(nn.Module):
    """Self-attention in a window with a learned bias for each distance in rows and columns."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W the window's."""
        # (B, L, Hd, 3, D), as trained
        qkv = self.qkv(self.norm(x)).flatten(1, 2).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        return self.proj(join_heads(attend(q, k, v, bias=self._bias()))).view_as(x)

    def _bias(self) -> Tensor:
        """(Hd, L, L)."""
        index = torch.arange(self.window, device=self.attention_biases.device)
        distance = (index[:, None] - index).abs()
        table = self.attention_biases.unflatten(1, (self.window, self.window))
        return table[:, distance[:, None, :, None], distance[:, None, :]].flatten(3).flatten(1, 2)


class TinyViTBlock(nn.Module):
    """Attention in windows, a depth-wise convolution across them, an MLP."""

    def __init__(
        self, dim: int, num_heads: int, window: int, mlp_ratio: float, drop_path: float, local_conv_size: int
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.window = window
        self.attn = BiasedAttention(dim, num_heads, window)
        self.drop_path = DropPath(drop_path)
        self.local_conv = ConvNorm(dim, dim, local_conv_size, groups=dim)
        self.mlp = nn.Sequential(
            OrderedDict(norm=nn.LayerNorm(dim), fc1=Linear(dim, hidden), act=nn.GELU(), fc2=Linear(hidden, dim))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        if self.training:  # batch norms average over the whole map
            return self._mlp(self._attention(x))
        x = map_rows(self._attention, x, self.window)
        return map_rows(self._mlp, x, halo=self.local_conv.c.kernel_size[0] // 2)

    def _attention(self, x: Tensor) -> Tensor:
        return x + self.drop_path(apply_in_windows(self.attn, x, self.window))

    def _mlp(self, x: Tensor) -> Tensor:
        x = self.local_conv(x)
        return x + self.drop_path(self.mlp(x))


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
            img_size: the default input side; any other works.
            in_chans: channels of an image.
            num_classes: classes of the unused classifier in the released files.
            embed_dims: width of each stage. The first is convolutional.
            depths: blocks of each stage.
            num_heads: heads of each stage.
            window_sizes: side of each stage's windows.
            mlp_ratio: hidden width of the MLPs over the stage's width.
            drop_path_rate: stochastic depth of the last block; earlier ones get less.
            mbconv_expand_ratio: hidden width of the first stage's convolutions over its width.
            local_conv_size: kernel of the convolutions between attention and MLP.
            out_chans: channels of the features.
        """
        super().__init__()
        self.img_size = (img_size, img_size)
        first = embed_dims[0]
        stem = nn.Sequential(ConvNorm(in_chans, first // 2, 3, 2), nn.GELU(), ConvNorm(first // 2, first, 3, 2))
        self.patch_embed = nn.Sequential(OrderedDict(seq=stem))
        drops = iter([drop_path_rate * index / max(1, sum(depths) - 1) for index in range(sum(depths))])
        self.layers = nn.ModuleList()
        sizes = zip(embed_dims, depths, num_heads, window_sizes, strict=True)
        for index, (width, depth, heads, window) in enumerate(sizes):
            blocks = [
                TinyViTBlock(width, heads, window, mlp_ratio, next(drops), local_conv_size)
                if index
                else MBConv(width, mbconv_expand_ratio, next(drops))
                for _ in range(depth)
            ]
            stage: OrderedDict[str, nn.Module] = OrderedDict(blocks=nn.Sequential(*blocks))
            if index < len(depths) - 1:  # the last stage keeps the stride of 16
                stride = 1 if index == len(depths) - 2 else 2
                stage["downsample"] = Bottleneck(width, embed_dims[index + 1], embed_dims[index + 1], stride)
            self.layers.append(nn.Sequential(stage))
        self.norm_head = nn.LayerNorm(embed_dims[-1])
        self.head = Linear(embed_dims[-1], num_classes)
        self.neck = neck(embed_dims[-1], out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, out_chans, H / 16, W / 16)."""
        x = self.patch_embed(x.permute(0, 2, 3, 1).contiguous())
        for layer in self.layers:
            x = layer(x)
        return self.neck(x.permute(0, 3, 1, 2))
