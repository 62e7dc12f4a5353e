"""transformers' SAM 2.1 under the clock: its picture model and its video model, our weights under its names."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from samplug.benchmark.runner import Job, Reply, Runner, normalised
from samplug.nn.types import PromptBatch
from samplug.variants import HieraRow

ITS_SIZE = 1024  # its video model writes this size into many places
THREE = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}  # layers of a perceptron with three
TWO = {"0": "proj_in", "1": "proj_out"}
NAMES = [  # Meta's name and transformers', the first that fits
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    (r"^image_encoder\.trunk", "vision_encoder.backbone"),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"^memory_attention\.norm", "memory_attention.layer_norm"),
    (r"^memory_encoder\.fuser", "memory_encoder.memory_fuser"),
    (r"^memory_encoder\.pix_feat_proj", "memory_encoder.feature_projection"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"\.encoder\.12\.", ".final_conv."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv", ".pointwise_conv"),
    (r"\.gamma$", ".scale"),
    (
        r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "shared_image_embedding.positional_embedding",
    ),
    (r"^sam_", ""),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
]
POINTS = "prompt_encoder.point_embeddings."


def renamed(name: str) -> str:
    """Transformers' name of a tensor."""
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    name = re.sub(r"(mlp)\.layers\.([01])", lambda found: f"{found[1]}.{TWO[found[2]]}", name)
    deep = r"(hypernetworks_mlps\.\d|prediction_head|score_head|pointer_proj)\.layers\.([012])"
    name = re.sub(deep, lambda found: f"{found[1]}.{THREE[found[2]]}", name)
    down = re.search(r"mask_downsampler\.encoder\.(\d+)", name)
    if down:  # a convolution, its norm and an activation by turns
        layer, place = divmod(int(down[1]), 3)
        name = name.replace(down[0], f"mask_downsampler.layers.{layer}.{('conv', 'layer_norm')[place]}")
    return name


def its_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's tensors under transformers' names."""
    made = {renamed(name): tensor for name, tensor in state.items()}
    points = [made.pop(f"{POINTS}{i}.weight") for i in range(4)]
    shared = made["shared_image_embedding.positional_embedding"]
    return made | {
        "prompt_encoder.point_embed.weight": torch.cat(points),
        "prompt_encoder.shared_embedding.positional_embedding": shared,
    }


def its_config(row: HieraRow) -> dict[str, Any]:
    """Its configuration of a network's sizes, the rest as it comes."""
    widths = [row.embed_dim * 2**i for i in range(len(row.stages))]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": row.embed_dim,
        "num_attention_heads": row.num_heads,
        "blocks_per_stage": list(row.stages),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [row.num_heads * 2**i for i in range(len(row.stages))],
        "window_size_per_stage": list(row.window_spec),
        "global_attention_blocks": list(row.global_att_blocks),
        "window_positional_embedding_background_size": list(row.window_pos_embed_bkg_spatial_size),
    }
    return {"vision_config": {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}}


class Transformers(Runner):
    """transformers' SAM 2.1."""

    name = "transformers"
    skips = ("everything",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from transformers import Sam2Config, Sam2Model

        self.model = self._filled(Sam2Model(Sam2Config(**its_config(self.row))))

    @property
    def row(self) -> HieraRow:
        """The sizes, which can only be those of a SAM 2."""
        assert isinstance(self.job.row, HieraRow)
        return self.job.row

    @staticmethod
    def lacks(job: Job) -> str:
        """Only SAM 2.1 at 1024: SAM 2.0's pointers and other sizes are other models there."""
        if importlib.util.find_spec("transformers") is None:
            return "not installed"
        if not isinstance(job.row, HieraRow) or not job.row.sam2_1 or job.row.d_model != 256:
            return "measured with SAM 2.1 only"
        return "" if job.size == ITS_SIZE else f"its video model knows {ITS_SIZE} pixels only"

    def _filled(self, model: Any) -> Any:
        known = model.state_dict().keys()
        model.load_state_dict({name: tensor for name, tensor in its_state(self.job.state).items() if name in known})
        return model.to(self.job.device).eval()

    @cached_property
    def follower(self) -> Any:
        """Its video model."""
        from transformers import Sam2VideoConfig, Sam2VideoModel

        return self._filled(Sam2VideoModel(Sam2VideoConfig(**its_config(self.row))))

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the picture model's encoder."""
        with self.lowered():
            self.features = self.model.get_image_embeddings(normalised(pixels))
        return self.features[-1]

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the picture model on features that are at hand."""
        assert prompts.points is not None and prompts.labels is not None
        given = {"input_points": prompts.points[None], "input_labels": prompts.labels[None]}
        with self.lowered():
            answer = self.model(image_embeddings=self.features, multimask_output=multimask, **given)
        return answer.pred_masks[0], answer.iou_scores[0], answer.object_score_logits[0]

    def follow(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the video model over a session."""
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        assert prompts.points is not None and prompts.labels is not None
        where = self.job.device
        session = Sam2VideoInferenceSession(
            video=normalised(frames),
            video_height=self.job.size,
            video_width=self.job.size,
            inference_device=where,
            inference_state_device=where,
            video_storage_device=where,
            dtype=frames.dtype,  # its default is a word, which 5.23 hands to torch as it is
        )
        for i in range(len(prompts)):
            clicks = {"point_coords": prompts.points[None, i : i + 1], "point_labels": prompts.labels[None, i : i + 1]}
            session.add_point_inputs(session.obj_id_to_idx(i), 0, clicks)
        session.obj_with_new_inputs = list(range(len(prompts)))
        for number in range(len(frames)):
            with self.lowered():
                yield self.follower(inference_session=session, frame_idx=number).pred_masks[:, 0]
