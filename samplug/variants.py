"""The networks there are: one table of their sizes, and how each is built.

A row is the whole description of a network. A `config` is a row as plain values, the form it has inside a file:
`{"variant": "sam2.1_t"}`, the same with some values changed, or every value of a network that is in no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

from torch import nn

from samplug.nn.fpn import FpnNeck, ImageEncoder
from samplug.nn.hiera import Hiera
from samplug.nn.mask_decoder import MaskDecoder
from samplug.nn.memory_attention import MemoryAttention, MemoryAttentionLayer
from samplug.nn.memory_encoder import MemoryEncoder
from samplug.nn.prompt_encoder import PromptEncoder
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.tiny_vit import TinyViT
from samplug.nn.two_way import TwoWayTransformer
from samplug.nn.vit import ImageEncoderViT

STRIDE = 16  # of the coarsest features, in every SAM
LARGEST = 8192  # of any number in a config: a damaged one must not ask for the memory of the whole machine
DEEPEST = 256  # blocks in one list
COUNTS = ("depth", "depths", "stages", "memory_layers")  # numbers of blocks


class CheckpointError(ValueError):
    """A checkpoint, or the description of a network inside one, that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class ViTRow:
    """A SAM with a plain vision transformer (arXiv 2304.02643)."""

    variant: str
    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    image_size: int = 1024
    window_size: int = 14
    mlp_ratio: float = 4.0
    width: int = 256  # of the features, prompts and masks
    architecture: ClassVar[str] = "sam_vit"

    def build(self) -> SAMModel:
        """The network with fresh weights."""
        encoder = ImageEncoderViT(
            img_size=self.image_size,
            patch_size=STRIDE,
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            out_chans=self.width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=self.window_size,
            global_attn_indexes=self.global_attn_indexes,
        )
        return _sam(encoder, self.image_size, self.width)


@dataclass(frozen=True)
class TinyViTRow:
    """A MobileSAM: the same prompts and masks on a TinyViT (arXiv 2306.14289)."""

    variant: str
    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mbconv_expand_ratio: float = 4.0
    local_conv_size: int = 3
    image_size: int = 1024
    architecture: ClassVar[str] = "mobile_sam"

    def build(self) -> SAMModel:
        """The network with fresh weights."""
        encoder = TinyViT(
            img_size=self.image_size,
            embed_dims=self.embed_dims,
            depths=self.depths,
            num_heads=self.num_heads,
            window_sizes=self.window_sizes,
            mbconv_expand_ratio=self.mbconv_expand_ratio,
            local_conv_size=self.local_conv_size,
        )
        return _sam(encoder, self.image_size, width=256)


@dataclass(frozen=True)
class HieraRow:
    """A SAM 2 (arXiv 2408.00714); `sam2_1` says whether it has what release 2.1 added for videos."""

    variant: str
    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_att_blocks: tuple[int, ...]
    window_spec: tuple[int, ...]
    window_pos_embed_bkg_spatial_size: tuple[int, int]
    image_size: int = 1024
    d_model: int = 256
    mem_dim: int = 64
    memory_layers: int = 4
    memory_feedforward: int = 2048
    num_maskmem: int = 7
    max_obj_ptrs_in_encoder: int = 16
    sam2_1: bool = True
    architecture: ClassVar[str] = "sam2"

    def build(self) -> SAM2Model:
        """The network with fresh weights."""
        layer = MemoryAttentionLayer(
            d_model=self.d_model, dim_feedforward=self.memory_feedforward, kv_in_dim=self.mem_dim
        )
        return SAM2Model(
            image_encoder=self._image_encoder(),
            memory_attention=MemoryAttention(
                d_model=self.d_model, pos_enc_at_input=True, layer=layer, num_layers=self.memory_layers
            ),
            memory_encoder=MemoryEncoder(out_dim=self.mem_dim, in_dim=self.d_model),
            num_maskmem=self.num_maskmem,
            image_size=self.image_size,
            backbone_stride=STRIDE,
            max_obj_ptrs_in_encoder=self.max_obj_ptrs_in_encoder,
            add_tpos_enc_to_obj_ptrs=self.sam2_1,
            proj_tpos_enc_in_obj_ptrs=self.sam2_1,
            use_signed_tpos_enc_to_obj_ptrs=self.sam2_1,
            no_obj_embed_spatial=self.sam2_1,
            **AS_RELEASED,
        )

    def _image_encoder(self) -> ImageEncoder:
        trunk = Hiera(
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            stages=self.stages,
            global_att_blocks=self.global_att_blocks,
            window_spec=self.window_spec,
            window_pos_embed_bkg_spatial_size=self.window_pos_embed_bkg_spatial_size,
        )
        neck = FpnNeck(
            d_model=self.d_model,
            backbone_channel_list=trunk.channel_list,
            fpn_interp_model="nearest",
            fpn_top_down_levels=[2, 3],
        )
        return ImageEncoder(trunk, neck, scalp=1)


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

Row = ViTRow | TinyViTRow | HieraRow
ROW_OF_ARCHITECTURE: dict[str, type[Row]] = {row.architecture: row for row in (ViTRow, TinyViTRow, HieraRow)}

_SAM2_1 = (
    HieraRow("sam2.1_t", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), (7, 7)),
    HieraRow("sam2.1_s", 96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), (7, 7)),
    HieraRow("sam2.1_b", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), (14, 14)),
    HieraRow("sam2.1_l", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), (7, 7)),
)
_NANO = HieraRow(
    "samplug-nano", 32, 1, (1, 2, 5, 2), (5, 7), (8, 4, 8, 4), (7, 7),
    image_size=256, d_model=128, mem_dim=32, memory_layers=2, memory_feedforward=512,
)  # fmt: skip
_ROWS: tuple[Row, ...] = (
    ViTRow("sam_b", 768, 12, 12, (2, 5, 8, 11)),
    ViTRow("sam_l", 1024, 24, 16, (5, 11, 17, 23)),
    ViTRow("sam_h", 1280, 32, 16, (7, 15, 23, 31)),
    TinyViTRow("mobile_sam"),
    *(replace(row, variant=row.variant.replace("2.1", "2"), sam2_1=False) for row in _SAM2_1),
    *_SAM2_1,
    _NANO,
)
VARIANTS: dict[str, Row] = {row.variant: row for row in _ROWS}


def build(config: Mapping[str, Any]) -> SAMModel | SAM2Model:
    """Build a network from plain values, with fresh weights.

    Args:
        config: `{"variant": name}` with a name of `VARIANTS`, other values of its row beside it where they differ; or,
            for a network of one's own, `{"variant": any name, "architecture": "sam_vit" | "mobile_sam" | "sam2"}` and
            the values of that row.

    Returns:
        The network in training mode, its `variant` set.

    Raises:
        CheckpointError: If the values describe no network.
    """
    row = row_of(config)
    try:
        model = row.build()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"The config of {row.variant!r} describes no network: {error}. It says {row}.") from error
    model.variant = row.variant
    return model


def row_of(config: Mapping[str, Any]) -> Row:
    """Read a config: the row of the table it names, with the values it changes.

    Raises:
        CheckpointError: If it names no variant, lacks a value, has one that is unknown or of another type.
    """
    variant, architecture = config.get("variant"), config.get("architecture")
    known = VARIANTS.get(variant) if isinstance(variant, str) else None
    kind = type(known) if architecture is None and known else ROW_OF_ARCHITECTURE.get(str(architecture))
    if kind is None or not isinstance(variant, str):
        raise CheckpointError(
            f"A config needs a 'variant' of {', '.join(VARIANTS)}, or a name of its own beside an 'architecture' "
            f"of {', '.join(ROW_OF_ARCHITECTURE)}; this one has variant={variant!r}, architecture={architecture!r}."
        )
    values = asdict(known) if isinstance(known, kind) else {}
    values |= {name: _plain(value) for name, value in config.items() if name != "architecture"}
    return kind(**_checked(kind, values))


def _plain(value: Any) -> Any:
    """Lists become tuples: files of JSON know only lists."""
    return tuple(value) if isinstance(value, list) else value


def _checked(kind: type[Row], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row, if all are there and each is of its type and of a sane size."""
    known = {field.name: field for field in fields(kind)}
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    unknown = [name for name in values if name not in known]
    if missing or unknown:
        raise CheckpointError(f"A config of {kind.architecture!r} lacks {missing} and must not have {unknown}.")
    for name, value in values.items():
        most = DEEPEST if name in COUNTS else LARGEST
        if not _fits(value, str(known[name].type), most):
            raise CheckpointError(f"The config's {name}={value!r:.80} should be {known[name].type}, at most {most}.")
    return values


def _fits(value: Any, type_name: str, most: int) -> bool:
    """Whether a plain value is of the type a row's field is annotated with, and not above the most."""
    if type_name.startswith("tuple"):
        return (
            isinstance(value, tuple) and 0 < len(value) <= DEEPEST and all(_fits(each, "int", most) for each in value)
        )
    if type_name == "int":
        return type(value) is int and 0 <= value <= most
    if type_name == "float":
        return type(value) in (int, float) and 0 < value <= most
    return isinstance(value, {"str": str, "bool": bool}[type_name])


def _sam(encoder: ImageEncoderViT | TinyViT, image_size: int, width: int) -> SAMModel:
    """SAM's prompt encoder and mask decoder behind an image encoder."""
    grid = image_size // STRIDE
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
