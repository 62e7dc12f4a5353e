"""MobileSAM: SAM's prompts and masks on a TinyViT (Zhang et al., 2023, arXiv 2306.14289)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplug.checkpoints.families.base import Row
from samplug.checkpoints.families.sam import build_sam
from samplug.nn.encoders.tiny_vit import TinyViT
from samplug.nn.sam import SAMModel

UNUSED_CLASSIFIER = tuple(  # that the encoder was once distilled as
    f"image_encoder.{layer}.{kind}" for layer in ("norm_head", "head") for kind in ("weight", "bias")
)
TINY_VIT = ("image_encoder.patch_embed.seq.", "image_encoder.layers.")


@dataclass(frozen=True)
class TinyViTRow(Row):
    """A MobileSAM."""

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mbconv_expand_ratio: float = 4.0
    local_conv_size: int = 3
    architecture: ClassVar[str] = "mobile_sam"
    encoder: ClassVar[str] = "TinyViT"
    block_counts: ClassVar[tuple[str, ...]] = ("depths",)
    unused: ClassVar[tuple[str, ...]] = UNUSED_CLASSIFIER

    def build(self) -> SAMModel:
        """The network with fresh weights."""
        encoder = TinyViT(
            img_size=self.image_size, embed_dims=self.embed_dims, depths=self.depths, num_heads=self.num_heads,
            window_sizes=self.window_sizes, mbconv_expand_ratio=self.mbconv_expand_ratio,
            local_conv_size=self.local_conv_size,
        )  # fmt: skip
        return build_sam(encoder, self.image_size)

    @classmethod
    def size_in(cls, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
        """There is one size."""
        return () if any(name.startswith(TINY_VIT) for name in tensors) else None


MOBILE_SAM_ROWS = (TinyViTRow("mobile_sam"),)
