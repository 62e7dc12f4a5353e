"""The losses of training.

N prompts, M masks each, (h, w) a map at a quarter of the input's size, or at that size. Truths (N, h, w) are the share
of each pixel that the object covers, 0 to 1; weights (N, h, w) are 0 where the truth is unknown, None for 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from samplug.masks.iou import paired_mask_iou
from samplug.nn.constants import MASK_STRIDE
from samplug.nn.structs import Answer, TensorStruct
from samplug.train.losses.options import META, LossOptions

MIN_SHARE = 0.02  # smaller shares weigh no more: a handful of pixels must not dominate
FOCAL_WEIGHT = 20.0  # as the released weights were trained, with the next two
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2


def coverage(masks: Tensor) -> Tensor:
    """The share of each of the decoder's pixels that a mask covers: bool (..., H, W) -> float32 (..., H/4, W/4)."""
    flat = masks.flatten(0, -3)[:, None].float()
    return F.avg_pool2d(flat, MASK_STRIDE)[:, 0].unflatten(0, masks.shape[:-2])


@dataclass(frozen=True, eq=False)
class Target(TensorStruct):
    """What N objects look like on one frame.

    Attributes:
        masks: (N, H, W) bool, at the input's size.
        share: (N, h, w), at a quarter of it.
        known: (N, h, w), the share of each pixel where the truth is known; None for everything.
    """

    masks: Tensor
    share: Tensor
    known: Tensor | None = None

    @staticmethod
    def of(masks: Tensor, image_index: Tensor, ignore: Tensor | None = None) -> Target:
        """Of masks (N, H, W) bool; `ignore` (F, H, W) bool is where the truth of F images is unknown."""
        if ignore is None:
            return Target(masks, coverage(masks))
        return Target(masks, coverage(masks), coverage(masks | ~ignore[image_index]))

    @property
    def present(self) -> Tensor:
        """(N,) bool: whether the object is on the frame at all."""
        return self.masks.flatten(1).any(1)

    @property
    def truth(self) -> Tensor:
        """(N, h, w) bool; of an object that covers half of no pixel, those it covers most."""
        return self.share > (self.share.amax((-2, -1), keepdim=True) / 2).clamp_max(0.5)

    def compared_with(self, logits: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (N, M, h, w), the truth (N, h, w) and its weight, at a quarter of the input's size or at that size."""
        if not full:
            return logits.float(), self.share, self.known
        size = self.masks.shape[-2:]
        known = None if self.known is None else F.interpolate(self.known[:, None], size)[:, 0]
        logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
        return logits, self.masks.float(), known


def pixel_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of maps (..., h, w) over the pixels that count: (...)."""
    if weight is None:
        return values.mean((-2, -1))
    return (values * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1)


def balanced_bce(logits: Tensor, target: Tensor, balance: float, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of maps (..., h, w) -> (...), object and background weighing alike at `balance` 1.

    At 0 every pixel weighs 1; between, the weights are those of 1 to that power.
    """
    share = pixel_mean(target, weight)[..., None, None]
    on, off = (0.5 / part.clamp_min(MIN_SHARE) for part in (share, 1 - share))
    balances = target * on**balance + (1 - target) * off**balance
    return pixel_mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none") * balances, weight)


def focal(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Focal loss (arXiv 1708.02002) of maps (..., h, w) -> (...)."""
    soft = logits.sigmoid()
    missing = soft + target - 2 * soft * target  # 1 - p_t
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return pixel_mean(alpha * entropy * missing**FOCAL_GAMMA, weight)


def dice(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap of maps (..., h, w) -> (...); one pixel is added, so nothing divides by 0."""
    soft = logits.sigmoid()
    if weight is not None:
        soft, target = soft * weight, target * weight
    both, sizes = (soft * target).sum((-2, -1)), (soft + target).sum((-2, -1))
    return 1 - (2 * both + 1) / (sizes + 1)


def target_iou(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """IoU of M masks with their target: (N, M, h, w), (N, h, w) -> (N, M)."""
    masks, truth = logits > 0, (target > 0.5)[:, None]
    if weight is not None:
        known = (weight > 0.5)[:, None]
        masks, truth = masks & known, truth & known
    return paired_mask_iou(masks, truth)


def mask_losses(logits: Tensor, truth: Tensor, weight: Tensor | None, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Losses of the pixels and of the overlap of M masks with one target each: (N, M, h, w), (N, h, w) -> (N, M)."""
    each, known = truth[:, None].expand_as(logits), None if weight is None else weight[:, None]
    if options.loss == META:
        pixels = FOCAL_WEIGHT * focal(logits, each, known)
    else:
        pixels = balanced_bce(logits, each, options.balance, known)
    return pixels, dice(logits, each, known)


Compare = Callable[..., dict[str, Tensor]]  # takes what `answer_losses` takes


def answer_losses(
    answer: Answer, target: Target, options: LossOptions, *, count: float, every_mask: bool, in_clip: bool
) -> dict[str, Tensor]:
    """The parts of the loss of N answers, scalars with their weights, whose sum is minimised.

    Args:
        answer: from the model, with M masks.
        target: of the N objects. An absent one trains presence alone, and that on the frames of clips only.
        options: which loss, at which size.
        count: objects that the sums are divided by.
        every_mask: train all M masks on the target, which a network needs at first; else only the one that fits best,
            so that the others are free for other readings of the prompt. All predicted IoUs are trained.
        in_clip: whether the answers are of a frame of a clip.
    """
    logits, truth, weight = target.compared_with(answer.logits, options.full_masks)
    pixels, overlap = mask_losses(logits, truth, weight, options)
    if every_mask:
        pixels, overlap = pixels.mean(1), overlap.mean(1)
    else:
        best = (pixels + overlap).argmin(1, keepdim=True)
        pixels, overlap = (part.gather(1, best)[:, 0] for part in (pixels, overlap))
    quality = (answer.iou.float() - target_iou(logits, truth, weight)).abs().mean(1)
    here = target.present.float()
    parts = {"mask": pixels, "dice": overlap, "iou": quality}
    losses = {name: (part * here).sum() / count for name, part in parts.items()}
    if answer.presence is not None:
        entropy = F.binary_cross_entropy_with_logits(answer.presence.float()[:, 0], here, reduction="none")
        weighted = options.presence * entropy if in_clip else options.image_presence * entropy * here
        losses["presence"] = weighted.sum() / count
    return losses
