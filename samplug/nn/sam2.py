"""SAM 2 (arXiv 2408.00714): images as in SAM, and videos through a memory of every object.

F frames, N objects or prompts, C channels, D memory channels, (h, w) the grid of features, L = h * w; the input is
(16h, 16w), the decoder's masks are (4h, 4w). `image_index` (N,) is the index of each object's frame.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from samplug.nn.constants import ABSENT_LOGIT, DEFAULT_PRESENCE_LOGIT
from samplug.nn.inputs import (
    add_padding_point,
    mask_to_logits,
    non_overlapping_per_frame,
    points_and_corners,
    resize_mask_prompt,
    resize_to_input,
)
from samplug.nn.memory.frames import FrameOutput, MemoryContext, MemoryTokens
from samplug.nn.memory.selection import MemorySelection, select_memories
from samplug.nn.ops.positions import sine_encoding, sine_positions
from samplug.nn.sam2_base import SAM2Base
from samplug.nn.structs import Answer, Features, KeepPrompt, PreparedFeatures, PromptBatch
from samplug.nn.track_step import Outputs, features_of, memory_context_of, outputs_of, prompts_of


def expand_to(features: Features, image_index: Tensor) -> Features:
    """Features of each object's frame; one frame's are expanded, not copied."""
    if len(features) > 1:
        return features[image_index]
    return features.apply(lambda x: x.expand(len(image_index), *x.shape[1:]))


class SAM2Model(SAM2Base):
    """SAM 2 as functions of tensors: the caller keeps the memories."""

    def forward(self, *_: Any) -> None:
        """Raise NotImplementedError: images and prompts come at different times."""
        raise NotImplementedError(
            "SAM2Model has no single forward: call encode and answer for images, track_step for videos."
        )

    # Images

    def encode(self, images: Tensor) -> Features:
        """Encode images (F, 3, 16h, 16w), normalised, for prompts without memory."""
        return self.without_memory(self.encode_image(images))

    def encode_image(self, images: Tensor) -> Features:
        """Encode images (F, 3, 16h, 16w), normalised, before any memory: the same for all objects."""
        maps = self._maps(images)
        return Features(maps[-1], tuple(maps[-3:-1]) if self.use_high_res_features_in_sam else ())

    def forward_image(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Encode images (F, 3, 16h, 16w), normalised.

        Returns:
            The encoder's maps (`backbone_fpn`, fine to coarse), the two finer ones projected for the mask decoder where
            it uses them; their positions (`vision_pos_enc`); and the last map (`vision_features`).
        """
        maps = self._maps(images)
        positions = [
            sine_positions((x.shape[2], x.shape[3]), self.hidden_dim, x).expand(len(x), -1, -1, -1) for x in maps
        ]
        return {"vision_features": maps[-1], "vision_pos_enc": positions, "backbone_fpn": maps}

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps, fine to coarse, the two finer ones projected for the mask decoder if it uses them."""
        decoder = self.sam_mask_decoder
        heads = (decoder.conv_s0, decoder.conv_s1) if self.use_high_res_features_in_sam else ()
        return self.image_encoder(images, heads, positions=False)["backbone_fpn"]

    def answer(
        self, features: Features, prompts: PromptBatch, multimask: bool = False, keep_prompt: KeepPrompt | None = None
    ) -> Answer:
        """Answer N prompts.

        Args:
            features: of F images, from `encode`, `without_memory` or `condition_on_memory`.
            prompts: their `image_index` refers to `features`.
            multimask: several masks a prompt, instead of one.
            keep_prompt: predicted IoUs (N, M) -> (N,) bool, which prompts to answer; others may be left out.

        Returns:
            Masks, their predicted IoUs and tokens, and the objects' presence.
        """
        features = features.to(self.sam_prompt_encoder.no_mask_embed.weight.dtype)
        sparse, dense = self.sam_prompt_encoder(points_and_corners(prompts), None, prompts.masks, grid=features.grid)
        return self.sam_mask_decoder(
            *(features.image, self.sam_prompt_encoder.get_dense_pe(features.grid), sparse, dense, multimask),
            high_res_features=features.fine,
            image_index=prompts.image_index,
            keep_prompt=keep_prompt,
        )

    # Videos

    def without_memory(self, features: Features, positions: Tensor | None = None) -> Features:
        """Features of F frames for objects that have no memory yet: one object a frame."""
        if not self.num_maskmem:
            return features
        if self.directly_add_no_mem_embed:
            return Features(features.image + self.no_mem_embed.view(1, -1, 1, 1), features.fine)
        tokens, token_positions = (
            x.view(1, -1, self.mem_dim).expand(len(features), -1, -1) for x in (self.no_mem_embed, self.no_mem_pos_enc)
        )
        memory = MemoryTokens(tokens, token_positions, num_obj_ptr_tokens=tokens.shape[1])
        return self._condition(features, memory, positions=positions)

    def select_memories(
        self, frame: int, prompted: Collection[int], tracked: Collection[int], num_frames: int | None = None,
        reverse: bool = False,
    ) -> MemorySelection:  # fmt: skip
        """Select by the reference rule under this model's options; see `selection.select_memories`."""
        return select_memories(
            frame,
            prompted,
            tracked,
            num_frames=num_frames,
            num_maskmem=self.num_maskmem,
            max_prompted=self.max_cond_frames_in_attn,
            max_pointers=self.max_obj_ptrs_in_encoder,
            stride=1 if self.training else self.memory_temporal_stride_for_eval,
            reverse=reverse,
            past_pointers_only=self.only_obj_ptrs_in_the_past_for_eval and not self.training,
        )

    def prepare(self, features: Features) -> Features:
        """Do once a frame the part of `condition_on_memory` that is the same for all objects."""
        if not self.num_maskmem:
            return features
        tokens = self.memory_attention.prepare(*self._tokens(features), features.grid)
        return PreparedFeatures(features.image, features.fine, tokens=tokens)

    def condition_on_memory(
        self, features: Features, context: MemoryContext, image_index: Tensor, positions: Tensor | None = None
    ) -> Features:
        """Condition frames on the memories of N objects.

        Args:
            features: of F frames, from `encode_image` or `prepare`.
            context: of N objects.
            image_index: (N,) the index of each object's frame.
            positions: of the features, (F, L, C); None for those of the grid.

        Returns:
            Features of N "images", one an object: prompts for them have the image_index 0 … N - 1.
        """
        if not self.num_maskmem:
            return expand_to(features, image_index)
        memory = self.memory_tokens(context.to(features.image), features.grid)
        return self._condition(features, memory, image_index, positions)

    def memory_tokens(self, context: MemoryContext, grid: tuple[int, int]) -> MemoryTokens:
        """Memories and pointers as the memory attention reads them."""
        positions = sine_positions(grid, self.mem_dim, context.memories).flatten(2).mT
        positions = positions + self.maskmem_tpos_enc.flatten(1)[context.slots][:, :, None]  # (N, M, L, D)
        tokens, positions = context.memories.flatten(1, 2), positions.flatten(1, 2)
        if not self.use_obj_ptrs_in_encoder:
            return MemoryTokens(tokens, positions, 0)
        pointers = context.pointers.unflatten(2, (-1, self.mem_dim))  # (N, P, C / D, D)
        codes = self._time_codes(context.times).to(pointers.dtype)[:, :, None].expand_as(pointers)
        pointers, codes = pointers.flatten(1, 2), codes.flatten(1, 2)
        tokens, positions = torch.cat([tokens, pointers], dim=1), torch.cat([positions, codes], dim=1)
        return MemoryTokens(tokens, positions, pointers.shape[1])

    def segment(self, features: Features, prompts: PromptBatch, prompted: bool) -> FrameOutput:
        """Segment N objects on conditioned features: `select_mask(predict_masks(...))`."""
        return self.select_mask(self.predict_masks(features, prompts, prompted))

    def predict_masks(self, features: Features, prompts: PromptBatch, prompted: bool) -> Answer:
        """Segment N objects on conditioned features, with as many masks each as the options allow.

        Args:
            features: from `without_memory` or `condition_on_memory`.
            prompts: clicks, boxes, logits of a mask, or nothing on a tracked frame.
            prompted: whether the frame is an object's first prompted one, not tracked.
        """
        count = 0 if prompts.labels is None else prompts.labels.shape[1]
        count += 0 if prompts.boxes is None else 2
        allowed = self.multimask_output_in_sam and (prompted or self.multimask_output_for_tracking)
        multimask = allowed and self.multimask_min_pt_num <= count <= self.multimask_max_pt_num
        return self.answer(features, add_padding_point(prompts), multimask)

    def select_mask(self, answer: Answer, choice: Tensor | None = None, present_above: float = 0.0) -> FrameOutput:
        """Select one mask of each object and make its pointer.

        Args:
            answer: M masks of N objects.
            choice: (N,) the index of each object's mask; None for the one with the largest predicted IoU.
            present_above: an object whose presence is not above this is absent.

        Returns:
            The objects' output, without a memory; the mask of an absent one is empty.
        """
        rows = torch.arange(len(answer), device=answer.iou.device)
        choice = answer.iou.argmax(dim=1) if choice is None else choice
        presence = answer.presence
        if presence is None:
            presence = answer.iou.new_full((len(answer), 1), DEFAULT_PRESENCE_LOGIT)
        logits = answer.logits[rows, choice].float()
        if self.pred_obj_scores:
            logits = torch.where(presence[..., None] > present_above, logits, ABSENT_LOGIT)
        tokens = answer.tokens[rows, choice] if answer.tokens.shape[1] > 1 else answer.tokens[:, 0]
        visible = presence.sigmoid() if self.soft_no_obj_ptr else (presence > present_above).to(tokens.dtype)
        pointer = self._mix_absent_pointer(self.obj_ptr_proj(tokens), visible)
        return FrameOutput(logits, pointer, presence[:, 0], answer.iou[rows, choice])

    def use_mask_as_output(self, features: Features, masks: Tensor, image_index: Tensor) -> FrameOutput:
        """Take given masks as the output.

        Args:
            features: of F frames, from `encode_image`.
            masks: (N, 1, 16h, 16w), 1 on the object and 0 off it.
            image_index: (N,) the index of each object's frame.

        Returns:
            The objects' output, without a memory; an object with an empty mask is absent.
        """
        masks = masks.float()
        logits = resize_mask_prompt(mask_to_logits(masks), features.grid)[:, 0]
        visible = masks.flatten(1).gt(0).any(dim=1, keepdim=True).float()
        if self.mask_downsample is None:
            pointer = features.image.new_zeros(len(masks), self.hidden_dim)
        else:
            prompts = PromptBatch(image_index, masks=self.mask_downsample(masks.to(features.image.dtype)))
            pointer = self.select_mask(self.answer(features, add_padding_point(prompts))).pointer
            pointer = self._mix_absent_pointer(pointer, visible.to(pointer.dtype))
        return FrameOutput(logits, pointer, mask_to_logits(visible)[:, 0], torch.ones_like(visible[:, 0]))

    def encode_memory(
        self, features: Features, logits: Tensor, presence: Tensor, image_index: Tensor, prompted: bool,
        binarize: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Encode the memories of N objects.

        Args:
            features: of F frames, from `encode_image`.
            logits: of the objects' masks, (N, 4h, 4w) or (N, 16h, 16w).
            presence: (N,) logit, above 0 where an object is present.
            image_index: (N,) the index of each object's frame.
            prompted: whether the user prompted this frame.
            binarize: encode a prompted frame's masks as 0 and 1; None for the default, see `set_binarize`.

        Returns:
            (N, L, D).
        """
        binarize = self.binarize_mask_from_pts_for_mem_enc if binarize is None else binarize
        masks = resize_to_input(logits[:, None].float(), features.grid)  # (N, 1, 16h, 16w)
        masks = self._non_overlapping(masks, image_index)
        masks = masks.gt(0).float() if binarize and prompted and not self.training else masks.sigmoid()
        masks = masks * self.sigmoid_scale_for_mem_enc + self.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder.encode(features.image, masks.to(features.image.dtype), image_index).flatten(2).mT
        if self.no_obj_embed_spatial is None:
            return memory
        absent = (presence <= 0).to(memory.dtype).view(-1, 1, 1)
        return memory + absent * self.no_obj_embed_spatial

    def track_step(
        self, frame_idx: int, is_init_cond_frame: bool, current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor], feat_sizes: Sequence[tuple[int, int]],
        point_inputs: Mapping[str, Tensor] | None, mask_inputs: Tensor | None, output_dict: Mapping[str, Outputs],
        num_frames: int | None, track_in_reverse: bool = False, run_mem_encoder: bool = True,
        prev_sam_mask_logits: Tensor | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Segment N objects of one frame and encode their memories, in the form of the original.

        Args:
            frame_idx: number of the frame.
            is_init_cond_frame: whether this is the objects' first prompted frame: they have no memory.
            current_vision_feats: maps of `forward_image` as tokens (L, N, C), fine to coarse.
            current_vision_pos_embeds: their positions, likewise.
            feat_sizes: their sizes (h, w).
            point_inputs: `point_coords` (N, P, 2) in pixels of the input and `point_labels` (N, P).
            mask_inputs: masks (N, 1, 16h, 16w), from 0 to 1.
            output_dict: the results of other frames by number, in `cond_frame_outputs` (prompted frames) and
                `non_cond_frame_outputs` (tracked ones).
            num_frames: length of the video; None for a stream.
            track_in_reverse: whether the video is walked from its end to its start.
            run_mem_encoder: encode the memories.
            prev_sam_mask_logits: logits (N, 1, 4h, 4w) of the masks that the points correct.

        Returns:
            `point_inputs` and `mask_inputs` as given, `pred_masks` (N, 1, 4h, 4w), `pred_masks_high_res`
            (N, 1, 16h, 16w), `obj_ptr` (N, C), `object_score_logits` (N, 1), `maskmem_features` (N, D, h, w) and
            `maskmem_pos_enc`, a list with their positions; these two are None without memories.

        Raises:
            ValueError: previous logits without points, or together with a mask.
        """
        if prev_sam_mask_logits is not None and (point_inputs is None or mask_inputs is not None):
            raise ValueError("prev_sam_mask_logits need point_inputs that correct them, and exclude mask_inputs.")
        levels = 3 if self.use_high_res_features_in_sam else 1
        features = features_of(current_vision_feats[-levels:], feat_sizes[-levels:])
        image_index = torch.arange(len(features), device=features.image.device)
        if mask_inputs is not None and self.use_mask_input_as_output_without_sam:
            output = self.use_mask_as_output(features, mask_inputs, image_index)
            logits = mask_to_logits(mask_inputs.float())
        else:
            positions = current_vision_pos_embeds[-1].transpose(0, 1)
            if is_init_cond_frame or not self.num_maskmem:
                conditioned = self.without_memory(features, positions)
            else:
                prompted, tracked = output_dict["cond_frame_outputs"], output_dict["non_cond_frame_outputs"]
                selection = self.select_memories(frame_idx, prompted, tracked, num_frames, track_in_reverse)
                context = memory_context_of(selection, prompted, tracked)
                conditioned = self.condition_on_memory(features, context, image_index, positions)
            masks = mask_inputs if prev_sam_mask_logits is None else prev_sam_mask_logits
            prompts = prompts_of(image_index, point_inputs, masks, features.grid)
            output = self.segment(conditioned, prompts, is_init_cond_frame)
            logits = resize_to_input(output.logits[:, None], features.grid)
        if run_mem_encoder and self.num_maskmem:
            masks = self._non_overlapping(logits, torch.zeros_like(image_index))[:, 0]
            is_prompted = point_inputs is not None
            memory = self.encode_memory(features, masks, output.presence, image_index, prompted=is_prompted)
            output = replace(output, memory=memory)
        given = {"point_inputs": point_inputs, "mask_inputs": mask_inputs}
        return given | outputs_of(output, logits, features.grid)

    def _non_overlapping(self, logits: Tensor, image_index: Tensor) -> Tensor:
        """Logits (N, 1, H, W), each pixel left to one object of its frame if the options ask for it."""
        if not self.non_overlap_masks_for_mem_enc or self.training:
            return logits
        return non_overlapping_per_frame(logits, image_index)

    def _condition(
        self, features: Features, memory: MemoryTokens, image_index: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Features:  # fmt: skip
        """Memory attention of frames (F, C, h, w) to the memories of N objects: (N, C, h, w)."""
        tokens, positions = self._tokens(features, positions)
        arguments = (memory.tokens, memory.positions, features.grid, memory.num_obj_ptr_tokens, image_index)
        if isinstance(features, PreparedFeatures):
            tokens = self.memory_attention.attend_to_memory(features.tokens, positions, *arguments)
        else:
            tokens = self.memory_attention.condition(tokens, positions, *arguments)
        fine = features.fine if image_index is None else expand_to(features, image_index).fine
        return Features(tokens.mT.unflatten(2, features.grid), fine)

    def _tokens(self, features: Features, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames as tokens (F, L, C), and their positions; those of the grid where none are given."""
        tokens = features.image.flatten(2).mT
        if positions is None:
            positions = sine_positions(features.grid, self.hidden_dim, tokens).flatten(2).mT
        return tokens, positions

    def _time_codes(self, times: Tensor) -> Tensor:
        """Codes of how far back pointers lie: (N, P) -> (N, P, D)."""
        if not self.add_tpos_enc_to_obj_ptrs:
            return times.new_zeros(*times.shape, self.mem_dim)
        times = times if self.use_signed_tpos_enc_to_obj_ptrs else times.abs()
        width = self.hidden_dim if self.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        return self.obj_ptr_tpos_proj(sine_encoding(times, width).to(self.no_mem_embed.dtype))

    def _mix_absent_pointer(self, pointer: Tensor, visible: Tensor) -> Tensor:
        """Pointers (N, C) of objects that are visible with a probability (N, 1)."""
        if self.no_obj_ptr is None:
            return pointer
        kept = visible * pointer if self.fixed_no_obj_ptr else pointer
        return kept + (1 - visible) * self.no_obj_ptr
