"""The memory attention of SAM 2: a frame's features attend to an object's memories.

F frames, N objects, L = h * w tokens of a frame, K memory tokens, C channels, D memory channels, Hd heads of width E.
"""

import copy

import torch
from torch import Tensor, nn

from samplug.nn.ops.attention import Projections, attend_and_project, join_heads, split_heads
from samplug.nn.ops.layers import LayerNorm
from samplug.nn.ops.linear import Linear, linear
from samplug.nn.ops.positions import rotary_angles, rotate

INPUT_POSITION_WEIGHT = 0.1  # as trained


class RoPEAttention(Projections):
    """Attention with rotary positions."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, angles: Tensor, unrotated: int = 0) -> Tensor:
        """Attend from the tokens of one map (B, L, C) to keys and values (B, K, D) of any number of maps: (B, L, C).

        `angles` are the `rotary_angles` of the grid, on which the last `unrotated` keys have no place.
        """
        q, k = self._project(q, self.q_proj), self._project(k, self.k_proj)  # (B, Hd, ., E)
        maps, pointers = k.split([k.shape[2] - unrotated, unrotated], dim=2)
        k = torch.cat([rotate(maps, angles), pointers], dim=2)
        return self.out_proj(join_heads(attend_and_project(rotate(q, angles), k, v, self.v_proj)))

    def _project(self, x: Tensor, projection: Linear) -> Tensor:
        """Projected tokens (B, Hd, L, E), channels in `rotate`'s order: the scores do not depend on it."""
        weight, bias = projection.weight, projection.bias
        order = torch.arange(len(weight), device=x.device).view(self.num_heads, -1, 2).mT.flatten()
        return split_heads(linear(x, weight[order], bias[order]), self.num_heads)


class MemoryAttentionLayer(nn.Module):
    """Self-attention, cross-attention to memory, MLP, each pre-norm."""

    def __init__(
        self, d_model: int = 256, dim_feedforward: int = 2048, dropout: float = 0.1, pos_enc_at_attn: bool = False,
        pos_enc_at_cross_attn_keys: bool = True, pos_enc_at_cross_attn_queries: bool = False,
        self_attn: RoPEAttention | None = None, cross_attn: RoPEAttention | None = None, *, kv_in_dim: int = 64,
    ) -> None:  # fmt: skip
        """Make one layer.

        Args:
            d_model: channels C of the frame's tokens.
            dim_feedforward: hidden width of the MLP.
            dropout: probability of dropping a channel in training.
            pos_enc_at_attn: add positions to queries and keys of the self-attention.
            pos_enc_at_cross_attn_keys: add positions to keys of the cross-attention.
            pos_enc_at_cross_attn_queries: add positions to queries of the cross-attention.
            self_attn: None for a single head of `d_model`.
            cross_attn: None for a single head of `d_model`.
            kv_in_dim: memory channels D, where `cross_attn` is not given.
        """
        super().__init__()
        self.self_attn = self_attn or RoPEAttention(d_model, num_heads=1)
        self.cross_attn_image = cross_attn or RoPEAttention(d_model, num_heads=1, kv_in_dim=kv_in_dim)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.ReLU()
        self.pos_enc_at_attn = pos_enc_at_attn
        self.pos_enc_at_cross_attn_keys = pos_enc_at_cross_attn_keys
        self.pos_enc_at_cross_attn_queries = pos_enc_at_cross_attn_queries

    def self_attend(self, x: Tensor, pos: Tensor | None, angles: Tensor) -> Tensor:
        """Self-attention of tokens (B, L, C)."""
        v = self.norm1(x)
        q = v + pos if self.pos_enc_at_attn else v
        return x + self.dropout(self.self_attn(q, q, v, angles))

    def cross_attend(
        self, x: Tensor, pos: Tensor | None, memory: Tensor, memory_pos: Tensor | None, angles: Tensor, unrotated: int
    ) -> Tensor:
        """Attention of tokens (B, L, C) to the memory (B, K, D), whose last `unrotated` tokens are pointers."""
        q = self.norm2(x)
        q = q + pos if self.pos_enc_at_cross_attn_queries else q
        k = memory
        if self.pos_enc_at_cross_attn_keys:
            assert memory_pos is not None
            k = memory + memory_pos
        return x + self.dropout(self.cross_attn_image(q, k, memory, angles, unrotated))

    def feed_forward(self, x: Tensor) -> Tensor:
        """MLP of tokens (B, L, C)."""
        hidden = self.dropout(self.activation(self.linear1(self.norm3(x))))
        return x + self.dropout(self.linear2(hidden))


class MemoryAttention(nn.Module):
    """Layers of memory attention and a final norm."""

    def __init__(
        self, d_model: int, pos_enc_at_input: bool, layer: MemoryAttentionLayer, num_layers: int,
        batch_first: bool = True,
    ) -> None:  # fmt: skip
        """Make the stack.

        Args:
            d_model: channels C of the frame's tokens.
            pos_enc_at_input: add positions, scaled down, to the frame's tokens before the first layer.
            layer: copied `num_layers` times.
            num_layers: how many layers.
            batch_first: whether `forward` takes (L, B, C) and transposes it for the layers; if False, it takes
                (B, L, C) as they do.
        """
        super().__init__()
        self.d_model = d_model
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = LayerNorm(d_model)
        self.pos_enc_at_input = pos_enc_at_input
        self.batch_first = batch_first
        self.head_dim = layer.self_attn.q_proj.out_features // layer.self_attn.num_heads

    def forward(
        self, curr: Tensor | list[Tensor], memory: Tensor, curr_pos: Tensor | list[Tensor] | None = None,
        memory_pos: Tensor | None = None, num_obj_ptr_tokens: int = 0, *, grid: tuple[int, int] | None = None,
    ) -> Tensor:  # fmt: skip
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
            x, memory = x.transpose(0, 1), memory.transpose(0, 1)
            pos, memory_pos = (None if each is None else each.transpose(0, 1) for each in (pos, memory_pos))
        side = round(x.shape[1] ** 0.5)
        output = self.condition(x, pos, memory, memory_pos, grid or (side, side), num_obj_ptr_tokens)
        return output.transpose(0, 1) if self.batch_first else output

    def condition(
        self, x: Tensor, pos: Tensor | None, memory: Tensor, memory_pos: Tensor | None, grid: tuple[int, int],
        unrotated: int = 0, image_index: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Condition the tokens of frames (F, L, C) on the memories (N, K, D) of any number of objects: (N, L, C).

        Positions are like both, or (1, L, C) for all frames. A memory is maps of L = h·w tokens of the grid in a row,
        then `unrotated` pointers. `image_index` (N,) is the index of each object's frame; None if there is one object a
        frame, in order.
        """
        x = self.prepare(x, pos, grid)
        return self.attend_to_memory(x, pos, memory, memory_pos, grid, unrotated, image_index)

    def prepare(self, x: Tensor, pos: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """The part of `condition` that is the same for all objects of a frame: (F, L, C) -> the same shape.

        In bfloat16 the layers' sum, from here to the last norm, is float32: it would lose a half more of what they add.
        """
        x = x.float() if x.dtype == torch.bfloat16 else x
        if self.pos_enc_at_input and pos is not None:
            x = x + INPUT_POSITION_WEIGHT * pos
        first = self.layers[0]
        assert isinstance(first, MemoryAttentionLayer)
        return first.self_attend(x, pos, rotary_angles(grid, self.head_dim, x.device))

    def attend_to_memory(
        self, prepared: Tensor, pos: Tensor | None, memory: Tensor, memory_pos: Tensor | None, grid: tuple[int, int],
        unrotated: int = 0, image_index: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The rest of `condition`, with its arguments; `prepared` (F, L, C) is from `prepare`."""
        x, angles = prepared, rotary_angles(grid, self.head_dim, prepared.device)
        if image_index is not None:
            x = x[image_index]  # (N, L, C)
            pos = pos[image_index] if pos is not None and len(pos) > 1 else pos
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, MemoryAttentionLayer)
            x = layer.self_attend(x, pos, angles) if i else x
            x = layer.cross_attend(x, pos, memory, memory_pos, angles, unrotated)
            x = layer.feed_forward(x)
        return self.norm(x)
