"""The memory attention of SAM 2: the features of a frame take in what was remembered of an object.

F frames, N objects, L = h·w tokens of a frame, K tokens remembered, C channels, D memory channels. Rotary positions:
Su et al., 2021 (arXiv 2104.09864), of two axes as by Heo et al., 2024 (arXiv 2403.13298).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from samplug.nn.attention import Projections, attend, join_heads, split_heads
from samplug.nn.linear import Linear, product, recorded

ROPE_THETA = 10000.0
INPUT_POSITION_WEIGHT = 0.1  # as trained
T = TypeVar("T", Tensor, Tensor | None)


def rotary_angles(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """By how much each pair of channels turns at each token of a grid (h, w): cosines and sines, (2, L, dim / 2).

    The first half of the pairs turns with the column, the second with the row.
    """
    height, width = grid
    speeds = ROPE_THETA ** -(torch.arange(0, dim, 4, dtype=torch.float32, device=device) / dim)
    columns = torch.arange(width, device=device).expand(height, -1).reshape(-1, 1) * speeds
    rows = torch.arange(height, device=device)[:, None].expand(-1, width).reshape(-1, 1) * speeds
    angles = torch.cat([columns, rows], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the channels of tokens (B, Hd, n·L, dim), n maps of one grid in a row; in float32, as trained.

    The first halves of all pairs of channels come first, then the second ones: that is how memory is read fastest.
    """
    cos, sin = angles
    a, b = x.float().unflatten(2, (-1, len(cos))).chunk(2, dim=-1)
    turned = torch.cat([torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)], dim=-1)
    return turned.flatten(2, 3).to(x.dtype)


class RoPEAttention(Projections):
    """Attention whose queries and keys are turned by their place on the grid."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, angles: Tensor, unrotated: int = 0) -> Tensor:
        """Attend from the tokens of one map to those of any number of maps.

        Args:
            q: (B, L, C).
            k: (B, K, D).
            v: (B, K, D).
            angles: `rotary_angles` of the grid.
            unrotated: how many of the last keys have no place on the grid.

        Returns:
            (B, L, C).
        """
        q, k = self._paired(q, self.q_proj), self._paired(k, self.k_proj)
        placed, loose = k.split([k.shape[2] - unrotated, unrotated], dim=2)
        k = torch.cat([rotate(placed, angles), loose], dim=2)
        return self.out_proj(join_heads(self._seen(rotate(q, angles), k, v)))

    def _paired(self, x: Tensor, projection: Linear) -> Tensor:
        """Projected tokens (B, Hd, L, D) as `rotate` wants their channels; products do not notice the order."""
        weight, bias = projection.weight, projection.bias
        order = torch.arange(len(weight), device=x.device).view(self.num_heads, -1, 2).mT.flatten()
        return split_heads(product(x, weight[order], bias[order]), self.num_heads)

    def _seen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the queries see (B, Hd, L, D) in tokens v (B, K, ·).

        A query's weights sum to one, so what it sees can be projected instead of all that there is to see. That is
        less to add up where tokens are narrower than heads, if a kernel for it is there.
        """
        if recorded() or v.device.type != "cpu" or v.shape[-1] >= q.shape[-1]:
            return attend(q, k, split_heads(self.v_proj(v), self.num_heads))
        seen = attend(q, k, v[:, None].expand(-1, self.num_heads, -1, -1))
        weight, bias = (x.unflatten(0, (self.num_heads, 1, -1)) for x in (self.v_proj.weight, self.v_proj.bias))
        return seen @ weight[:, 0].mT + bias


class MemoryAttentionLayer(nn.Module):
    """Attention to the frame itself, then to what is remembered, then a perceptron: each behind a norm."""

    def __init__(
        self, d_model: int = 256, dim_feedforward: int = 2048, dropout: float = 0.1, pos_enc_at_attn: bool = False,
        pos_enc_at_cross_attn_keys: bool = True, pos_enc_at_cross_attn_queries: bool = False,
        self_attn: RoPEAttention | None = None, cross_attn: RoPEAttention | None = None, *, kv_in_dim: int = 64,
    ) -> None:  # fmt: skip
        """Make one layer.

        Args:
            d_model: channels C of the frame's tokens.
            dim_feedforward: width of the perceptron.
            dropout: share of channels left out while training.
            pos_enc_at_attn: add positions to queries and keys of the attention to the frame.
            pos_enc_at_cross_attn_keys: add positions to what is remembered.
            pos_enc_at_cross_attn_queries: add positions to the frame's tokens that look at what is remembered.
            self_attn: attention to the frame; None for a single head of `d_model`.
            cross_attn: attention to what is remembered; None for a single head of `d_model`.
            kv_in_dim: memory channels D, where `cross_attn` is not given.
        """
        super().__init__()
        self.self_attn = self_attn or RoPEAttention(d_model, num_heads=1)
        self.cross_attn_image = cross_attn or RoPEAttention(d_model, num_heads=1, kv_in_dim=kv_in_dim)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.ReLU()
        self.pos_enc_at_attn = pos_enc_at_attn
        self.pos_enc_at_cross_attn_keys = pos_enc_at_cross_attn_keys
        self.pos_enc_at_cross_attn_queries = pos_enc_at_cross_attn_queries

    def look_around(self, x: Tensor, pos: Tensor | None, angles: Tensor) -> Tensor:
        """The frame's tokens attend to each other: (B, L, C) -> the same shape."""
        normed = self.norm1(x)
        placed = normed + pos if self.pos_enc_at_attn else normed
        return x + self.dropout(self.self_attn(placed, placed, normed, angles))

    def look_back(
        self, x: Tensor, pos: Tensor | None, memory: Tensor, memory_pos: Tensor | None, angles: Tensor, unrotated: int
    ) -> Tensor:
        """The frame's tokens (B, L, C) attend to the memory (B, K, D), whose last `unrotated` tokens are pointers."""
        normed = self.norm2(x)
        queries = normed + pos if self.pos_enc_at_cross_attn_queries else normed
        keys = memory
        if self.pos_enc_at_cross_attn_keys:
            assert memory_pos is not None
            keys = memory + memory_pos
        return x + self.dropout(self.cross_attn_image(queries, keys, memory, angles, unrotated))

    def think(self, x: Tensor) -> Tensor:
        """The perceptron on every token: (B, L, C) -> the same shape."""
        hidden = self.dropout(self.activation(self.linear1(self.norm3(x))))
        return x + self.dropout(self.linear2(hidden))


def turned(x: T) -> T:
    """(L, B, C) -> (B, L, C), and None where there is nothing."""
    return None if x is None else x.transpose(0, 1)


class MemoryAttention(nn.Module):
    """Layers of memory attention and a last norm."""

    def __init__(
        self, d_model: int, pos_enc_at_input: bool, layer: MemoryAttentionLayer, num_layers: int,
        batch_first: bool = True,
    ) -> None:  # fmt: skip
        """Make the stack.

        Args:
            d_model: channels C of the frame's tokens.
            pos_enc_at_input: add positions, lightly, to the frame's tokens before the first layer.
            layer: copied `num_layers` times.
            num_layers: how many layers.
            batch_first: the layers take (B, L, C), while `forward` takes (L, B, C) and turns it around for them. False
                hands the tensors on as they come, so that `forward` takes (B, L, C) too.
        """
        super().__init__()
        self.d_model = d_model
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.pos_enc_at_input = pos_enc_at_input
        self.batch_first = batch_first
        self.head_dim = layer.self_attn.q_proj.out_features // layer.self_attn.num_heads

    def forward(
        self,
        curr: Tensor | list[Tensor],
        memory: Tensor,
        curr_pos: Tensor | list[Tensor] | None = None,
        memory_pos: Tensor | None = None,
        num_obj_ptr_tokens: int = 0,
        *,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Condition the tokens of frames on memories, in the layout of SAM 2.

        Args:
            curr: (L, B, C), or a list of that one tensor.
            memory: (K, B, D), maps of L tokens in a row, then pointers.
            curr_pos: positions like `curr`.
            memory_pos: positions like `memory`.
            num_obj_ptr_tokens: how many of the last tokens of `memory` are pointers.
            grid: (h, w) of the frame; None for a square.

        Returns:
            (L, B, C).
        """
        x = curr[0] if isinstance(curr, list) else curr
        pos = curr_pos[0] if isinstance(curr_pos, list) else curr_pos
        if self.batch_first:
            x, pos, memory, memory_pos = turned(x), turned(pos), turned(memory), turned(memory_pos)
        side = round(x.shape[1] ** 0.5)
        output = self.condition(x, pos, memory, memory_pos, grid or (side, side), num_obj_ptr_tokens)
        return output.transpose(0, 1) if self.batch_first else output

    def condition(
        self,
        x: Tensor,
        pos: Tensor | None,
        memory: Tensor,
        memory_pos: Tensor | None,
        grid: tuple[int, int],
        unrotated: int = 0,
        owner: Tensor | None = None,
    ) -> Tensor:
        """Condition the tokens of frames on the memories of any number of objects.

        Args:
            x: (F, L, C).
            pos: positions of `x`, (F, L, C) or (1, L, C).
            memory: (N, K, D), maps of L tokens in a row, then pointers.
            memory_pos: positions like `memory`.
            grid: (h, w) of a frame, with h·w = L.
            unrotated: how many of the last tokens of `memory` are pointers.
            owner: (N,) the index of each object's frame; None if there is one object a frame, in order.

        Returns:
            (N, L, C).
        """
        return self.finish(self.begin(x, pos, grid), pos, memory, memory_pos, grid, unrotated, owner)

    def begin(self, x: Tensor, pos: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """What `condition` does before the first look at memories, the same for all objects: (F, L, C) -> as much."""
        if self.pos_enc_at_input and pos is not None:
            x = x + INPUT_POSITION_WEIGHT * pos
        first = self.layers[0]
        assert isinstance(first, MemoryAttentionLayer)
        return first.look_around(x, pos, rotary_angles(grid, self.head_dim, x.device))

    def finish(
        self,
        begun: Tensor,
        pos: Tensor | None,
        memory: Tensor,
        memory_pos: Tensor | None,
        grid: tuple[int, int],
        unrotated: int = 0,
        owner: Tensor | None = None,
    ) -> Tensor:
        """The rest of `condition`, with its arguments; `begun` is what `begin` gave."""
        x, angles = begun, rotary_angles(grid, self.head_dim, begun.device)
        if owner is not None:
            x = x[owner]
            pos = pos[owner] if pos is not None and len(pos) > 1 else pos
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, MemoryAttentionLayer)
            x = layer.look_around(x, pos, angles) if i else x
            x = layer.think(layer.look_back(x, pos, memory, memory_pos, angles, unrotated))
        return self.norm(x)
