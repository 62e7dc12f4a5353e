"""SAM: a plain vision transformer (Kirillov et al., 2023, arXiv 2304.02643)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from samplug.checkpoints.families.base import Row, count_blocks, width_of
from samplug.nn.constants import FEATURE_STRIDE
from samplug.nn.decoder.mask_decoder import MaskDecoder
from samplug.nn.decoder.prompt_encoder import PromptEncoder
from samplug.nn.decoder.two_way import TwoWayTransformer
from samplug.nn.encoders.tiny_vit import TinyViT
from samplug.nn.encoders.vit import ImageEncoderViT
from samplug.nn.sam import SAMModel

VIT_PATCHES = "image_encoder.patch_embed.proj.weight"
POSITIONS = "image_encoder.pos_embed"  # (1, h, w, C)


@dataclass(frozen=True)
class ViTRow(Row):
    """A SAM; `width` is that of features, prompts and masks."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    window_size: int = 14
    mlp_ratio: float = 4.0
    width: int = 256
    architecture: ClassVar[str] = "sam_vit"
    encoder: ClassVar[str] = "ViT"
    block_counts: ClassVar[tuple[str, ...]] = ("depth",)

    def build(self) -> SAMModel:
        """The network with fresh weights."""
        encoder = ImageEncoderViT(
            img_size=self.image_size, patch_size=FEATURE_STRIDE, embed_dim=self.embed_dim, depth=self.depth,
            num_heads=self.num_heads, mlp_ratio=self.mlp_ratio, out_chans=self.width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=self.window_size,
            global_attn_indexes=self.global_attn_indexes,
        )  # fmt: skip
        return build_sam(encoder, self.image_size, self.width)

    @property
    def size(self) -> tuple[int, ...]:
        """Width and number of blocks."""
        return self.embed_dim, self.depth

    @classmethod
    def size_in(cls, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
        """Read `size` from tensors; None if they are of another family."""
        if VIT_PATCHES not in tensors:
            return None
        return width_of(tensors[VIT_PATCHES]), count_blocks(tensors, "image_encoder.blocks.")

    def changes_in(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Files that were fine-tuned for another input size have another grid of positions."""
        positions = tensors.get(POSITIONS)
        if positions is None or positions.dim() != 4 or positions.shape[1] * FEATURE_STRIDE == self.image_size:
            return {}
        return {"image_size": positions.shape[1] * FEATURE_STRIDE}


def build_sam(encoder: ImageEncoderViT | TinyViT, image_size: int, width: int = 256) -> SAMModel:
    """SAM's prompt encoder and mask decoder behind an image encoder."""
    grid = image_size // FEATURE_STRIDE
    return SAMModel(
        image_encoder=encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=8, mlp_dim=2048),
        ),
    )


SAM_ROWS = (
    ViTRow("sam_b", 768, 12, 12, (2, 5, 8, 11)),
    ViTRow("sam_l", 1024, 24, 16, (5, 11, 17, 23)),
    ViTRow("sam_h", 1280, 32, 16, (7, 15, 23, 31)),
)
