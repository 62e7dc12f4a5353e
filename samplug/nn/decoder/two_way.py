"""The two-way transformer: a prompt's few tokens and an image's many pixels attend to each other in turn.

F images, N prompts, T tokens a prompt, P pixels of the grid, C channels, Hd heads of width D, R = Hd * T rows,
B sets of pixels: one a prompt, or one for all.

Nearly all the work of a plain implementation is projecting P pixels for each prompt. Two exact ways around it:

- `PixelTokens`: q · (W x) = (Wᵀ q) · x, so that T tokens are projected instead of P pixels;
- `ProjectedPixels`: pixels are projected once for all prompts that share them (all do, in the first block).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samplug.nn.ops.attention import Attention, attend, join_heads, softmax, split_heads
from samplug.nn.ops.layers import MLP, mlp_block
from samplug.nn.structs import TensorStruct


def absorb_projection(x: Tensor, weight: Tensor) -> Tensor:
    """Wᵀ x for heads x (N, Hd, T, D) and a projection's weight (Hd * D, C): (N, R, C)."""
    return (x @ weight.unflatten(0, (x.shape[1], -1))).flatten(1, 2)


def add_attention_to_tokens(attention: Attention, pixels: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """Pixels (N or 1, P, C) and their attention to tokens (N, T, C): (N, P, C).

    `weights` (N, Hd, T, P) are a pixel's weights of the tokens in each head; values and output projection are those of
    `attention`.
    """
    values = split_heads(attention.v_proj(tokens), attention.num_heads)
    values = absorb_projection(values, attention.out_proj.weight.T)  # (N, R, C)
    # A pixel's weights sum to one in each head, so that shares of the bias in all rows add up to the bias.
    values = values + attention.out_proj.bias / attention.num_heads
    return torch.baddbmm(pixels.expand(len(tokens), -1, -1), weights.flatten(1, 2).mT, values)


@dataclass(frozen=True, eq=False)
class PixelTokens(TensorStruct):
    """An image's pixels as a block attends to them: as they are, tokens absorb the projections."""

    pixels: Tensor  # (B, P, C)
    keys: Tensor  # (B, P, C), positions added

    def token_to_image(self, attention: Attention, queries: Tensor) -> Tensor:
        """Attention of tokens (N, T, C) to the pixels: (N, T, C).

        The keys' bias adds one number to a row's scores: softmax ignores it.
        """
        heads = attention.num_heads
        q = split_heads(attention.q_proj(queries), heads)  # (N, Hd, T, D)
        rows = absorb_projection(q, attention.k_proj.weight).reshape(len(self.pixels), 1, -1, queries.shape[-1])
        x = attend(rows, self.keys[:, None], self.pixels[:, None], scale=q.shape[-1] ** -0.5)
        x = x.reshape(len(queries), heads, -1, queries.shape[-1])  # (N, Hd, T, C)
        x = join_heads(x @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT) + attention.v_proj.bias
        return attention.out_proj(x)

    def image_to_token(self, attention: Attention, keys: Tensor, tokens: Tensor) -> Tensor:
        """The pixels and their attention to tokens, whose keys and values are (N, T, C): (N, P, C)."""
        heads, sets = attention.num_heads, len(self.keys)
        k = split_heads(attention.k_proj(keys), heads)  # (N, Hd, T, D)
        k = k * k.shape[-1] ** -0.5
        rows = absorb_projection(k, attention.q_proj.weight).reshape(sets, -1, keys.shape[-1])
        bias = absorb_projection(k, attention.q_proj.bias[:, None]).reshape(sets, -1, 1)
        scores = torch.baddbmm(bias, rows, self.keys.mT).reshape(len(tokens), heads, tokens.shape[1], -1)
        return add_attention_to_tokens(attention, self.pixels, softmax(scores, 2), tokens)


@dataclass(frozen=True, eq=False)
class ProjectedPixels(PixelTokens):
    """Pixels with their projections, shared by all prompts of an image."""

    k: Tensor  # (B, Hd, P, D), for token-to-image attention
    v: Tensor  # (B, Hd, P, D)
    q: Tensor  # (B, Hd, P, D), for image-to-token attention

    def token_to_image(self, attention: Attention, queries: Tensor) -> Tensor:
        """Attention of tokens to the pixels; all prompts with the same pixels in one product."""
        q = attention.q_proj(queries)
        q = split_heads(q.reshape(len(self.k), -1, q.shape[-1]), attention.num_heads)  # (B, Hd, N * T / B, D)
        return attention.out_proj(join_heads(attend(q, self.k, self.v)).reshape(*queries.shape[:2], -1))

    def image_to_token(self, attention: Attention, keys: Tensor, tokens: Tensor) -> Tensor:
        """The pixels and their attention to tokens."""
        k = split_heads(attention.k_proj(keys), attention.num_heads) * self.q.shape[-1] ** -0.5
        return add_attention_to_tokens(attention, self.pixels, softmax(k @ self.q.mT, 2), tokens)


class TwoWayAttentionBlock(nn.Module):
    """Self-attention, token-to-image attention, MLP, image-to-token attention.

    In the `first` block tokens are their own positions: nothing is added to them.
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int, mlp: nn.Module, first: bool = False
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(embedding_dim, num_heads)
        self.cross_attn_token_to_image = Attention(embedding_dim, num_heads, downsample_rate)
        self.mlp = mlp
        self.cross_attn_image_to_token = Attention(embedding_dim, num_heads, downsample_rate)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)

    def forward(self, tokens: Tensor, token_pe: Tensor, pixels: PixelTokens) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, C), those before the first block, pixels of N or fewer images -> tokens, pixels (N, P, C)."""
        if self.first:
            attended = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            attended = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(attended)
        tokens = self.norm2(tokens + pixels.token_to_image(self.cross_attn_token_to_image, tokens + token_pe))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.norm4(pixels.image_to_token(self.cross_attn_image_to_token, tokens + token_pe, tokens))


class TwoWayTransformer(nn.Module):
    """SAM's mask decoder transformer (arXiv 2304.02643, appendix A)."""

    def __init__(
        self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int,
        activation: type[nn.Module] = nn.ReLU, attention_downsample_rate: int = 2,
    ) -> None:  # fmt: skip
        """Make the blocks.

        Args:
            depth: blocks.
            embedding_dim: width C of tokens and pixels.
            num_heads: heads of each attention.
            mlp_dim: hidden width of the tokens' MLP.
            activation: its activation.
            attention_downsample_rate: C over the inner width of the cross attentions.
        """
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(depth):
            mlp = self._mlp(embedding_dim, mlp_dim, activation)
            block = TwoWayAttentionBlock(embedding_dim, num_heads, attention_downsample_rate, mlp, first=index == 0)
            self.layers.append(block)
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, attention_downsample_rate)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    @staticmethod
    def _mlp(width: int, hidden: int, activation: type[nn.Module]) -> nn.Module:
        return mlp_block(width, hidden, activation)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor, *, image_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (F, C, h, w), their positions (1, C, h, w), tokens (N, T, C) -> tokens (N, T, C), pixels (N, P, C).

        There is one image for all prompts, one a prompt, or any number with `image_index` (N,) int64.
        """
        pixels = self.pixel_tokens(image_embedding, image_pe, point_embedding)
        return self.run(pixels if image_index is None else pixels[image_index], image_pe, point_embedding)

    def pixel_tokens(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> PixelTokens:
        """The first block's pixels of images (F, C, h, w): once for all prompts of an image."""
        return self._pixel_tokens(0, image.flatten(2).mT, image_pe, tokens)

    def run(self, pixels: PixelTokens, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run all blocks on `pixel_tokens`: tokens (N, T, C), pixels (N, P, C)."""
        token_pe = tokens
        for index, layer in enumerate(self.layers, start=1):
            tokens, updated = layer(tokens, token_pe, pixels)
            pixels = self._pixel_tokens(index, updated, image_pe, tokens)
        tokens = tokens + pixels.token_to_image(self.final_attn_token_to_image, tokens + token_pe)
        return self.norm_final_attn(tokens), pixels.pixels

    def _pixel_tokens(self, index: int, pixels: Tensor, image_pe: Tensor, tokens: Tensor) -> PixelTokens:
        """Pixels (B, P, C) for block `index`, or for the attention after the last one; projected if less work."""
        keys = pixels + image_pe.flatten(2).mT
        token_to_image, image_to_token = self._cross_attentions(index)
        if len(tokens) * tokens.shape[1] * token_to_image.num_heads <= len(pixels) * token_to_image.q_proj.out_features:
            return PixelTokens(pixels, keys)
        projections = token_to_image.k_proj(keys), token_to_image.v_proj(pixels), image_to_token.q_proj(keys)
        return ProjectedPixels(pixels, keys, *(split_heads(x, token_to_image.num_heads) for x in projections))

    def _cross_attentions(self, index: int) -> tuple[Attention, Attention]:
        """Block `index`'s token-to-image and image-to-token attention; after the last block there is only one."""
        if index == len(self.layers):
            return self.final_attn_token_to_image, self.final_attn_token_to_image
        layer = self.layers[index]
        assert isinstance(layer, TwoWayAttentionBlock)
        return layer.cross_attn_token_to_image, layer.cross_attn_image_to_token


class SAM2TwoWayTransformer(TwoWayTransformer):
    """The same transformer under the names of SAM 2's checkpoints."""

    @staticmethod
    def _mlp(width: int, hidden: int, activation: type[nn.Module]) -> nn.Module:
        return MLP(width, hidden, width, num_layers=2, activation=activation)
