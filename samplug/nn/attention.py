"""Attention. Every network's attention goes through `attend`, so that one place decides how it is computed.

B batch, Hd heads, L queries, K keys, D width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + bias) v.

    Args:
        q: (B, Hd, L, D).
        k: (B, Hd, K, D).
        v: (B, Hd, K, Dv).
        bias: broadcastable to (B, Hd, L, K), added to the scaled products.
        scale: 1 / √D where not given.

    Returns:
        (B, Hd, L, Dv).
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def recorded() -> bool:
    """Whether what runs is written down, for gradients or as a graph, so that nothing may depend on values."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, L, Hd * D) -> (B, Hd, L, D)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, Hd, L, D) -> (B, L, Hd * D)."""
    return x.transpose(1, 2).flatten(2)


class Projections(nn.Module):
    """What multi-head attention learns: separate projections, at a fraction of the width if asked."""

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int = 1, kv_in_dim: int | None = None
    ) -> None:
        """Make the projections.

        Args:
            embedding_dim: width of queries and of the result.
            num_heads: heads; they must divide the inner width.
            downsample_rate: the inner width is embedding_dim over this.
            kv_in_dim: width of keys and values where it differs from the queries'.

        Raises:
            ValueError: if the heads do not divide the inner width.
        """
        super().__init__()
        inner, kv_in_dim = embedding_dim // downsample_rate, kv_in_dim or embedding_dim
        if inner % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the attention's width {inner}.")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embedding_dim, inner)
        self.k_proj = nn.Linear(kv_in_dim, inner)
        self.v_proj = nn.Linear(kv_in_dim, inner)
        self.out_proj = nn.Linear(inner, embedding_dim)


class Attention(Projections):
    """Multi-head attention, the projections included."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, L, C), keys and values (B, K, kv_in_dim) -> (B, L, C)."""
        q, k, v = (split_heads(x, self.num_heads) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        return self.out_proj(join_heads(attend(q, k, v)))
