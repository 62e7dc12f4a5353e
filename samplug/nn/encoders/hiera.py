"""Hiera, the image encoder of SAM 2: a pyramid of attention blocks, most of them inside windows.

B images or windows, (H, W) a stage's map, C its channels, L tokens, Hd heads of width D. Maps are (B, H, W, C) inside,
those returned (B, C, H, W).
Ryali et al., 2023 (arXiv 2306.00989); windowed positions: Bolya et al., 2023 (arXiv 2311.05613).
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.ops.attention import attend, join_heads, split_heads
from samplug.nn.ops.layers import MLP, DropPath, PatchEmbed
from samplug.nn.ops.linear import Linear
from samplug.nn.ops.windows import apply_in_windows, windowed_block

NORM_EPS = 1e-6
MLP_RATIO = 4  # hidden width of the MLPs over the block's


def pool(x: Tensor, stride: tuple[int, int] | None) -> Tensor:
    """Max pooling of a map (B, H, W, C); no stride, no change."""
    if stride is None:
        return x
    down, across = stride
    x = x[:, : x.shape[1] // down * down, : x.shape[2] // across * across]
    cells = product(range(down), range(across))  # max_pool2d is slow where channels lie last
    return reduce(torch.maximum, (x[:, row::down, column::across] for row, column in cells))


def geometric(first: int, factor: float, count: int) -> list[int]:
    """`count` integers, each the one before times the factor, rounded down."""
    return list(accumulate(range(count - 1), lambda size, _: int(size * factor), initial=first))


def bicubic_matrix(size: int, side: int, device: torch.device) -> Tensor:
    """The matrix (size, side) that resamples `side` values to `size` by bicubic interpolation."""
    identity = torch.eye(side, device=device)[None, None]
    return F.interpolate(identity, size=(size, side), mode="bicubic")[0, 0]


class MultiScaleAttention(nn.Module):
    """Self-attention over a map; pooled queries make the map smaller."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, q_stride: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_stride = q_stride
        self.qkv = Linear(dim, dim_out * 3)
        self.proj = Linear(dim_out, dim_out)

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim_out), H and W divided by the stride."""
        # A window's padding is zeros before the projection: the bias after it.
        x = apply_in_windows(self._attention, self.qkv(x), window, self.qkv.bias, self.q_stride or (1, 1))
        return self.proj(x)

    def _attention(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 dim_out) -> (B, H, W, dim_out), H and W divided by the stride."""
        q, k, v = qkv.chunk(3, dim=-1)
        q = pool(q, self.q_stride)
        size = q.shape[1:3]
        q, k, v = (split_heads(x.flatten(1, 2), self.num_heads) for x in (q, k, v))  # (B, Hd, L, D)
        return join_heads(attend(q, k, v)).unflatten(1, size)


class MultiScaleBlock(nn.Module):
    """A pre-norm transformer block; a stage's first one widens and pools.

    Windows are measured on the input map, 0 for the whole map; `q_stride` pools the queries, and so the map.
    """

    def __init__(
        self, dim: int, dim_out: int, num_heads: int, window_size: int, q_stride: tuple[int, int] | None,
        drop_path: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window_size = window_size
        self.q_stride = q_stride
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, q_stride)
        self.norm2 = nn.LayerNorm(dim_out, eps=NORM_EPS)
        self.mlp = MLP(dim_out, MLP_RATIO * dim_out, dim_out, num_layers=2, activation=nn.GELU)
        self.drop_path = DropPath(drop_path)
        self.proj = Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim_out), H and W divided by the stride."""
        return windowed_block(self._attention, self._mlp, x, self.window_size)

    def _attention(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        # As trained: where the width changes, the shortcut is the normed map.
        shortcut = pool(x if self.proj is None else self.proj(normed), self.q_stride)
        return shortcut + self.drop_path(self.attn(normed, self.window_size))

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Hiera(nn.Module):
    """Four stages; each but the first halves the map and doubles channels and heads."""

    def __init__(
        self, embed_dim: int = 96, num_heads: int = 1, drop_path_rate: float = 0.0, q_pool: int = 3,
        q_stride: tuple[int, int] = (2, 2), stages: Sequence[int] = (2, 3, 16, 3), dim_mul: float = 2.0,
        head_mul: float = 2.0, window_pos_embed_bkg_spatial_size: Sequence[int] = (14, 14),
        window_spec: Sequence[int] = (8, 4, 14, 7), global_att_blocks: Sequence[int] = (12, 16, 20),
        return_interm_layers: bool = True,
    ) -> None:  # fmt: skip
        """Make the encoder.

        Args:
            embed_dim: channels of the first stage.
            num_heads: heads of the first stage.
            drop_path_rate: stochastic depth of the last block; earlier ones get less.
            q_pool: how many stages begin with pooling.
            q_stride: stride of the pooling.
            stages: blocks of each stage.
            dim_mul: growth of the channels from stage to stage.
            head_mul: growth of the heads.
            window_pos_embed_bkg_spatial_size: size of the background position embedding.
            window_spec: window side of each stage.
            global_att_blocks: blocks without windows, counted over all stages.
            return_interm_layers: return every stage's map, not only the last one's.

        Raises:
            ValueError: `stages` and `window_spec` differ in length, or `q_pool` is not in 0 … stages - 1.
        """
        super().__init__()
        if len(stages) != len(window_spec):
            raise ValueError(f"{len(stages)} stages but {len(window_spec)} window sizes: give one size per stage.")
        if not 0 <= q_pool < len(stages):
            raise ValueError(
                f"q_pool is {q_pool}: of {len(stages)} stages, 0 to {len(stages) - 1} can begin with pooling."
            )
        self.patch_embed = PatchEmbed(3, embed_dim, kernel_size=7, stride=4, padding=3)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *window_pos_embed_bkg_spatial_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed_dim, window_spec[0], window_spec[0]))
        widths, heads = geometric(embed_dim, dim_mul, len(stages)), geometric(num_heads, head_mul, len(stages))
        stage_of = [stage for stage, depth in enumerate(stages) for _ in range(depth)]
        self.blocks = nn.ModuleList()
        for i, stage in enumerate(stage_of):
            # A stage's first block still sees the map, and uses the window, of the stage before.
            before = stage_of[max(i - 1, 0)]
            block = MultiScaleBlock(
                widths[before],
                widths[stage],
                heads[stage],
                window_size=0 if i in global_att_blocks else window_spec[before],
                q_stride=(q_stride[0], q_stride[1]) if before < stage <= q_pool else None,
                drop_path=drop_path_rate * i / max(len(stage_of) - 1, 1),
            )
            self.blocks.append(block)
        self.stage_ends = [end - 1 for end in accumulate(stages)]
        if not return_interm_layers:
            self.stage_ends = self.stage_ends[-1:]
        self.channel_list = [widths[stage_of[end]] for end in reversed(self.stage_ends)]

    def positions(self, size: Sequence[int]) -> Tensor:
        """The position embedding of a map (H, W): a resized background plus a repeated window, (1, H, W, C)."""
        height, width = size
        window = self.pos_embed_window.shape[-1]
        down, across = -(-height // window), -(-width // window)
        # Two small products are far faster than to interpolate every channel.
        background = self.pos_embed.float()
        sizes = zip(size, background.shape[2:], strict=True)
        rows, columns = (bicubic_matrix(*sides, background.device) for sides in sizes)
        background = torch.einsum("hy,bcyx,wx->bhwc", rows, background, columns)
        tile = self.pos_embed_window.permute(0, 2, 3, 1)
        return background.to(tile.dtype) + tile.tile(1, down, across, 1)[:, :height, :width]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, 4H, 4W) -> the stages' maps (B, C, H, W), fine to coarse, or the last one alone."""
        x = self.patch_embed(images)
        x = x + self.positions(x.shape[1:3])
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return maps
