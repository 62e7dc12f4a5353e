"""The two-way transformer: a prompt's few tokens and a picture's many pixels look at each other in turn.

F pictures, N prompts, T tokens a prompt, P pixels of the grid, C channels, Hd heads of width D, R = Hd * T rows.

Nearly all the work of a plain implementation is projecting P pixels for each prompt. Two exact ways around it:

- `Projected`: the pixels are projected once and serve every prompt that sees the same pixels (all do, at first);
- `Folded`: q · (W x) = (Wᵀ q) · x, so a projection moves from P pixels to T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from samplug.nn.attention import Attention, attend, join_heads, split_heads
from samplug.nn.layers import MLP, MLPBlock


def folded_rows(x: Tensor, weight: Tensor) -> Tensor:
    """Put a projection's weight (Hd * D, C) into the heads of tokens (N, Hd, T, D): (N, R, C)."""
    return (x @ weight.unflatten(0, (x.shape[1], -1))).flatten(1, 2)


def written(attention: Attention, pixels: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """Add to pixels what they take from the tokens.

    Args:
        attention: whose values and output projection to use.
        pixels: (N or 1, P, C).
        weights: (N, Hd, T, P), a pixel's attention to the tokens of each head.
        tokens: (N, T, C).

    Returns:
        (N, P, C).
    """
    values = folded_rows(split_heads(attention.v_proj(tokens), attention.num_heads), attention.out_proj.weight.T)
    # A pixel's weights sum to one in each head, so a share of the bias in every row adds up to the bias.
    values = values + attention.out_proj.bias / attention.num_heads
    return torch.baddbmm(pixels.expand(len(tokens), -1, -1), weights.flatten(1, 2).mT, values)


@dataclass(frozen=True, eq=False)
class View:
    """Pixels as a block sees them. B sets of pixels serve N prompts: one a prompt, or one for all."""

    pixels: Tensor  # (B, P, C)
    placed: Tensor  # (B, P, C), positions added

    def __getitem__(self, index: slice | Tensor) -> View:
        """The view of some of the pictures."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    def read(self, attention: Attention, tokens: Tensor) -> Tensor:
        """Tokens (N, T, C) look at the pixels: (N, T, C)."""
        raise NotImplementedError

    def write(self, attention: Attention, keys: Tensor, tokens: Tensor) -> Tensor:
        """Pixels look at the tokens by their keys, both (N, T, C): the changed pixels (N, P, C)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Projected(View):
    """Projections of the pixels, made once for all prompts that share them."""

    k: Tensor  # (B, Hd, P, D), for tokens that read
    v: Tensor  # (B, Hd, P, D)
    q: Tensor  # (B, Hd, P, D), for pixels that read

    @classmethod
    def project(cls, pixels: Tensor, placed: Tensor, reader: Attention, writer: Attention) -> Projected:
        """Project pixels (B, P, C) for a block's two cross attentions."""
        projections = reader.k_proj(placed), reader.v_proj(pixels), writer.q_proj(placed)
        return cls(pixels, placed, *(split_heads(x, reader.num_heads) for x in projections))

    def read(self, attention: Attention, tokens: Tensor) -> Tensor:
        """Tokens look at the pixels; the tokens of all prompts with the same pixels stand side by side."""
        q = attention.q_proj(tokens)
        q = split_heads(q.reshape(len(self.k), -1, q.shape[-1]), attention.num_heads)
        return attention.out_proj(join_heads(attend(q, self.k, self.v)).reshape(*tokens.shape[:2], -1))

    def write(self, attention: Attention, keys: Tensor, tokens: Tensor) -> Tensor:
        """Pixels look at the tokens."""
        k = split_heads(attention.k_proj(keys), attention.num_heads) * self.q.shape[-1] ** -0.5
        return written(attention, self.pixels, (k @ self.q.mT).softmax(2), tokens)


@dataclass(frozen=True, eq=False)
class Folded(View):
    """Pixels as they are: the projections are folded into the tokens."""

    def read(self, attention: Attention, tokens: Tensor) -> Tensor:
        """Tokens look at the pixels. The keys' bias moves a row's products alike, so softmax does not see it."""
        heads = attention.num_heads
        q = split_heads(attention.q_proj(tokens), heads)
        rows = folded_rows(q, attention.k_proj.weight).reshape(len(self.pixels), 1, -1, tokens.shape[-1])
        seen = attend(rows, self.placed[:, None], self.pixels[:, None], scale=q.shape[-1] ** -0.5)
        seen = seen.reshape(len(tokens), heads, -1, tokens.shape[-1])  # (N, Hd, T, C)
        v = join_heads(seen @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT) + attention.v_proj.bias
        return attention.out_proj(v)

    def write(self, attention: Attention, keys: Tensor, tokens: Tensor) -> Tensor:
        """Pixels look at the tokens."""
        heads = attention.num_heads
        k = split_heads(attention.k_proj(keys), heads)
        k = k * k.shape[-1] ** -0.5
        rows = folded_rows(k, attention.q_proj.weight).reshape(len(self.placed), -1, keys.shape[-1])
        constant = folded_rows(k, attention.q_proj.bias[:, None]).reshape(len(self.placed), -1, 1)
        products = torch.baddbmm(constant, rows, self.placed.mT).reshape(len(tokens), heads, tokens.shape[1], -1)
        return written(attention, self.pixels, products.softmax(2), tokens)


class TwoWayAttentionBlock(nn.Module):
    """Tokens look at each other, at the pixels, think, and are looked at by the pixels."""

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int, mlp: nn.Module, first: bool = False
    ) -> None:
        """Make the block.

        Args:
            embedding_dim: width C.
            num_heads: heads of each attention.
            downsample_rate: C over the inner width of the cross attentions.
            mlp: the tokens' perceptron, C -> C.
            first: the first block's tokens are their own positions: they are not added, nor is there a residual.
        """
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

    def forward(self, tokens: Tensor, origin: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """One round.

        Args:
            tokens: (N, T, C).
            origin: (N, T, C), the tokens before the first block: their positions.
            view: the pixels.

        Returns:
            Tokens (N, T, C) and pixels (N, P, C).
        """
        tokens = self.norm1(self._among_themselves(tokens, origin))
        tokens = self.norm2(tokens + view.read(self.cross_attn_token_to_image, tokens + origin))
        tokens = self.norm3(tokens + self.mlp(tokens))
        pixels = self.norm4(view.write(self.cross_attn_image_to_token, tokens + origin, tokens))
        return tokens, pixels

    def _among_themselves(self, tokens: Tensor, origin: Tensor) -> Tensor:
        if self.first:
            return self.self_attn(tokens, tokens, tokens)
        placed = tokens + origin
        return tokens + self.self_attn(placed, placed, tokens)


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
            mlp_dim: hidden width of the tokens' perceptron.
            activation: its activation.
            attention_downsample_rate: C over the inner width of the cross attentions.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                attention_downsample_rate,
                self.perceptron(embedding_dim, mlp_dim, activation),
                first=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, attention_downsample_rate)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    @staticmethod
    def perceptron(width: int, hidden: int, activation: type[nn.Module]) -> nn.Module:
        """The perceptron of a block, under the names of SAM's checkpoints."""
        return MLPBlock(width, hidden, activation)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor, *, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run all blocks.

        Args:
            image_embedding: (F, C, h, w); one picture for all prompts, one a prompt, or any number with owners.
            image_pe: (1, C, h, w), the pixels' positions.
            point_embedding: (N, T, C), the tokens.
            owner: (N,) int64, the index of each prompt's picture.

        Returns:
            Tokens (N, T, C) and pixels (N, h * w, C).
        """
        view = self.look(image_embedding, image_pe, point_embedding)
        return self.run(view if owner is None else view[owner], image_pe, point_embedding)

    def look(self, image: Tensor, positions: Tensor, tokens: Tensor) -> View:
        """What the first block sees of pictures (F, C, h, w), to be made once for all prompts of a picture."""
        pixels = image.flatten(2).mT
        return self._view(0, pixels, positions, tokens)

    def run(self, view: View, positions: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run all blocks on the first block's view: tokens (N, T, C), pixels (N, h * w, C)."""
        origin = tokens
        for index, layer in enumerate(self.layers, start=1):
            tokens, pixels = layer(tokens, origin, view)
            view = self._view(index, pixels, positions, tokens)
        tokens = tokens + view.read(self.final_attn_token_to_image, tokens + origin)
        return self.norm_final_attn(tokens), view.pixels

    def _view(self, index: int, pixels: Tensor, positions: Tensor, tokens: Tensor) -> View:
        """What block `index` (the last attention after the last) sees: projected pixels where that is less work."""
        placed = pixels + positions.flatten(2).mT
        reader, writer = self._attentions(index)
        if len(tokens) * tokens.shape[1] * reader.num_heads <= len(pixels) * reader.q_proj.out_features:
            return Folded(pixels, placed)
        return Projected.project(pixels, placed, reader, writer)

    def _attentions(self, index: int) -> tuple[Attention, Attention]:
        """Block `index`'s attentions from tokens to pixels and back; after the last block there is no way back."""
        if index == len(self.layers):
            return self.final_attn_token_to_image, self.final_attn_token_to_image
        layer = self.layers[index]
        reader, writer = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        assert isinstance(reader, Attention) and isinstance(writer, Attention)
        return reader, writer


class SAM2TwoWayTransformer(TwoWayTransformer):
    """The same transformer under the names of SAM 2's checkpoints."""

    @staticmethod
    def perceptron(width: int, hidden: int, activation: type[nn.Module]) -> nn.Module:
        """The perceptron of a block, under the names of SAM 2's checkpoints."""
        return MLP(width, hidden, width, num_layers=2, activation=activation)
