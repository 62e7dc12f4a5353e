"""Attention. Every network's attention goes through this file, so that one place decides how it is computed.

B batch, Hd heads, L queries, K keys, D width of a head, C channels.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.ops.linear import Linear, linear, may_split

# Block sizes on a CPU, each a share of its cache.
KEYS_PER_BLOCK = {torch.float32: 1024, torch.bfloat16: 2**17}
SCORES_PER_BLOCK = {torch.float32: 2**19, torch.bfloat16: 2**23}
BIASES_PER_BLOCK = 2**21
QUERIES_MULTIPLE = 64  # queries of a block are a multiple of this
BFLOAT16_MAX_KEYS = 1024  # from here on torch's kernel for bfloat16 is slower than blocks, where there is no AMX


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + bias) v: (B, Hd, L, D), (B, Hd, K, D), (B, Hd, K, Dv) -> (B, Hd, L, Dv).

    The bias is broadcastable to (B, Hd, L, K); the scale is 1 / √D where not given.
    """
    if bias is None and _has_no_fast_kernel(q, k, v):
        return _attend_in_blocks(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None and bias.dim() == 3:
        bias = bias[None]  # torch's fast kernel for CPUs takes four dimensions
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attend_with_relative_positions(q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """Attention with the sum of a bias for the row (B, Hd, L, H) and one for the column (B, Hd, L, W) of each key.

    Queries (B, Hd, L, D), keys and values (B, Hd, H * W, D) -> (B, Hd, L, D).
    """
    tensors = [x.flatten(0, 1) for x in (q, k, v, row_bias, column_bias)]  # (B * Hd, ., .)
    if not may_split(q):
        return _attend_with_full_bias(*tensors).unflatten(0, q.shape[:2])
    heads, length = tensors[0].shape[:2]
    heads_per_block = max(1, BIASES_PER_BLOCK // length**2)
    queries_per_block = max(1, min(length, BIASES_PER_BLOCK // length))
    result = torch.empty_like(tensors[2])
    for head in range(0, heads, heads_per_block):
        chosen = slice(head, head + heads_per_block)
        q_, k_, v_, rows, columns = (x[chosen] for x in tensors)
        for query in range(0, length, queries_per_block):
            part = slice(query, query + queries_per_block)
            result[chosen, part] = _attend_with_full_bias(q_[:, part], k_, v_, rows[:, part], columns[:, part])
    return result.unflatten(0, q.shape[:2])


def attend_and_project(q: Tensor, k: Tensor, v: Tensor, v_proj: Linear) -> Tensor:
    """`attend(q, k, v_proj(v))` of values that all heads share.

    A query's weights sum to one, so that the projection may come after the attention: less work where the values are
    narrower than the heads, if there is a kernel for it. q (B, Hd, L, D), k (B, Hd, K, D), v (B, K, C), and a v_proj of
    C -> Hd * D give (B, Hd, L, D).
    """
    heads = q.shape[1]
    if not may_split(v) or v.shape[-1] >= q.shape[-1] or (v.dtype == torch.bfloat16 and has_amx()):
        return attend(q, k, split_heads(v_proj(v), heads))
    x = attend(q, k, v[:, None].expand(-1, heads, -1, -1))  # (B, Hd, L, C)
    weight, bias = (parameter.unflatten(0, (heads, 1, -1)) for parameter in (v_proj.weight, v_proj.bias))
    return x @ weight[:, 0].mT + bias


def _attend_with_full_bias(q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """(B * Hd, L, .) -> (B * Hd, L, D)."""
    bias = (row_bias[..., :, None] + column_bias[..., None, :]).flatten(2)
    return attend(q[None], k[None], v[None], bias=bias[None])[0]


def _has_no_fast_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's CPU kernel is slow: for values of another width than keys, and for many keys in bfloat16."""
    if q.dtype not in KEYS_PER_BLOCK or not may_split(q):
        return False
    if q.shape[-1] != v.shape[-1]:
        return True
    return q.dtype == torch.bfloat16 and k.shape[2] >= BFLOAT16_MAX_KEYS and not has_amx()


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16, as torch's kernel does, which keeps scores in float32 besides."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private to torch
    return supported is not None and supported()


def softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax, written over the scores where no operation is recorded: the same bits in half the memory."""
    return torch.softmax(scores, dim, out=scores) if may_split(scores) else scores.softmax(dim)


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attention as plain products, some queries and keys at a time; the softmax is computed in float32."""
    num_keys = min(KEYS_PER_BLOCK[q.dtype], k.shape[2])
    num_queries = SCORES_PER_BLOCK[q.dtype] // num_keys // QUERIES_MULTIPLE * QUERIES_MULTIPLE
    num_queries = max(QUERIES_MULTIPLE, num_queries)
    result = q.new_empty(*q.shape[:-1], v.shape[-1])
    for i in range(q.shape[0]):
        for head in range(q.shape[1]):
            values = [block.mT.contiguous() for block in v[i, head].split(num_keys)]
            blocks = list(zip(k[i, head].split(num_keys), values, strict=True))
            queries = (q[i, head] * scale).split(num_queries)
            for part, output in zip(queries, result[i, head].split(num_queries), strict=True):
                output.copy_(_attend_to_block(part, *blocks[0]) if len(blocks) == 1 else _attend_to(part, blocks))
    return result


def _attend_to_block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (L, D), keys (K, D), values (Dv, K) -> (L, Dv)."""
    scores = linear(q, k)
    return linear(softmax(scores, -1), v)


def _attend_to(q: Tensor, blocks: list[tuple[Tensor, Tensor]]) -> Tensor:
    """As `_attend_to_block` for several blocks, each weighted by the sum of its unnormalised weights."""
    outputs, log_sums = [], []
    for k, v in blocks:
        scores = linear(q, k)
        highest = scores.amax(-1)
        weights = softmax(scores, -1)
        outputs.append(linear(weights, v))
        log_sums.append(highest - weights.amax(-1).log())  # the highest weight is one over the sum
    return torch.einsum("bld,bl->ld", torch.stack(outputs), torch.stack(log_sums).softmax(0))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, L, Hd * D) -> (B, Hd, L, D)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, Hd, L, D) -> (B, L, Hd * D)."""
    return x.transpose(1, 2).flatten(2)


class Projections(nn.Module):
    """The parameters of multi-head attention: separate projections, at a fraction of the width if asked."""

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int = 1, kv_in_dim: int | None = None
    ) -> None:
        """Make the projections.

        Args:
            embedding_dim: width of queries and of the result.
            num_heads: heads; they must divide the inner width, else ValueError.
            downsample_rate: embedding_dim over the inner width.
            kv_in_dim: width of keys and values where it is not embedding_dim.
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
    """Multi-head attention with its projections."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, L, C), keys and values (B, K, kv_in_dim) -> (B, L, C)."""
        q, k, v = (split_heads(x, self.num_heads) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        return self.out_proj(join_heads(attend(q, k, v)))
