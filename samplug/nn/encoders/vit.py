"""SAM's image encoder: a plain vision transformer, most blocks of which attend within windows.

B images or windows, (H, W) the grid of patches, L = H * W tokens, C channels, Hd heads of width D. Tokens are a map
(B, H, W, C).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.ops.attention import attend, attend_with_relative_positions, join_heads
from samplug.nn.ops.layers import LayerNorm2d, PatchEmbed, mlp_block
from samplug.nn.ops.linear import Linear
from samplug.nn.ops.windows import apply_in_windows, windowed_block


def relative_positions(table: Tensor, size: int) -> Tensor:
    """A table of distances (2n - 1, D) as positions of each query and key (size, size, D).

    For another size than trained the table is interpolated linearly.
    """
    if len(table) != 2 * size - 1:
        resized = F.interpolate(table.T[None].float(), 2 * size - 1, mode="linear")
        table = resized[0].T.to(table.dtype)
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index + size - 1]


class WindowAttention(nn.Module):
    """Self-attention within windows, or over the whole map if they are 0.

    Relative positions (arXiv 2112.01526, 4.2) are learned for a `table_size` (H, W); None for no relative positions.
    """

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool, window_size: int, table_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.use_rel_pos = table_size is not None
        if table_size is not None:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * table_size[0] - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * table_size[1] - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        # A window's padding is zeros before the projection: the bias after it.
        return self.proj(apply_in_windows(self._attention, self.qkv(x), self.window_size, self.qkv.bias))

    def _attention(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 C) -> (B, H, W, C)."""
        size = qkv.shape[1:3]
        q, k, v = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, Hd, L, D)
        x = attend_with_relative_positions(q, k, v, *self._bias(q, size)) if self.use_rel_pos else attend(q, k, v)
        return join_heads(x).unflatten(1, size)

    def _bias(self, q: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Biases of queries (B, Hd, L, D) for the rows (B, Hd, L, H) and columns (B, Hd, L, W) of keys."""
        q = q.unflatten(2, size)
        rows = torch.einsum("bnhwd,hkd->bnhwk", q, relative_positions(self.rel_pos_h, size[0]))
        columns = torch.einsum("bnhwd,wkd->bnhwk", q, relative_positions(self.rel_pos_w, size[1]))
        return rows.flatten(2, 3), columns.flatten(2, 3)


class Block(nn.Module):
    """A pre-norm transformer block on a map."""

    def __init__(
        self, dim: int, attn: WindowAttention, mlp_ratio: float,
        norm_layer: Callable[[int], nn.Module], act_layer: type[nn.Module],
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_block(dim, int(dim * mlp_ratio), act_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return windowed_block(self._attention, self._mlp, x, self.attn.window_size)

    def _attention(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))


class ImageEncoderViT(nn.Module):
    """SAM's image encoder (arXiv 2304.02643, 2203.16527)."""

    def __init__(
        self, img_size: int = 1024, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 768, depth: int = 12,
        num_heads: int = 12, mlp_ratio: float = 4.0, out_chans: int = 256, qkv_bias: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm, act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True, use_rel_pos: bool = False, rel_pos_zero_init: bool = True, window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Make the encoder.

        Args:
            img_size: input side of the position embeddings; they are resized for other sizes and rectangles.
            patch_size: side of a patch.
            in_chans: channels of an image.
            embed_dim: width C.
            depth: blocks.
            num_heads: heads of each attention.
            mlp_ratio: hidden width of the MLPs over C.
            out_chans: channels of the features.
            qkv_bias: whether queries, keys and values have a bias.
            norm_layer: makes a norm of a width.
            act_layer: activation of the MLPs.
            use_abs_pos: add a learned position to each patch.
            use_rel_pos: add learned relative positions in each attention.
            rel_pos_zero_init: initialise these with zeros, not with small random numbers.
            window_size: side of the windows, 0 for attention over the whole image in every block.
            global_attn_indexes: blocks that attend over the whole image.
        """
        super().__init__()
        self.img_size = (img_size, img_size)
        grid = (img_size // patch_size, img_size // patch_size)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size, patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, *grid, embed_dim)) if use_abs_pos else None
        self.blocks = nn.ModuleList()
        for index in range(depth):
            window = 0 if index in global_attn_indexes else window_size
            table = ((window, window) if window else grid) if use_rel_pos else None
            attention = WindowAttention(embed_dim, num_heads, qkv_bias, window, table)
            self.blocks.append(Block(embed_dim, attention, mlp_ratio, norm_layer, act_layer))
        if use_rel_pos and not rel_pos_zero_init:
            for block in self.blocks:
                assert isinstance(block, Block)
                nn.init.trunc_normal_(block.attn.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(block.attn.rel_pos_w, std=0.02)
        self.neck = neck(embed_dim, out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, out_chans, H / patch, W / patch)."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resize_positions(self.pos_embed, x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


def resize_positions(positions: Tensor, size: Sequence[int]) -> Tensor:
    """Learned positions (1, h, w, C) for a map (H, W); another size than trained takes the nearest."""
    if positions.shape[1:3] == size:
        return positions
    return F.interpolate(positions.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def neck(width: int, out_chans: int) -> nn.Sequential:
    """The neck of SAM's encoders, (B, width, H, W) -> (B, out_chans, H, W)."""
    return nn.Sequential(
        *(nn.Conv2d(width, out_chans, 1, bias=False), LayerNorm2d(out_chans)),
        *(nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False), LayerNorm2d(out_chans)),
    )
