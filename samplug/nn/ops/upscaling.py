"""The mask decoder's upscaling, on tokens.

Pixels stay tokens until the logits are finished: an upscaled map is (N, P, 4, ...), each pixel with its 2 x 2 parts,
rows before columns, so that transposed convolutions are plain products and only the logits are put in order.

F images, N prompts, C channels, (h, w) the grid of features, P = h * w, M masks a prompt.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def upscale(layers: nn.Sequential, pixels: Tensor, fine: Sequence[Tensor] = ()) -> Tensor:
    """Upscale pixels twice by two, adding finer maps after each transposed convolution: (N, P, C) -> (N, 16 P, C / 8).

    The layers are a transposed convolution, norm, activation, transposed convolution and activation. The finer maps, if
    any, are from `split_pixels`: (N or 1, P, 4, 4, C / 8) and (N or 1, P, 4, C / 4). The result is for `join_pixels`.
    """
    first, norm, activation, second, last_activation = layers
    assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
    assert isinstance(norm, nn.LayerNorm)
    x = conv_transpose(first, pixels)  # (N, P, 4, C / 4)
    x = x.add_(fine[1]) if fine else x  # in place: these are the largest maps of all
    x = activation(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
    x = conv_transpose(second, x)  # (N, P, 4, 4, C / 8)
    x = x.add_(fine[0]) if fine else x
    return last_activation(x).flatten(1, 3)


def conv_transpose(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 2 x 2, stride 2 transposed convolution of tokens (..., C) -> (..., 4, C')."""
    assert conv.bias is not None
    weight = conv.weight.permute(2, 3, 1, 0)  # (2, 2, C', C)
    return F.linear(x, weight.flatten(0, 2), conv.bias.repeat(4)).unflatten(-1, (4, -1))


def split_pixels(x: Tensor, times: int) -> Tensor:
    """A finer map (F, C, h * 2^times, w * 2^times) in the layout of upscaled tokens, (F, P, 4 [, 4], C)."""
    shape = [-1] + [2] * times
    x = x.unflatten(3, shape).unflatten(2, shape)  # (F, C, h, 2.., w, 2..)
    down, across = range(2, 3 + times), range(3 + times, 4 + 2 * times)
    order = [axis for pair in zip(down, across, strict=True) for axis in pair]
    return x.permute(0, *order, 1).reshape(len(x), -1, *[4] * times, x.shape[1])


def join_pixels(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Logits of twice upscaled tokens (N, M, 16 P) as maps (N, M, 4h, 4w)."""
    height, width = grid
    x = x.unflatten(2, (height, width, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return x.reshape(*x.shape[:2], 4 * height, 4 * width)
