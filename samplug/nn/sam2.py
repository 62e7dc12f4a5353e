"""SAM 2: pictures as SAM does them, and videos through a memory of every object (Ravi et al., 2024, arXiv 2408.00714).

F frames, N objects or prompts, C channels, D memory channels, (h, w) the grid of features, L = h·w; the input is
(16h, 16w), masks in the network are (4h, 4w). `owner` (N,) is the index of each object's frame.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.fpn import positions_of
from samplug.nn.frames import FrameOutput, Past
from samplug.nn.inputs import as_logits, clicks, enlarged, one_owner, padded
from samplug.nn.layers import sine_codes, sine_positions
from samplug.nn.recall import Recall, recall
from samplug.nn.sam2_parts import SAM2Parts
from samplug.nn.track_step import Outputs, features_of, outputs_of, past_of, prompts_of
from samplug.nn.types import Answer, Features, PromptBatch, Worth

ABSENT_LOGIT = -1024.0  # every pixel of the mask of an object that is not there
CERTAIN_PRESENCE = 10.0  # the presence where nobody predicts it


def spread(features: Features, owner: Tensor) -> Features:
    """Features of each object's frame; one frame's are expanded, not copied."""
    if len(features) > 1:
        return features[owner]
    maps = [level.expand(len(owner), -1, -1, -1) for level in (features.image, *features.fine)]
    return Features(maps[0], tuple(maps[1:]))


@dataclass(frozen=True, eq=False)
class Begun(Features):
    """Features of frames with what `SAM2Model.begin` did to them; a part of them has to begin anew.

    Attributes:
        tokens: (F, L, C).
    """

    tokens: Tensor = field(kw_only=True)


class SAM2Model(SAM2Parts):
    """The arithmetic of SAM 2: a function of tensors, whose memories the caller keeps."""

    def forward(self, *_: Any) -> None:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "SAM2Model has no single forward: call encode and answer for pictures, track_step for videos."
        )

    # Pictures

    def encode(self, images: Tensor) -> Features:
        """Encode pictures (F, 3, 16h, 16w), normalised, for prompts without a past."""
        return self.without_past(self.see(images))

    def see(self, images: Tensor) -> Features:
        """Encode pictures (F, 3, 16h, 16w), normalised: what all objects of a frame share."""
        maps = self._maps(images)
        return Features(maps[-1], tuple(maps[-3:-1]) if self.use_high_res_features_in_sam else ())

    def forward_image(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Encode pictures (F, 3, 16h, 16w), normalised.

        Returns:
            The encoder's maps (`backbone_fpn`, fine to coarse), the two finer ones projected for the mask decoder where
            it uses them; their positions (`vision_pos_enc`); and the last map (`vision_features`).
        """
        maps = self._maps(images)
        positions = [positions_of(level, self.hidden_dim) for level in maps]
        return {"vision_features": maps[-1], "vision_pos_enc": positions, "backbone_fpn": maps}

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps, fine to coarse, the two finer ones made narrow for the mask decoder if it uses them."""
        decoder = self.sam_mask_decoder
        heads = (decoder.conv_s0, decoder.conv_s1) if self.use_high_res_features_in_sam else ()
        return self.image_encoder(images, heads, positions=False)["backbone_fpn"]

    def answer(
        self, features: Features, prompts: PromptBatch, multimask: bool = False, worth: Worth | None = None
    ) -> Answer:
        """Answer N prompts.

        Args:
            features: of F pictures, from `encode`, `without_past` or `look_back`.
            prompts: their owners index `features`.
            multimask: several masks a prompt, instead of one.
            worth: (N, M) predicted overlaps -> (N,) bool, the prompts to be answered; others may be left out.

        Returns:
            Masks, their predicted overlaps, their tokens and the object's presence.
        """
        sparse, dense = self.sam_prompt_encoder(clicks(prompts), None, prompts.masks, grid=features.grid)
        return self.sam_mask_decoder(
            image_embeddings=features.image,
            image_pe=self.sam_prompt_encoder.get_dense_pe(features.grid),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_res_features=features.fine,
            owner=prompts.owner,
            worth=worth,
        )

    # Videos

    def without_past(self, features: Features, positions: Tensor | None = None) -> Features:
        """Condition F frames on nothing, as the first prompted frame of an object is: one object a frame."""
        if not self.num_maskmem:
            return features
        if self.directly_add_no_mem_embed:
            return Features(features.image + self.no_mem_embed.view(1, -1, 1, 1), features.fine)
        nothing = self.no_mem_embed.view(1, -1, self.mem_dim).expand(len(features), -1, -1)
        nowhere = self.no_mem_pos_enc.view(1, -1, self.mem_dim).expand(len(features), -1, -1)
        return self._condition(features, nothing, nowhere, nothing.shape[1], positions=positions)

    def recall(
        self,
        frame: int,
        prompted: Collection[int],
        tracked: Collection[int],
        num_frames: int | None = None,
        reverse: bool = False,
    ) -> Recall:
        """Choose what to look back at by the reference rule under this model's options; see `recall.recall`."""
        return recall(
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

    def begin(self, features: Features) -> Features:
        """Do what looking back begins with, the same for all objects: once for all calls of `look_back` to come."""
        if not self.num_maskmem:
            return features
        tokens = self.memory_attention.begin(*self._tokens(features), features.grid)
        return Begun(features.image, features.fine, tokens=tokens)

    def look_back(self, features: Features, past: Past, owner: Tensor, positions: Tensor | None = None) -> Features:
        """Condition frames on what N objects look back at.

        Args:
            features: of F frames, from `see` or `begin`.
            past: of N objects.
            owner: (N,) the index of each object's frame.
            positions: of the features, (F, L, C); None for those of the grid.

        Returns:
            Features of N "pictures", an object each: prompts for them have the owners 0 … N - 1.
        """
        if not self.num_maskmem:
            return spread(features, owner)
        memory, memory_positions, loose = self._read(past.to(features.image), features.grid)
        return self._condition(features, memory, memory_positions, loose, owner, positions)

    def segment(self, features: Features, prompts: PromptBatch, prompted: bool) -> FrameOutput:
        """Segment N objects on conditioned features, taking the best mask of each: `settle(candidates(...))`."""
        return self.settle(self.candidates(features, prompts, prompted))

    def candidates(self, features: Features, prompts: PromptBatch, prompted: bool) -> Answer:
        """Segment N objects on conditioned features, with as many masks each as the options allow.

        Args:
            features: from `without_past` or `look_back`.
            prompts: clicks, boxes, logits of a mask, or nothing on a frame that is tracked.
            prompted: whether the frame is an object's first prompted one, not tracked.
        """
        count = 0 if prompts.labels is None else prompts.labels.shape[1]
        count += 0 if prompts.boxes is None else 2
        allowed = self.multimask_output_in_sam and (prompted or self.multimask_output_for_tracking)
        multimask = allowed and self.multimask_min_pt_num <= count <= self.multimask_max_pt_num
        return self.answer(features, padded(prompts), multimask)

    def settle(self, answer: Answer, choice: Tensor | None = None, present_above: float = 0.0) -> FrameOutput:
        """Take one mask of each object and make its pointer.

        Args:
            answer: M masks of N objects.
            choice: (N,) the index of each object's mask; None for the one with the largest predicted overlap.
            present_above: an object whose presence is not above this is absent.

        Returns:
            The objects' answer, without a memory; the mask of an absent one is empty.
        """
        each = torch.arange(len(answer), device=answer.iou.device)
        choice = answer.iou.argmax(dim=1) if choice is None else choice
        presence = (
            answer.iou.new_full((len(answer), 1), CERTAIN_PRESENCE) if answer.presence is None else answer.presence
        )
        logits = answer.logits[each, choice].float()
        if self.pred_obj_scores:
            logits = torch.where(presence[..., None] > present_above, logits, ABSENT_LOGIT)
        tokens = answer.tokens[each, choice] if answer.tokens.shape[1] > 1 else answer.tokens[:, 0]
        visible = presence.sigmoid() if self.soft_no_obj_ptr else (presence > present_above).to(tokens.dtype)
        pointer = self._blank(self.obj_ptr_proj(tokens), visible)
        return FrameOutput(logits, pointer, presence[:, 0], answer.iou[each, choice])

    def take_mask(self, features: Features, masks: Tensor, owner: Tensor) -> FrameOutput:
        """Take given masks as the answer.

        Args:
            features: of F frames, from `see`.
            masks: (N, 1, 16h, 16w), 1 on the object and 0 off it.
            owner: (N,) the index of each object's frame.

        Returns:
            The objects' answer, without a memory; an empty mask means that the object is absent.
        """
        masks = masks.float()
        quarter = tuple(side // 4 for side in masks.shape[-2:])
        logits = F.interpolate(as_logits(masks), size=quarter, mode="bilinear", antialias=True)[:, 0]
        visible = masks.flatten(1).gt(0).any(dim=1, keepdim=True).float()
        if self.mask_downsample is None:
            pointer = features.image.new_zeros(len(masks), self.hidden_dim)
        else:
            prompts = padded(PromptBatch(owner, masks=self.mask_downsample(masks.to(features.image.dtype))))
            pointer = self.settle(self.answer(features, prompts)).pointer
            pointer = self._blank(pointer, visible.to(pointer.dtype))
        return FrameOutput(logits, pointer, as_logits(visible)[:, 0], torch.ones_like(visible[:, 0]))

    def remember(
        self,
        features: Features,
        logits: Tensor,
        presence: Tensor,
        owner: Tensor,
        prompted: bool,
        binarize: bool | None = None,
    ) -> Tensor:
        """Make the memories of N objects.

        Args:
            features: of F frames, from `see`.
            logits: of the objects' masks, (N, 4h, 4w) or (N, 16h, 16w).
            presence: (N,), below 0 where an object is absent.
            owner: (N,) the index of each object's frame.
            prompted: whether the user prompted this frame.
            binarize: remember a prompted frame's masks as 0 and 1; None for the default, see `set_binarize`.

        Returns:
            (N, L, D).
        """
        binarize = self.binarize_mask_from_pts_for_mem_enc if binarize is None else binarize
        masks = enlarged(logits[:, None].float(), features.grid)
        masks = self._without_rivals(masks, owner)
        masks = masks.gt(0).float() if binarize and prompted and not self.training else masks.sigmoid()
        masks = masks * self.sigmoid_scale_for_mem_enc + self.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder.encode(features.image, masks.to(features.image.dtype), owner).flatten(2).mT
        if self.no_obj_embed_spatial is None:
            return memory
        absent = (presence <= 0).to(memory.dtype).view(-1, 1, 1)
        return memory + absent * self.no_obj_embed_spatial

    def track_step(
        self,
        frame_idx: int,
        is_init_cond_frame: bool,
        current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        point_inputs: Mapping[str, Tensor] | None,
        mask_inputs: Tensor | None,
        output_dict: Mapping[str, Outputs],
        num_frames: int | None,
        track_in_reverse: bool = False,
        run_mem_encoder: bool = True,
        prev_sam_mask_logits: Tensor | None = None,
    ) -> dict[str, Any]:
        """Segment and remember N objects of one frame, in the form of the original.

        Args:
            frame_idx: number of the frame.
            is_init_cond_frame: whether the objects have no past: their first prompted frame.
            current_vision_feats: maps of `forward_image` as tokens (L, N, C), fine to coarse.
            current_vision_pos_embeds: their positions, likewise.
            feat_sizes: their sizes (h, w).
            point_inputs: `point_coords` (N, P, 2) in pixels of the input and `point_labels` (N, P).
            mask_inputs: masks (N, 1, 16h, 16w), 0 … 1.
            output_dict: the results of other frames by number, in `cond_frame_outputs` (prompted frames) and
                `non_cond_frame_outputs` (tracked ones).
            num_frames: length of the video; None for a stream.
            track_in_reverse: whether the video is walked from its end to its start.
            run_mem_encoder: make the memories.
            prev_sam_mask_logits: logits (N, 1, 4h, 4w) of the masks that the points correct.

        Returns:
            `point_inputs` and `mask_inputs` as given, `pred_masks` (N, 1, 4h, 4w), `pred_masks_high_res`
            (N, 1, 16h, 16w), `obj_ptr` (N, C), `object_score_logits` (N, 1), `maskmem_features` (N, D, h, w) and
            `maskmem_pos_enc`, a list with their positions; these two are None without memories.

        Raises:
            ValueError: previous logits without points, or together with a mask.
        """
        if prev_sam_mask_logits is not None and (point_inputs is None or mask_inputs is not None):
            raise ValueError("prev_sam_mask_logits go with point_inputs that correct them, and without mask_inputs.")
        levels = 3 if self.use_high_res_features_in_sam else 1
        features = features_of(current_vision_feats[-levels:], feat_sizes[-levels:])
        owner = torch.arange(len(features), device=features.image.device)
        if mask_inputs is not None and self.use_mask_input_as_output_without_sam:
            output, logits = self.take_mask(features, mask_inputs, owner), as_logits(mask_inputs.float())
        else:
            positions = current_vision_pos_embeds[-1].transpose(0, 1)
            if is_init_cond_frame or not self.num_maskmem:
                seen = self.without_past(features, positions)
            else:
                prompted, tracked = output_dict["cond_frame_outputs"], output_dict["non_cond_frame_outputs"]
                chosen = self.recall(frame_idx, prompted, tracked, num_frames, track_in_reverse)
                seen = self.look_back(features, past_of(chosen, prompted, tracked), owner, positions)
            masks = mask_inputs if prev_sam_mask_logits is None else prev_sam_mask_logits
            prompts = prompts_of(owner, point_inputs, masks, [4 * side for side in features.grid])
            output = self.segment(seen, prompts, is_init_cond_frame)
            logits = enlarged(output.logits[:, None], features.grid)
        if run_mem_encoder and self.num_maskmem:
            masks = self._without_rivals(logits, torch.zeros_like(owner))[:, 0]
            memory = self.remember(features, masks, output.presence, owner, prompted=point_inputs is not None)
            output = replace(output, memory=memory)
        given = {"point_inputs": point_inputs, "mask_inputs": mask_inputs}
        return given | outputs_of(output, logits, features.grid)

    def _without_rivals(self, logits: Tensor, frame: Tensor) -> Tensor:
        """Logits (N, 1, H, W) where every pixel belongs to one object of a frame (N,), if the options say so."""
        return one_owner(logits, frame) if self.non_overlap_masks_for_mem_enc and not self.training else logits

    def _condition(
        self,
        features: Features,
        memory: Tensor,
        memory_positions: Tensor,
        loose: int,
        owner: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Features:
        """Memory attention of frames (F, C, h, w) to tokens (N, K, D), of which the last `loose` have no place."""
        tokens, positions = self._tokens(features, positions)
        seen = memory, memory_positions, features.grid, loose, owner
        if isinstance(features, Begun):
            tokens = self.memory_attention.finish(features.tokens, positions, *seen)
        else:
            tokens = self.memory_attention.condition(tokens, positions, *seen)
        spread_out = features if owner is None else spread(features, owner)
        return Features(tokens.mT.unflatten(2, features.grid), spread_out.fine)

    def _tokens(self, features: Features, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames as tokens (F, L, C), and their positions; those of the grid where none are given."""
        tokens = features.image.flatten(2).mT
        if positions is None:
            places = sine_positions(features.grid, self.hidden_dim, tokens.device)
            positions = places.to(tokens.dtype).flatten(2).mT
        return tokens, positions

    def _read(self, past: Past, grid: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        """Memories and pointers as tokens (N, K, D), their positions, and how many tokens the pointers are."""
        where = sine_positions(grid, self.mem_dim, past.memories.device).to(past.memories.dtype).flatten(2).mT
        positions = where + self.maskmem_tpos_enc.flatten(1)[past.slots][:, :, None]  # (N, M, L, D)
        memory, positions = past.memories.flatten(1, 2), positions.flatten(1, 2)
        if not self.use_obj_ptrs_in_encoder:
            return memory, positions, 0
        pointers = past.pointers.unflatten(2, (-1, self.mem_dim))  # (N, P, C / D, D)
        codes = self._time_codes(past.times).to(pointers.dtype)[:, :, None].expand_as(pointers)
        pointers, codes = pointers.flatten(1, 2), codes.flatten(1, 2)
        return torch.cat([memory, pointers], dim=1), torch.cat([positions, codes], dim=1), pointers.shape[1]

    def _time_codes(self, times: Tensor) -> Tensor:
        """Codes of how far back pointers lie: (N, P) -> (N, P, D)."""
        if not self.add_tpos_enc_to_obj_ptrs:
            return times.new_zeros(*times.shape, self.mem_dim)
        times = times if self.use_signed_tpos_enc_to_obj_ptrs else times.abs()
        width = self.hidden_dim if self.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        return self.obj_ptr_tpos_proj(sine_codes(times, width).to(self.no_mem_embed.dtype))

    def _blank(self, pointer: Tensor, visible: Tensor) -> Tensor:
        """Pointers (N, C) of objects that are visible to the degree (N, 1), 0 … 1."""
        if self.no_obj_ptr is None:
            return pointer
        kept = visible * pointer if self.fixed_no_obj_ptr else pointer
        return kept + (1 - visible) * self.no_obj_ptr
