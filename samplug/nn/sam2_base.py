"""The networks, learned vectors and options of SAM 2; its methods are in `sam2`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from samplug.nn.constants import MASK_STRIDE, PIXEL_MEAN, PIXEL_STD
from samplug.nn.decoder.mask_decoder import SAM2MaskDecoder
from samplug.nn.decoder.prompt_encoder import PromptEncoder
from samplug.nn.decoder.two_way import SAM2TwoWayTransformer
from samplug.nn.encoders.fpn import ImageEncoder
from samplug.nn.memory.attention import MemoryAttention
from samplug.nn.memory.encoder import MemoryEncoder
from samplug.nn.ops.layers import MLP
from samplug.nn.ops.linear import Linear


def embedding(*shape: int) -> nn.Parameter:
    """A learned tensor, initialised as in transformers."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


class SAM2Base(nn.Module):
    """The networks of SAM 2, its learned vectors and its options."""

    stride = 32
    mask_threshold = 0.0
    variant = ""
    config: dict[str, Any] | None = None  # the plain values that `checkpoints.config.build` made it from

    def __init__(
        self, image_encoder: ImageEncoder, memory_attention: MemoryAttention, memory_encoder: MemoryEncoder,
        num_maskmem: int = 7, image_size: int = 512, backbone_stride: int = 16,
        sigmoid_scale_for_mem_enc: float = 1.0, sigmoid_bias_for_mem_enc: float = 0.0,
        binarize_mask_from_pts_for_mem_enc: bool = False, use_mask_input_as_output_without_sam: bool = False,
        max_cond_frames_in_attn: int = -1, directly_add_no_mem_embed: bool = False,
        use_high_res_features_in_sam: bool = False, multimask_output_in_sam: bool = False,
        multimask_min_pt_num: int = 1, multimask_max_pt_num: int = 1, multimask_output_for_tracking: bool = False,
        use_multimask_token_for_obj_ptr: bool = False, iou_prediction_use_sigmoid: bool = False,
        memory_temporal_stride_for_eval: int = 1, add_all_frames_to_correct_as_cond: bool = False,
        non_overlap_masks_for_mem_enc: bool = False, use_obj_ptrs_in_encoder: bool = False,
        max_obj_ptrs_in_encoder: int = 16, add_tpos_enc_to_obj_ptrs: bool = True,
        proj_tpos_enc_in_obj_ptrs: bool = False, only_obj_ptrs_in_the_past_for_eval: bool = False,
        pred_obj_scores: bool = False, pred_obj_scores_mlp: bool = False, fixed_no_obj_ptr: bool = False,
        soft_no_obj_ptr: bool = False, use_mlp_for_obj_ptr_proj: bool = False,
        sam_mask_decoder_extra_args: Mapping[str, Any] | None = None, compile_image_encoder: bool = False,
        use_signed_tpos_enc_to_obj_ptrs: bool = False, no_obj_embed_spatial: bool = False,
    ) -> None:  # fmt: skip
        """Join the networks and make the heads.

        Args:
            image_encoder: images -> maps of C channels.
            memory_attention: conditions features on memories.
            memory_encoder: features and masks -> memories of D channels.
            num_maskmem: rows of the time embedding, the last one for prompted frames; 0 switches memory off.
            image_size: default side of the input in pixels.
            backbone_stride: pixels of the input to one of the features.
            sigmoid_scale_for_mem_enc: factor of mask probabilities before they are encoded as memories.
            sigmoid_bias_for_mem_enc: added to them after that.
            binarize_mask_from_pts_for_mem_enc: encode the masks of prompted frames as 0 and 1.
            use_mask_input_as_output_without_sam: return a given mask as the output; else it is a prompt like others.
            max_cond_frames_in_attn: how many prompted frames are attended to, at least 2; -1 for all.
            directly_add_no_mem_embed: without memories, add one learned vector to the features; else attend to it.
            use_high_res_features_in_sam: give the decoder the two finer maps.
            multimask_output_in_sam: let the decoder make several masks and select the best, where the next four allow.
            multimask_min_pt_num: from so many points on; a box counts as two.
            multimask_max_pt_num: up to so many points.
            multimask_output_for_tracking: on tracked frames too.
            use_multimask_token_for_obj_ptr: make the pointer from the token of the selected mask.
            iou_prediction_use_sigmoid: keep the predicted IoU within 0 and 1.
            memory_temporal_stride_for_eval: frames between two memories that are attended to.
            add_all_frames_to_correct_as_cond: a corrected tracked frame becomes a prompted one; read by video
                predictors.
            non_overlap_masks_for_mem_enc: give every pixel to one object before masks are encoded.
            use_obj_ptrs_in_encoder: attend to pointers too.
            max_obj_ptrs_in_encoder: at so many frames at most.
            add_tpos_enc_to_obj_ptrs: give pointers a time code.
            proj_tpos_enc_in_obj_ptrs: project the time code.
            only_obj_ptrs_in_the_past_for_eval: leave out pointers of later frames.
            pred_obj_scores: predict whether the object is visible.
            pred_obj_scores_mlp: by an MLP.
            fixed_no_obj_ptr: replace the pointer of an absent object by a learned one; else add that.
            soft_no_obj_ptr: by the probability of presence; else all or nothing.
            use_mlp_for_obj_ptr_proj: make pointers by an MLP, not by one layer.
            sam_mask_decoder_extra_args: more arguments of `SAM2MaskDecoder`.
            compile_image_encoder: compile the encoder's trunk; its parameters keep their names.
            use_signed_tpos_enc_to_obj_ptrs: tell past from future in the time code.
            no_obj_embed_spatial: add a learned vector to the memory of an absent object.

        Raises:
            ValueError: an option lacks another one that it needs.
        """
        super().__init__()
        if proj_tpos_enc_in_obj_ptrs and not add_tpos_enc_to_obj_ptrs:
            raise ValueError("proj_tpos_enc_in_obj_ptrs needs add_tpos_enc_to_obj_ptrs.")
        if fixed_no_obj_ptr and not (pred_obj_scores and use_obj_ptrs_in_encoder):
            raise ValueError("fixed_no_obj_ptr needs pred_obj_scores and use_obj_ptrs_in_encoder.")
        self.num_maskmem = num_maskmem
        self.image_size = (image_size, image_size)
        self.backbone_stride = backbone_stride
        self.sigmoid_scale_for_mem_enc = sigmoid_scale_for_mem_enc
        self.sigmoid_bias_for_mem_enc = sigmoid_bias_for_mem_enc
        self.binarize_mask_from_pts_for_mem_enc = binarize_mask_from_pts_for_mem_enc
        self.use_mask_input_as_output_without_sam = use_mask_input_as_output_without_sam
        self.max_cond_frames_in_attn = max_cond_frames_in_attn
        self.directly_add_no_mem_embed = directly_add_no_mem_embed
        self.use_high_res_features_in_sam = use_high_res_features_in_sam
        self.multimask_output_in_sam = multimask_output_in_sam
        self.multimask_min_pt_num = multimask_min_pt_num
        self.multimask_max_pt_num = multimask_max_pt_num
        self.multimask_output_for_tracking = multimask_output_for_tracking
        self.memory_temporal_stride_for_eval = memory_temporal_stride_for_eval
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        self.non_overlap_masks_for_mem_enc = non_overlap_masks_for_mem_enc
        self.use_obj_ptrs_in_encoder = use_obj_ptrs_in_encoder
        self.max_obj_ptrs_in_encoder = max_obj_ptrs_in_encoder
        self.add_tpos_enc_to_obj_ptrs = add_tpos_enc_to_obj_ptrs
        self.proj_tpos_enc_in_obj_ptrs = proj_tpos_enc_in_obj_ptrs
        self.only_obj_ptrs_in_the_past_for_eval = only_obj_ptrs_in_the_past_for_eval
        self.pred_obj_scores = pred_obj_scores
        self.fixed_no_obj_ptr = fixed_no_obj_ptr
        self.soft_no_obj_ptr = soft_no_obj_ptr
        self.use_signed_tpos_enc_to_obj_ptrs = use_signed_tpos_enc_to_obj_ptrs
        self._set_networks(image_encoder, memory_attention, memory_encoder)
        self._make_decoder(
            *(iou_prediction_use_sigmoid, pred_obj_scores_mlp, use_multimask_token_for_obj_ptr),
            **(sam_mask_decoder_extra_args or {}),
        )
        self._make_embeddings(use_mlp_for_obj_ptr_proj, no_obj_embed_spatial)
        if compile_image_encoder:
            image_encoder.trunk.compile()

    def _set_networks(self, encoder: ImageEncoder, attention: MemoryAttention, memory_encoder: MemoryEncoder) -> None:
        self.image_encoder = encoder
        self.memory_attention = attention
        self.memory_encoder = memory_encoder
        self.hidden_dim = self.sam_prompt_embed_dim = encoder.neck.d_model
        self.mem_dim = getattr(memory_encoder.out_proj, "out_channels", self.hidden_dim)
        for name, values in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def _make_decoder(self, iou_sigmoid: bool, score_mlp: bool, mask_token_pointer: bool, **extra: Any) -> None:
        self.sam_prompt_encoder = PromptEncoder(
            embed_dim=self.hidden_dim,
            image_embedding_size=self.sam_image_embedding_size,
            input_image_size=self.image_size,
            mask_in_chans=16,
        )
        self.sam_mask_decoder = SAM2MaskDecoder(
            transformer_dim=self.hidden_dim,
            transformer=SAM2TwoWayTransformer(depth=2, embedding_dim=self.hidden_dim, num_heads=8, mlp_dim=2048),
            use_high_res_features=self.use_high_res_features_in_sam,
            iou_prediction_use_sigmoid=iou_sigmoid,
            pred_obj_scores=self.pred_obj_scores,
            pred_obj_scores_mlp=score_mlp,
            use_multimask_token_for_obj_ptr=mask_token_pointer,
            **extra,
        )

    def _make_embeddings(self, use_mlp_for_obj_ptr_proj: bool, no_obj_embed_spatial: bool) -> None:
        width = self.hidden_dim
        self.maskmem_tpos_enc = embedding(self.num_maskmem, 1, 1, self.mem_dim)
        self.no_mem_embed = embedding(1, 1, width)
        self.no_mem_pos_enc = embedding(1, 1, width)
        self.no_obj_embed_spatial = embedding(1, self.mem_dim) if no_obj_embed_spatial else None
        self.no_obj_ptr = embedding(1, width) if self.pred_obj_scores and self.use_obj_ptrs_in_encoder else None
        self.mask_downsample = nn.Conv2d(1, 1, MASK_STRIDE, MASK_STRIDE) if self.use_obj_ptrs_in_encoder else None
        self.obj_ptr_proj: nn.Module = nn.Identity()
        if self.use_obj_ptrs_in_encoder:
            self.obj_ptr_proj = MLP(width, width, width, 3) if use_mlp_for_obj_ptr_proj else Linear(width, width)
        self.obj_ptr_tpos_proj = Linear(width, self.mem_dim) if self.proj_tpos_enc_in_obj_ptrs else nn.Identity()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.no_mem_embed.device

    @property
    def sam_image_embedding_size(self) -> tuple[int, int]:
        """The default grid of features, (h, w)."""
        height, width = self.image_size
        return height // self.backbone_stride, width // self.backbone_stride

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Make another input size (H, W) the default; any other still works."""
        self.image_size = (imgsz[0], imgsz[1])
        self.sam_prompt_encoder.set_imgsz(self.image_size)

    def set_binarize(self, binarize: bool = False) -> None:
        """Set whether masks of prompted frames are encoded as 0 and 1 by default."""
        self.binarize_mask_from_pts_for_mem_enc = binarize
