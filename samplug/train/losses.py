"""What training minimises.

N prompts, M masks each, (h, w) a map at a quarter of the input's size. Targets (N, h, w) are the share of each pixel
that the object covers, 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.mask_decoder import SAM2MaskDecoder
from samplug.nn.types import Answer, Features

RAREST = 0.02  # shares below this weigh no more: a handful of pixels must not drown the rest
PICTURE_PRESENCE_WEIGHT = 0.05


def balanced_bce(logits: Tensor, target: Tensor, balance: float) -> Tensor:
    """Cross-entropy of maps (..., h, w) -> (...), object and background weighing alike at `balance` 1.

    At 0 every pixel weighs 1; between, the weights are those of 1 to that power.
    """
    share = target.mean((-2, -1), keepdim=True)
    on, off = (0.5 / part.clamp_min(RAREST) for part in (share, 1 - share))
    weight = target * on**balance + (1 - target) * off**balance
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean((-2, -1))


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice overlap of maps (..., h, w) -> (...); one pixel is added, so nothing divides by 0."""
    soft = logits.sigmoid()
    both, sizes = (soft * target).sum((-2, -1)), (soft + target).sum((-2, -1))
    return 1 - (2 * both + 1) / (sizes + 1)


def mask_loss(logits: Tensor, target: Tensor, balance: float) -> Tensor:
    """Cross-entropy and Dice of M masks against one target each: (N, M, h, w), (N, h, w) -> (N, M)."""
    target = target[:, None].expand_as(logits)
    return balanced_bce(logits, target, balance) + dice(logits, target)


@torch.no_grad()
def overlap(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of M masks with their target: (N, M, h, w), (N, h, w) -> (N, M)."""
    found, wanted = logits > 0, (target > 0.5)[:, None]
    union = (found | wanted).sum((-2, -1))
    return (found & wanted).sum((-2, -1)) / union.clamp_min(1)


def answer_loss(
    answer: Answer,
    target: Tensor,
    *,
    balance: float,
    every_mask: bool,
    visible: Tensor | None = None,
    presence: float = 1.0,
) -> Tensor:
    """Loss of N answers, a scalar.

    Args:
        answer: From the model, with M masks.
        target: (N, h, w).
        balance: Of `balanced_bce`.
        every_mask: Train all M masks on the target, which a network needs at first; else only the one that fits best,
            so that the others are free for other readings of the prompt. The predicted overlaps are all trained.
        visible: Bool (N,), on a frame of a clip: only presence is trained for an object that is not there. None on
            pictures: every prompt has its object, and there is little to learn.
        presence: Weight of presence on a frame of a clip.
    """
    masks = mask_loss(answer.logits.float(), target, balance)
    masks = masks.mean(1) if every_mask else masks.amin(1)
    quality = (answer.iou.float() - overlap(answer.logits, target)).abs().mean(1)
    here = torch.ones_like(masks) if visible is None else visible.float()
    loss = ((masks + quality) * here).sum() / here.sum().clamp_min(1)
    if answer.presence is None:
        return loss
    weight = PICTURE_PRESENCE_WEIGHT if visible is None else presence
    return loss + weight * F.binary_cross_entropy_with_logits(answer.presence.float()[:, 0], here)


class Probe(nn.Module):
    """A second, much simpler decoder that exists in training only.

    From the features under a click it makes a mask as the real decoder does, by a product with the upscaled features,
    but without the transformer in between. So the encoder learns from the first step to give the pixels of one object
    like features, and the decoder finds something to read.
    """

    def __init__(self, width: int):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width // 8))

    def forward(self, decoder: SAM2MaskDecoder, features: Features, owner: Tensor, points: Tensor) -> Tensor:
        """Logits (N, 4h, 4w) for clicks (N, 2) in pixels of the input."""
        height, width = (16 * side for side in features.grid)
        places = (points + 0.5) / points.new_tensor([width, height]) * 2 - 1
        seen = F.grid_sample(features.image[owner], places[:, None, None], align_corners=False)[..., 0, 0]
        return torch.einsum("nc,nchw->nhw", self.head(seen), upscaled(decoder, features)[owner])


def upscaled(decoder: SAM2MaskDecoder, features: Features) -> Tensor:
    """The maps (F, C/8, 4h, 4w) that the decoder's masks are products with, as they are before any prompt."""
    first, norm, activation, second, last_activation = decoder.output_upscaling
    x = activation(norm(first(features.image) + features.fine[1]))
    return last_activation(second(x) + features.fine[0])


def tame(features: Features) -> Tensor:
    """A scalar that grows once the features' mean square passes 1.

    Unchecked they grow fivefold and drown positions and prompts in every attention that adds the two.
    """
    return F.relu(features.image.float().square().mean() - 1)
