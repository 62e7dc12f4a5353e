"""A second decoder beside the real one, and a bound for features: what training from nothing needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.decoder.mask_decoder import SAM2MaskDecoder
from samplug.nn.structs import Features


class Probe(nn.Module):
    """A second, much simpler decoder that exists in training only.

    From the features under a click it makes a mask as the real decoder does, by a product with the upscaled features,
    but without the transformer in between. So the encoder learns from the first step to give the pixels of one object
    similar features, from which the decoder can learn.
    """

    def __init__(self, width: int):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width // 8))

    def forward(self, decoder: SAM2MaskDecoder, features: Features, image_index: Tensor, points: Tensor) -> Tensor:
        """Logits (N, 4h, 4w) for clicks (N, 2) in pixels of the input."""
        height, width = (16 * side for side in features.grid)
        places = (points + 0.5) / points.new_tensor([width, height]) * 2 - 1
        seen = F.grid_sample(features.image[image_index], places[:, None, None], align_corners=False)[..., 0, 0]
        return torch.einsum("nc,nchw->nhw", self.head(seen), upscaled(decoder, features)[image_index])


def upscaled(decoder: SAM2MaskDecoder, features: Features) -> Tensor:
    """The maps (F, C/8, 4h, 4w) that the decoder's masks are products with, as they are before any prompt."""
    first, norm, activation, second, last_activation = decoder.output_upscaling
    x = activation(norm(first(features.image) + features.fine[1]))
    return last_activation(second(x) + features.fine[0])


def feature_norm_penalty(features: Features) -> Tensor:
    """A scalar that grows once the features' mean square passes 1.

    Unchecked they grow fivefold and dominate positions and prompts in every attention that adds them.
    """
    return F.relu(features.image.float().square().mean() - 1)
