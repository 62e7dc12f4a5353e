"""SAM 2 and SAM 2.1: a Hiera encoder and a memory of video frames (Ravi et al., 2024, arXiv 2408.00714)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from samplug.checkpoints.families.base import Row, count_blocks, width_of
from samplug.nn.constants import FEATURE_STRIDE
from samplug.nn.encoders.fpn import FpnNeck, ImageEncoder
from samplug.nn.encoders.hiera import Hiera
from samplug.nn.memory.attention import MemoryAttention, MemoryAttentionLayer
from samplug.nn.memory.encoder import MemoryEncoder
from samplug.nn.sam2 import SAM2Model

HIERA_PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
SINCE_2_1 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight")


@dataclass(frozen=True)
class HieraRow(Row):
    """A SAM 2.

    `sam2_1` is whether it has what release 2.1 added for videos; `mask_prompts`, whether it has learnt to answer a mask
    that is the only prompt of an image: if not, and it says that it is unsure, the mask itself is the answer.
    """

    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_att_blocks: tuple[int, ...]
    window_spec: tuple[int, ...]
    window_pos_embed_bkg_spatial_size: tuple[int, int]
    d_model: int = 256
    mem_dim: int = 64
    memory_layers: int = 4
    memory_feedforward: int = 2048
    num_maskmem: int = 7
    max_obj_ptrs_in_encoder: int = 16
    sam2_1: bool = True
    mask_prompts: bool = True
    architecture: ClassVar[str] = "sam2"
    encoder: ClassVar[str] = "Hiera"
    block_counts: ClassVar[tuple[str, ...]] = ("stages", "memory_layers")

    def build(self) -> SAM2Model:
        """The network with fresh weights."""
        width = self.d_model
        layer = MemoryAttentionLayer(width, self.memory_feedforward, kv_in_dim=self.mem_dim)
        return SAM2Model(
            image_encoder=self._image_encoder(),
            memory_attention=MemoryAttention(width, pos_enc_at_input=True, layer=layer, num_layers=self.memory_layers),
            memory_encoder=MemoryEncoder(out_dim=self.mem_dim, in_dim=width),
            num_maskmem=self.num_maskmem,
            image_size=self.image_size,
            backbone_stride=FEATURE_STRIDE,
            max_obj_ptrs_in_encoder=self.max_obj_ptrs_in_encoder,
            add_tpos_enc_to_obj_ptrs=self.sam2_1,
            proj_tpos_enc_in_obj_ptrs=self.sam2_1,
            use_signed_tpos_enc_to_obj_ptrs=self.sam2_1,
            no_obj_embed_spatial=self.sam2_1,
            **AS_RELEASED,
        )

    def _image_encoder(self) -> ImageEncoder:
        trunk = Hiera(
            embed_dim=self.embed_dim, num_heads=self.num_heads, stages=self.stages,
            global_att_blocks=self.global_att_blocks, window_spec=self.window_spec,
            window_pos_embed_bkg_spatial_size=self.window_pos_embed_bkg_spatial_size,
        )  # fmt: skip
        neck = FpnNeck(
            d_model=self.d_model,
            backbone_channel_list=trunk.channel_list,
            fpn_interp_model="nearest",
            fpn_top_down_levels=[2, 3],
        )
        return ImageEncoder(trunk, neck, scalp=1)

    @property
    def size(self) -> tuple[int, ...]:
        """Width, number of blocks and release."""
        return self.embed_dim, sum(self.stages), self.sam2_1

    @classmethod
    def size_in(cls, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
        """Read `size` from tensors; None if they are of another family."""
        if HIERA_PATCHES not in tensors:
            return None
        depth = count_blocks(tensors, "image_encoder.trunk.blocks.")
        return width_of(tensors[HIERA_PATCHES]), depth, any(name in tensors for name in SINCE_2_1)


AS_RELEASED: dict[str, Any] = {  # options that all released SAM 2 checkpoints were trained with
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "use_mlp_for_obj_ptr_proj": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}

_SAM2_1 = (
    HieraRow("sam2.1_t", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), (7, 7)),
    HieraRow("sam2.1_s", 96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), (7, 7)),
    HieraRow("sam2.1_b", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), (14, 14)),
    HieraRow("sam2.1_l", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), (7, 7)),
)
_NANO = HieraRow(
    "samplug-nano", 32, 1, (1, 2, 5, 2), (5, 7), (8, 4, 8, 4), (7, 7),
    image_size=256, d_model=128, mem_dim=32, memory_layers=2, memory_feedforward=512,
    mask_prompts=False,
)  # fmt: skip
SAM2_ROWS = (
    *(replace(row, variant=row.variant.replace("2.1", "2"), sam2_1=False) for row in _SAM2_1),
    *_SAM2_1,
    _NANO,
)
