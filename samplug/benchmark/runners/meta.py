"""Meta's packages `sam2` and `segment-anything`. Their networks are built from our tables of sizes."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from samplug.benchmark.runners.base import Job, SAM2Modules, SAMModules, as_bytes
from samplug.checkpoints.families.sam import ViTRow
from samplug.checkpoints.families.sam2 import AS_RELEASED, HieraRow
from samplug.nn.structs import PromptBatch
from samplug.predict.auto.generator import GenerateOptions
from samplug.transforms import normalise

SAM_SIZE = 1024  # segment-anything's positions are of this size, and it does not resize them
HIERA_OPTIONS = (
    *("embed_dim", "num_heads", "stages", "global_att_blocks", "window_spec"),
    "window_pos_embed_bkg_spatial_size",
)
SAM_2_1_OPTIONS = (  # of the video predictor, on since release 2.1
    *("proj_tpos_enc_in_obj_ptrs", "use_signed_tpos_enc_to_obj_ptrs", "no_obj_embed_spatial"),
    "add_tpos_enc_to_obj_ptrs",
)


def sam2_modules(row: HieraRow) -> dict[str, nn.Module]:
    """The three large parts of a SAM 2 out of Meta's modules, with fresh weights."""
    from sam2.modeling import memory_attention as attention
    from sam2.modeling import memory_encoder as memory
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine as Sine
    from sam2.modeling.sam.transformer import RoPEAttention as Rotary

    trunk = Hiera(**{name: getattr(row, name) for name in HIERA_OPTIONS})
    width, slim = row.d_model, row.mem_dim
    neck = FpnNeck(Sine(width), width, trunk.channel_list, fpn_top_down_levels=[2, 3], fpn_interp_model="nearest")
    own = Rotary(embedding_dim=width, num_heads=1)
    cross = Rotary(embedding_dim=width, num_heads=1, kv_in_dim=slim, rope_k_repeat=True)
    layer = attention.MemoryAttentionLayer(
        activation="relu",
        cross_attention=cross,
        d_model=width,
        dim_feedforward=row.memory_feedforward,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=own,
    )
    down, fuser = memory.MaskDownSampler(width, 3, 2, 1), memory.Fuser(memory.CXBlock(width), 2)
    return {
        "image_encoder": ImageEncoder(trunk, neck, scalp=1),
        "memory_attention": attention.MemoryAttention(width, True, layer, row.memory_layers),
        "memory_encoder": memory.MemoryEncoder(slim, down, fuser, Sine(slim), width),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings: these packages call what newer releases of torch have deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class SAM2(SAM2Modules):
    """sam2's video predictor, which is its image model too."""

    name = package = "sam2"
    kind = "SAM2VideoPredictor"
    compiled = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        assert isinstance(job.row, HieraRow)
        release = dict.fromkeys(SAM_2_1_OPTIONS, job.row.sam2_1)
        options = AS_RELEASED | release | {"binarize_mask_from_pts_for_mem_enc": True}
        with quiet():
            self.module = importlib.import_module("sam2.sam2_video_predictor")
            self.model = getattr(self.module, self.kind)(
                **sam2_modules(job.row), **options, image_size=job.size, compile_image_encoder=self.compiled
            )
        self.model.load_state_dict(job.weights, strict=True)
        self.model.to(job.device).eval()

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Only SAM 2 networks are there."""
        return "" if job.has_memory else "has no SAM"

    def generate(self, pixels: Tensor, options: GenerateOptions) -> Tensor:
        """Run its mask generator."""
        with quiet():
            from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

            generator = SAM2AutomaticMaskGenerator(self.model, **options_of(options))
            generator.predictor._bb_feat_sizes = [(self.job.size // stride,) * 2 for stride in (4, 8, 16)]
            with self.autocast():
                return masks_of(generator.generate(as_bytes(pixels)), pixels)

    def track(self, frames: Tensor, prompts: PromptBatch) -> Iterator[Tensor]:
        """Run the video predictor, its reader of files and its progress bar replaced."""
        assert prompts.points is not None and prompts.labels is not None
        size = self.job.size
        ready = normalise(frames)
        with self.autocast(), patch.object(self.module, "load_video_frames", lambda **_: (ready, size, size)):
            state = self.model.init_state("")
            for i in range(len(prompts)):
                self.model.add_new_points_or_box(state, 0, i, prompts.points[i], prompts.labels[i])
        with patch.object(self.module, "tqdm", lambda frames, **_: frames):
            steps = self.model.propagate_in_video(state)
            for _ in frames:
                with self.autocast():
                    number, ids, _ = next(steps)
                yield torch.cat([self._logits(state, number, each) for each in range(len(ids))])

    @staticmethod
    def _logits(state: dict[str, Any], number: int, index: int) -> Tensor:
        outputs = state["output_dict_per_obj"][index]
        record = outputs["cond_frame_outputs"].get(number) or outputs["non_cond_frame_outputs"][number]
        return record["pred_masks"][:, 0]


class VOSOptimized(SAM2):
    """sam2's own compiled form of its video predictor."""

    name = "vos_optimized"
    skips = ("encoder", "decoder", "everything")
    kind = "SAM2VideoPredictorVOS"
    compiled = True

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Only SAM 2 networks on a GPU are there."""
        return super().unsupported(job) or ("" if job.device.type == "cuda" else "needs a GPU")


def options_of(options: GenerateOptions) -> dict[str, Any]:
    """Options under the names of both generators."""
    return {
        "points_per_side": options.points_stride,
        "pred_iou_thresh": options.conf_thres,
        "stability_score_thresh": options.stability_score_thresh,
        "stability_score_offset": options.stability_score_offset,
        "box_nms_thresh": options.iou,
    }


def masks_of(found: list[dict[str, Any]], pixels: Tensor) -> Tensor:
    """The masks (N, S, S) that a generator found."""
    size = pixels.shape[-1]
    masks = np.stack([each["segmentation"] for each in found]) if found else np.zeros((0, size, size), bool)
    return torch.from_numpy(masks).to(pixels.device)


class SegmentAnything(SAMModules):
    """segment-anything's model, which knows one size."""

    name = "segment-anything"
    package = "segment_anything"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        from segment_anything import sam_model_registry

        self.model = sam_model_registry[job.row.variant.replace("sam", "vit")]()
        self.model.load_state_dict(job.weights, strict=True)
        self.model.to(job.device).eval()

    def generate(self, pixels: Tensor, options: GenerateOptions) -> Tensor:
        """Run its mask generator."""
        from segment_anything import SamAutomaticMaskGenerator

        with self.autocast(), quiet():
            generator = SamAutomaticMaskGenerator(self.model, **options_of(options))
            return masks_of(generator.generate(as_bytes(pixels)), pixels)

    @classmethod
    def unsupported(cls, job: Job) -> str:
        """Only SAM's own networks at 1024 are there."""
        if not isinstance(job.row, ViTRow):
            return "has SAM only"
        return "" if job.size == SAM_SIZE else f"knows {SAM_SIZE} pixels only"
