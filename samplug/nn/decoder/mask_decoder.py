"""From features and embedded prompts to masks.

F images, N prompts, T tokens a prompt, C channels, (h, w) the grid of features, P = h * w, M masks a prompt.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from samplug.nn.constants import DEFAULT_PRESENCE_LOGIT
from samplug.nn.decoder.two_way import PixelTokens, TwoWayTransformer
from samplug.nn.ops.chunks import ImageRows, prompt_chunks
from samplug.nn.ops.layers import MLP, LayerNorm2d
from samplug.nn.ops.linear import Linear, is_recording
from samplug.nn.ops.upscaling import join_pixels, split_pixels, upscale
from samplug.nn.structs import Answer, KeepPrompt


class MaskDecoder(nn.Module):
    """SAM's mask decoder (arXiv 2304.02643): one mask a prompt, or several for ambiguous prompts."""

    _iou_token_index = 0

    def __init__(
        self, transformer_dim: int, transformer: TwoWayTransformer, num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU, iou_head_depth: int = 3, iou_head_hidden_dim: int = 256,
    ) -> None:  # fmt: skip
        """Make the decoder.

        Args:
            transformer_dim: width C.
            transformer: the two-way transformer.
            num_multimask_outputs: masks for an ambiguous prompt, besides the single one.
            activation: activation of the upscaling.
            iou_head_depth: layers of the head that predicts IoUs.
            iou_head_hidden_dim: its hidden width.
        """
        super().__init__()
        width, masks = transformer_dim, num_multimask_outputs + 1
        self.transformer = transformer
        self.num_multimask_outputs = num_multimask_outputs
        self.iou_token = nn.Embedding(1, width)
        self.num_mask_tokens = masks
        self.mask_tokens = nn.Embedding(masks, width)
        self.output_upscaling = nn.Sequential(
            *(nn.ConvTranspose2d(width, width // 4, 2, stride=2), LayerNorm2d(width // 4), activation()),
            *(nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2), activation()),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(width, width, width // 8, 3) for _ in range(masks))
        self.iou_prediction_head = MLP(width, iou_head_hidden_dim, masks, iou_head_depth)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor, multimask_output: bool = False, *,
        high_res_features: Sequence[Tensor] = (), image_index: Tensor | None = None,
        keep_prompt: KeepPrompt | None = None,
    ) -> Answer:  # fmt: skip
        """Answer N prompts.

        Args:
            image_embeddings: (F, C, h, w): one image for all prompts, one a prompt, or any number with `image_index`.
            image_pe: (1, C, h, w), from `PromptEncoder.get_dense_pe`.
            sparse_prompt_embeddings: (N, T', C), from the prompt encoder.
            dense_prompt_embeddings: (N or 1, C, h, w), from the prompt encoder.
            multimask_output: several masks a prompt instead of one.
            high_res_features: ((F, C/8, 4h, 4w), (F, C/4, 2h, 2w)) where the decoder uses them.
            image_index: (N,) int64, the index of each prompt's image.
            keep_prompt: which prompts to answer, by the predicted IoUs of their masks. Others may be left out, which
                saves most of the work on them: IoUs are known before masks are drawn.

        Returns:
            The answer, with M = 1 or `num_multimask_outputs`.

        Raises:
            ValueError: neither one image, nor one a prompt, nor `image_index`.
        """
        image, dense, sparse = image_embeddings, dense_prompt_embeddings, sparse_prompt_embeddings
        tokens = torch.cat([self._output_tokens().expand(len(sparse), -1, -1), sparse], dim=1)  # (N, T, C)
        if image_index is None and len(image) not in {1, len(tokens)}:
            raise ValueError(
                f"{len(tokens)} prompts for {len(image)} images: give image_index, the index of each prompt's image."
            )
        if not dense.stride(0):  # the prompt encoder's view of one learned vector
            dense = dense[:1]
        fine = [split_pixels(level, times) for level, times in zip(high_res_features, (2, 1), strict=False)]
        shared = self.transformer.pixel_tokens(image + dense, image_pe, tokens) if len(dense) == 1 else None

        def answer(prompts: slice, images: ImageRows) -> Answer:
            if shared is None:
                pixels = self.transformer.pixel_tokens(image[images] + dense[prompts], image_pe, tokens[prompts])
            else:
                pixels = shared[images]
            levels = [level[images] for level in fine]
            return self._decode(pixels, image_pe, tokens[prompts], levels, multimask_output, keep_prompt)

        answers = (answer(*chunk) for chunk in prompt_chunks(image, len(tokens), image_index))
        return Answer.collect(answers, len(tokens)) if keep_prompt is None else Answer.cat(list(answers))

    def _output_tokens(self) -> Tensor:
        """The learned tokens whose outputs are read: IoU's, then the masks', (., C)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def _decode(
        self, pixels: PixelTokens, image_pe: Tensor, tokens: Tensor, fine: list[Tensor], multimask: bool,
        keep_prompt: KeepPrompt | None,
    ) -> Answer:  # fmt: skip
        """Answer some prompts: run the transformer, drop prompts that are not kept, draw the masks."""
        tokens, upscaled = self.transformer.run(pixels, image_pe, tokens)  # (N, T, C), (N, P, C)
        if keep_prompt is not None and not is_recording():
            kept = keep_prompt(self._ious(tokens)[:, 1 if multimask else 0 :]).nonzero()[:, 0]
            if len(kept) < len(tokens):
                tokens, upscaled = tokens[kept], upscaled[kept]
                fine = [level[kept] if len(level) > 1 else level for level in fine]
        upscaled = upscale(self.output_upscaling, upscaled, fine)  # (N, 16 P, C / 8)
        return self._answer(tokens, upscaled, image_pe.shape[-2:], multimask)

    def _ious(self, tokens: Tensor) -> Tensor:
        """The predicted IoU of each mask with the true one, (N, all masks)."""
        return self.iou_prediction_head(tokens[:, self._iou_token_index])

    def _answer(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], multimask: bool) -> Answer:
        """Tokens (N, T, C) and upscaled pixels (N, 16 P, C / 8) -> the masks asked for."""
        return self._masks(tokens, pixels, grid, slice(1, None) if multimask else slice(0, 1))

    def _masks(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], chosen: slice) -> Answer:
        """The chosen masks: the products of their tokens' hypernetworks with every pixel."""
        mask_tokens = self._mask_tokens(tokens)[:, chosen]
        networks = self.output_hypernetworks_mlps[chosen]
        weights = [network(token) for network, token in zip(networks, mask_tokens.unbind(1), strict=True)]
        logits = join_pixels(torch.stack(weights, dim=1) @ pixels.mT, grid)  # (N, M, 4h, 4w)
        return Answer(logits, self._ious(tokens)[:, chosen], mask_tokens)

    def _mask_tokens(self, tokens: Tensor) -> Tensor:
        """(N, all masks, C)."""
        first = self._iou_token_index + 1
        return tokens[:, first : first + self.num_mask_tokens]


class SAM2MaskDecoder(MaskDecoder):
    """SAM 2's mask decoder (arXiv 2408.00714, appendix D): finer maps, presence, a fallback for unstable masks."""

    def __init__(
        self, transformer_dim: int, transformer: TwoWayTransformer, num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU, iou_head_depth: int = 3, iou_head_hidden_dim: int = 256,
        use_high_res_features: bool = False, iou_prediction_use_sigmoid: bool = False,
        dynamic_multimask_via_stability: bool = False, dynamic_multimask_stability_delta: float = 0.05,
        dynamic_multimask_stability_thresh: float = 0.98, pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False, use_multimask_token_for_obj_ptr: bool = False,
    ) -> None:  # fmt: skip
        """Make the decoder.

        Args:
            transformer_dim: width C.
            transformer: the two-way transformer.
            num_multimask_outputs: masks for an ambiguous prompt, besides the single one.
            activation: activation of the upscaling.
            iou_head_depth: layers of the head that predicts IoUs.
            iou_head_hidden_dim: its hidden width.
            use_high_res_features: add two finer maps while upscaling; `conv_s0` and `conv_s1` make them narrow.
            iou_prediction_use_sigmoid: end the IoU head with a sigmoid.
            dynamic_multimask_via_stability: replace an unstable single mask by the one of the several with the highest
                predicted IoU (not in training).
            dynamic_multimask_stability_delta: stability is the IoU of the masks at thresholds of plus and minus this.
            dynamic_multimask_stability_thresh: below this IoU a mask is unstable.
            pred_obj_scores: predict whether the object is present.
            pred_obj_scores_mlp: by three layers instead of one.
            use_multimask_token_for_obj_ptr: where several masks are asked for, answer with each mask's own token;
                otherwise with the single mask's.
        """
        super().__init__(
            transformer_dim, transformer, num_multimask_outputs, activation, iou_head_depth, iou_head_hidden_dim
        )
        self.iou_prediction_head.sigmoid_output = iou_prediction_use_sigmoid
        self.use_high_res_features = use_high_res_features
        self.dynamic_multimask_via_stability = dynamic_multimask_via_stability
        self.dynamic_multimask_stability_delta = dynamic_multimask_stability_delta
        self.dynamic_multimask_stability_thresh = dynamic_multimask_stability_thresh
        self.pred_obj_scores = pred_obj_scores
        self._iou_token_index = int(pred_obj_scores)
        self.use_multimask_token_for_obj_ptr = use_multimask_token_for_obj_ptr
        if use_high_res_features:
            self.conv_s0 = nn.Conv2d(transformer_dim, transformer_dim // 8, 1)
            self.conv_s1 = nn.Conv2d(transformer_dim, transformer_dim // 4, 1)
        if pred_obj_scores:
            self.obj_score_token = nn.Embedding(1, transformer_dim)
            deep = MLP(transformer_dim, transformer_dim, 1, 3) if pred_obj_scores_mlp else None
            self.pred_obj_score_head = deep or Linear(transformer_dim, 1)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor, multimask_output: bool = False, repeat_image: bool | None = None,
        high_res_features: Sequence[Tensor] | None = None, *, image_index: Tensor | None = None,
        keep_prompt: KeepPrompt | None = None,
    ) -> Answer:  # fmt: skip
        """Answer N prompts; arguments and result as in `MaskDecoder.forward`, with presence.

        `repeat_image` says whether one image serves all prompts; it is only checked, as the numbers of both tell.

        Raises:
            ValueError: images, prompts and finer maps do not fit together.
        """
        if repeat_image and len(image_embeddings) != 1:
            raise ValueError(f"repeat_image is for one image, not {len(image_embeddings)}: give image_index instead.")
        if self.use_high_res_features != bool(high_res_features):
            expected = "expects the two finer maps as" if self.use_high_res_features else "does not take"
            raise ValueError(f"This mask decoder {expected} high_res_features.")
        return super().forward(
            *(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, multimask_output),
            high_res_features=high_res_features or (),
            image_index=image_index,
            keep_prompt=keep_prompt,
        )

    def _output_tokens(self) -> Tensor:
        """As in `MaskDecoder`, presence's token first where it is predicted."""
        tokens = super()._output_tokens()
        return torch.cat([self.obj_score_token.weight, tokens]) if self.pred_obj_scores else tokens

    def _answer(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], multimask: bool) -> Answer:
        if self.pred_obj_scores:
            presence = self.pred_obj_score_head(tokens[:, 0])
        else:
            presence = tokens.new_full((len(tokens), 1), DEFAULT_PRESENCE_LOGIT)
        if multimask or self.training or not self.dynamic_multimask_via_stability:
            answer = super()._answer(tokens, pixels, grid, multimask)
        else:
            answer = self._most_stable(self._masks(tokens, pixels, grid, slice(None)))
        own = multimask and self.use_multimask_token_for_obj_ptr
        return replace(answer, tokens=answer.tokens if own else self._mask_tokens(tokens)[:, :1], presence=presence)

    def _most_stable(self, answer: Answer) -> Answer:
        """The single mask where it is stable, else the best of the several."""
        best = 1 + answer.iou[:, 1:].argmax(1, keepdim=True)
        choice = torch.where(self._stability(answer.logits[:, :1]) < self.dynamic_multimask_stability_thresh, best, 0)
        logits = answer.logits.take_along_dim(choice[..., None, None], dim=1)
        return replace(answer, logits=logits, iou=answer.iou.take_along_dim(choice, dim=1))

    def _stability(self, logits: Tensor) -> Tensor:
        """(N, M, H, W) -> (N, M): IoU of the masks at a raised and a lowered threshold, 1 for two empty ones."""
        delta = self.dynamic_multimask_stability_delta
        inner, outer = ((logits > threshold).sum((-2, -1)).float() for threshold in (delta, -delta))
        return torch.where(outer > 0, inner / outer, 1.0)
