"""transformers' SAM 2.1: its image model and its video model, our weights under its names."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from samplug.benchmark.runners.base import Job, Reply, Runner
from samplug.checkpoints.families.base import Row
from samplug.checkpoints.families.sam2 import HieraRow
from samplug.nn.structs import PromptBatch
from samplug.transforms import normalise

IMAGE_SIZE = 1024  # its video model writes this size into many places
SHARED_POSITIONS = "shared_image_embedding.positional_embedding"
PERCEPTRON = r"(hypernetworks_mlps\.\d|prediction_head|score_head|pointer_proj)\.layers"  # of three layers
NAMES = [  # Meta's names to transformers', one after another
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
    (r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", SHARED_POSITIONS),
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
    (r"mlp\.layers\.0", "mlp.proj_in"),
    (r"mlp\.layers\.1", "mlp.proj_out"),
    (rf"{PERCEPTRON}\.0", r"\1.proj_in"),
    (rf"{PERCEPTRON}\.1", r"\1.layers.0"),
    (rf"{PERCEPTRON}\.2", r"\1.proj_out"),
]
POINT_EMBEDDINGS = "prompt_encoder.point_embeddings."


def renamed(name: str) -> str:
    """Transformers' name of a tensor."""
    for official, renaming in NAMES:
        name = re.sub(official, renaming, name)
    downsampler = re.search(r"mask_downsampler\.encoder\.(\d+)", name)
    if downsampler:  # convolution, norm, activation, again and again
        layer, place = divmod(int(downsampler[1]), 3)
        name = name.replace(downsampler[0], f"mask_downsampler.layers.{layer}.{('conv', 'layer_norm')[place]}")
    return name


def transformers_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's tensors under transformers' names."""
    tensors = {renamed(name): tensor for name, tensor in state.items()}
    points = [tensors.pop(f"{POINT_EMBEDDINGS}{i}.weight") for i in range(4)]
    tensors["prompt_encoder.point_embed.weight"] = torch.cat(points)
    return tensors | {"prompt_encoder.shared_embedding.positional_embedding": tensors[SHARED_POSITIONS]}


def transformers_config(row: Row) -> dict[str, Any]:
    """Its configuration of a SAM 2's sizes; the rest are its defaults."""
    assert isinstance(row, HieraRow)
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

    name = package = "transformers"
    skips = ("everything",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from transformers import Sam2Config, Sam2Model

        self.model = self._loaded(Sam2Model(Sam2Config(**transformers_config(self.job.row))))

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Only SAM 2.1 at 1024 is there: SAM 2.0's pointers and other sizes are other models."""
        if not isinstance(job.row, HieraRow) or not job.row.sam2_1 or job.row.d_model != 256:
            return "measured with SAM 2.1 only"
        return "" if job.size == IMAGE_SIZE else f"its video model knows {IMAGE_SIZE} pixels only"

    def _loaded(self, model: Any) -> Any:
        state = transformers_state(self.job.weights)
        model.load_state_dict({name: state[name] for name in model.state_dict() if name in state})
        return model.to(self.job.device).eval()

    @cached_property
    def video_model(self) -> Any:
        """Its video model."""
        from transformers import Sam2VideoConfig, Sam2VideoModel

        return self._loaded(Sam2VideoModel(Sam2VideoConfig(**transformers_config(self.job.row))))

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the image model's encoder."""
        with self.autocast():
            self.features = self.model.get_image_embeddings(normalise(pixels))
        return self.features[-1]

    def answer(self, prompts: PromptBatch, multimask: bool) -> Reply:
        """Run the image model on these features."""
        assert prompts.points is not None and prompts.labels is not None
        given = {"input_points": prompts.points[None], "input_labels": prompts.labels[None]}
        with self.autocast():
            answer = self.model(image_embeddings=self.features, multimask_output=multimask, **given)
        return answer.pred_masks[0], answer.iou_scores[0], answer.object_score_logits[0]

    def track(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the video model over a session."""
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        assert prompts.points is not None and prompts.labels is not None
        device = self.job.device
        where = dict.fromkeys(("inference_device", "inference_state_device", "video_storage_device"), device)
        given: dict[str, Any] = {**where, "video_height": self.job.size, "video_width": self.job.size}
        # the default of its dtype is a string, which 5.23 passes to torch unchanged
        session = Sam2VideoInferenceSession(video=normalise(frames), dtype=frames.dtype, **given)
        for i in range(len(prompts)):
            clicks = {"point_coords": prompts.points[None, i : i + 1], "point_labels": prompts.labels[None, i : i + 1]}
            session.add_point_inputs(session.obj_id_to_idx(i), 0, clicks)
        session.obj_with_new_inputs = list(range(len(prompts)))
        for number in range(len(frames)):
            with self.autocast():
                yield self.video_model(inference_session=session, frame_idx=number).pred_masks[:, 0]
