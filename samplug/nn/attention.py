"""Attention. Every network's attention goes through `attend`, so that one place decides how it is computed.

B batch, Hd heads, L queries, K keys, D width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.linear import Linear, product, recorded

# On a CPU without gradients: keys, and products of queries and keys, that are in hand at a time, a share of its cache.
KEYS_AT_ONCE = {torch.float32: 1024, torch.bfloat16: 2**17}
PRODUCTS_AT_ONCE = {torch.float32: 2**19, torch.bfloat16: 2**23}
LINES = 64  # queries in hand are a multiple of this
LONG = 1024  # keys from which on torch's kernel is the slower one for bfloat16


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
    if bias is None and in_blocks(q, k, v):
        return attend_in_blocks(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None and bias.dim() == 3:
        bias = bias[None]  # torch's fast kernel for CPUs takes four dimensions
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def in_blocks(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch has no fast kernel for this: on CPUs for values of another width, and for long ones in bfloat16."""
    if q.device.type != "cpu" or q.dtype not in KEYS_AT_ONCE or recorded():
        return False
    return q.shape[-1] != v.shape[-1] or (q.dtype == torch.bfloat16 and k.shape[2] >= LONG)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attention as plain products, some queries and keys at a time; the softmax is computed in float32."""
    keys = min(KEYS_AT_ONCE[q.dtype], k.shape[2])
    lines = max(LINES, PRODUCTS_AT_ONCE[q.dtype] // keys // LINES * LINES)
    result = q.new_empty(*q.shape[:-1], v.shape[-1])
    for i in range(q.shape[0]):
        for head in range(q.shape[1]):
            values = [block.mT.contiguous() for block in v[i, head].split(keys)]
            blocks = list(zip(k[i, head].split(keys), values, strict=True))
            for some, seen in zip((q[i, head] * scale).split(lines), result[i, head].split(lines), strict=True):
                seen.copy_(attend_once(some, *blocks[0]) if len(blocks) == 1 else attend_blockwise(some, blocks))
    return result


def attend_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (L, D), keys (K, D), values (Dv, K) -> (L, Dv)."""
    products = product(q, k)
    return product(torch.softmax(products, dim=-1, out=products), v)


def attend_blockwise(q: Tensor, blocks: list[tuple[Tensor, Tensor]]) -> Tensor:
    """As `attend_once`, block by block: what a block shows counts by the sum of its unnormalised weights."""
    seen, sums = [], []
    for k, v in blocks:
        products = product(q, k)
        highest = products.amax(-1)
        weights = torch.softmax(products, dim=-1, out=products)
        seen.append(product(weights, v))
        sums.append(highest - weights.amax(-1).log())  # the highest weight is one over the sum
    return torch.einsum("bld,bl->ld", torch.stack(seen), torch.stack(sums).softmax(0))


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
        self.q_proj = Linear(embedding_dim, inner)
        self.k_proj = Linear(kv_in_dim, inner)
        self.v_proj = Linear(kv_in_dim, inner)
        self.out_proj = Linear(inner, embedding_dim)


class Attention(Projections):
    """Multi-head attention, the projections included."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, L, C), keys and values (B, K, kv_in_dim) -> (B, L, C)."""
        q, k, v = (split_heads(x, self.num_heads) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        return self.out_proj(join_heads(attend(q, k, v)))
