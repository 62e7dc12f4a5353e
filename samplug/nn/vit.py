"""SAM's image encoder: a plain vision transformer, most blocks of which attend within windows.

B pictures, (H, W) the grid of patches, L = H * W tokens, C channels, Hd heads of width D. Tokens stay a map
(B, H, W, C) between attentions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.attention import attend, recorded
from samplug.nn.layers import LayerNorm2d, MLPBlock, from_windows, in_strips, to_windows
from samplug.nn.linear import Linear

BIAS_AT_ONCE = 2**21  # numbers of an attention's bias that exist at a time on a CPU: a share of its cache


def relative(table: Tensor, size: int) -> Tensor:
    """The rows of a table (2n - 1, D) of distances for `size` places: (size, size, D), query by key.

    As trained at another size, a table is stretched linearly.
    """
    if len(table) != 2 * size - 1:
        stretched = F.interpolate(table.T[None].float(), 2 * size - 1, mode="linear")
        table = stretched[0].T.to(table.dtype)
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place + size - 1]


def attend_relatively(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention with a bias for the row and one for the column of each key.

    Args:
        q: (B, Hd, L, D), as k and v.
        k: keys.
        v: values.
        rows: (B, Hd, L, H), what each query adds for keys of each row.
        columns: (B, Hd, L, W), the same for columns.

    Returns:
        (B, Hd, L, D). The bias is L x L for each head: on a CPU it is made and used in pieces.
    """
    everything = [x.flatten(0, 1) for x in (q, k, v, rows, columns)]
    whole = recorded() or q.device.type != "cpu"
    return (piece(*everything) if whole else in_pieces(everything)).unflatten(0, q.shape[:2])


def in_pieces(everything: list[Tensor]) -> Tensor:
    """Attention of all heads, (B * Hd, L, D): some heads, or some queries of one head, at a time."""
    heads, length = everything[0].shape[:2]
    some, lines = max(1, BIAS_AT_ONCE // length**2), max(1, min(length, BIAS_AT_ONCE // length))
    result = torch.empty_like(everything[2])
    for head in range(0, heads, some):
        q, k, v, rows, columns = (x[head : head + some] for x in everything)
        for line in range(0, length, lines):
            part = slice(line, line + lines)
            result[head : head + some, part] = piece(q[:, part], k, v, rows[:, part], columns[:, part])
    return result


def piece(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention of heads (., L', D) with their bias in full."""
    bias = (rows[..., :, None] + columns[..., None, :]).flatten(2)
    return attend(q[None], k[None], v[None], bias=bias[None])[0]


class WindowAttention(nn.Module):
    """Self-attention within windows, or over the whole map, with relative positions (arXiv 2112.01526, 4.2)."""

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool, window_size: int, table_size: tuple[int, int] | None
    ) -> None:
        """Make the projections.

        Args:
            dim: width C.
            num_heads: heads.
            qkv_bias: whether queries, keys and values have a bias.
            window_size: side of a window, 0 for the whole map.
            table_size: (H, W) that relative positions are made for, None to do without them.
        """
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
        """(B, H, W, C) -> (B, H, W, C). Only real tokens are projected: a window's padding is zeros before."""
        if not self.window_size:
            return self.proj(self._attend(self.qkv(x)))
        windows = to_windows(self.qkv(x), self.window_size, self.qkv.bias)
        return self.proj(from_windows(self._attend(windows), x.shape[1:3]))

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 C) -> (B, H, W, C)."""
        size = qkv.shape[1:3]
        q, k, v = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = attend_relatively(q, k, v, *self._bias(q, size)) if self.use_rel_pos else attend(q, k, v)
        return x.transpose(1, 2).flatten(2).unflatten(1, size)

    def _bias(self, q: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What queries (B, Hd, L, D) add for keys of each row (B, Hd, L, H) and each column (B, Hd, L, W)."""
        q = q.unflatten(2, size)
        rows = torch.einsum("bnhwd,hkd->bnhwk", q, relative(self.rel_pos_h, size[0]))
        columns = torch.einsum("bnhwd,wkd->bnhwk", q, relative(self.rel_pos_w, size[1]))
        return rows.flatten(2, 3), columns.flatten(2, 3)


class Block(nn.Module):
    """A pre-norm transformer block on a map."""

    def __init__(
        self, dim: int, attn: WindowAttention, mlp_ratio: float,
        norm_layer: Callable[[int], nn.Module], act_layer: type[nn.Module],
    ) -> None:  # fmt: skip
        """Put the parts together.

        Args:
            dim: width C.
            attn: the attention.
            mlp_ratio: hidden width of the perceptron over C.
            norm_layer: makes a norm of a width.
            act_layer: activation of the perceptron.
        """
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.norm2 = norm_layer(dim)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio), act_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        if self.attn.window_size:
            return in_strips(lambda rows: self._think(self._attend(rows)), x, self.attn.window_size)
        return in_strips(self._think, self._attend(x))

    def _attend(self, x: Tensor) -> Tensor:
        """Attention, beside its shortcut."""
        return x + self.attn(self.norm1(x))

    def _think(self, x: Tensor) -> Tensor:
        """The perceptron on every token."""
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches as tokens."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H * patch, W * patch) -> (B, H, W, C)."""
        return self.proj(x).permute(0, 2, 3, 1)


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
            img_size: input side that positions are made for; other sizes and rectangles work, positions stretched.
            patch_size: side of a patch.
            in_chans: channels of a picture.
            embed_dim: width C.
            depth: blocks.
            num_heads: heads of each attention.
            mlp_ratio: hidden width of the perceptrons over C.
            out_chans: channels of the features.
            qkv_bias: whether queries, keys and values have a bias.
            norm_layer: makes a norm of a width.
            act_layer: activation of the perceptrons.
            use_abs_pos: add a learned position to each patch.
            use_rel_pos: add learned relative positions in each attention.
            rel_pos_zero_init: start these at zero rather than at small random numbers.
            window_size: side of the windows, 0 for attention over the whole picture everywhere.
            global_attn_indexes: blocks that attend over the whole picture all the same.
        """
        super().__init__()
        self.img_size = (img_size, img_size)
        grid = (img_size // patch_size, img_size // patch_size)
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
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
        """Pictures (B, 3, H, W) -> features (B, out_chans, H / patch, W / patch)."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + fitted(self.pos_embed, x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


def fitted(positions: Tensor, size: Sequence[int]) -> Tensor:
    """Learned positions for a map (H, W), (1, H, W, C); another size than trained takes the nearest."""
    if positions.shape[1:3] == size:
        return positions
    return F.interpolate(positions.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def neck(width: int, out_chans: int) -> nn.Sequential:
    """From the encoder's width to the features', (B, C, H, W) -> (B, out_chans, H, W)."""
    return nn.Sequential(
        *(nn.Conv2d(width, out_chans, 1, bias=False), LayerNorm2d(out_chans)),
        *(nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False), LayerNorm2d(out_chans)),
    )
