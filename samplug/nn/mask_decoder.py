"""From features and embedded prompts to masks.

F pictures, N prompts, T tokens a prompt, C channels, (h, w) the grid of features, P = h * w, M masks a prompt.
Pixels stay tokens until the very end: an upscaled map is (N, P, 4, ...), each pixel with its 2 x 2 parts, so that
transposed convolutions are plain products and only the finished logits are put in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.attention import recorded
from samplug.nn.layers import MLP, LayerNorm2d
from samplug.nn.linear import Linear
from samplug.nn.two_way import TwoWayTransformer, View
from samplug.nn.types import Answer, Worth

SURELY_PRESENT = 10.0  # presence logit of a decoder that does not predict presence
# Numbers of pixel channels decoded at once without gradients: one prompt of a 64 x 64 grid stays in a CPU's cache.
AT_ONCE = {"cpu": 2**20}
AT_ONCE_ELSEWHERE = 2**26


def pictures_of(part: slice, owner: Tensor | None, image: Tensor) -> slice | Tensor:
    """Which of the pictures (F, ...) the prompts `part` need: one for all of them without a copy if possible."""
    if len(image) == 1:
        return slice(None)
    if owner is None:
        return part
    rows = owner[part]
    if recorded() or rows.device.type != "cpu" or (rows != rows[0]).any():
        return rows
    return slice(int(rows[0]), int(rows[0]) + 1)


def transposed(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 2 x 2, stride 2 transposed convolution of tokens (..., C) -> (..., 4, C'), rows before columns."""
    assert conv.bias is not None
    weight = conv.weight.permute(2, 3, 1, 0)  # (2, 2, C', C)
    return F.linear(x, weight.flatten(0, 2), conv.bias.repeat(4)).unflatten(-1, (4, -1))


def parts_of(x: Tensor, times: int) -> Tensor:
    """A finer map (F, C, h * 2^times, w * 2^times) in the layout of upscaled tokens, (F, P, 4 [, 4], C)."""
    shape = [-1] + [2] * times
    x = x.unflatten(3, shape).unflatten(2, shape)  # (F, C, h, 2.., w, 2..)
    down, across = range(2, 3 + times), range(3 + times, 4 + 2 * times)
    order = [axis for pair in zip(down, across, strict=True) for axis in pair]
    return x.permute(0, *order, 1).reshape(len(x), -1, *[4] * times, x.shape[1])


def put_in_order(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Logits of twice upscaled tokens (N, M, P * 16) as maps (N, M, 4h, 4w)."""
    height, width = grid
    x = x.unflatten(2, (height, width, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return x.reshape(*x.shape[:2], 4 * height, 4 * width)


class MaskDecoder(nn.Module):
    """SAM's mask decoder (arXiv 2304.02643): one mask for clear prompts, or several for an ambiguous one."""

    _ahead = 0  # learned tokens that stand before the quality's

    def __init__(
        self, transformer_dim: int, transformer: TwoWayTransformer, num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU, iou_head_depth: int = 3, iou_head_hidden_dim: int = 256,
    ) -> None:  # fmt: skip
        """Make the decoder.

        Args:
            transformer_dim: width C.
            transformer: the two-way transformer.
            num_multimask_outputs: masks for an ambiguous prompt, beside the single one.
            activation: activation of the upscaling.
            iou_head_depth: layers of the head that predicts a mask's quality.
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
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool = False,
        *,
        high_res_features: Sequence[Tensor] = (),
        owner: Tensor | None = None,
        worth: Worth | None = None,
    ) -> Answer:
        """Answer N prompts.

        Args:
            image_embeddings: (F, C, h, w): one picture for all prompts, one a prompt, or any number with owners.
            image_pe: (1, C, h, w), from `PromptEncoder.get_dense_pe`.
            sparse_prompt_embeddings: (N, T', C), from the prompt encoder.
            dense_prompt_embeddings: (N or 1, C, h, w), from the prompt encoder; work is shared where all are one.
            multimask_output: several masks a prompt instead of one.
            high_res_features: the two finer maps of a decoder that uses them.
            owner: (N,) int64, the index of each prompt's picture.
            worth: the prompts to be answered, by the predicted overlaps of all masks that might be the answer. Others
                may be left out: known before masks are drawn, this saves most of the work on poor prompts.

        Returns:
            The answer, with M = 1 or `num_multimask_outputs`.

        Raises:
            ValueError: if it is not clear which prompt belongs to which picture.
        """
        image, dense, tokens = image_embeddings, dense_prompt_embeddings, self._tokens(sparse_prompt_embeddings)
        if owner is None and len(image) not in {1, len(tokens)}:
            raise ValueError(
                f"{len(tokens)} prompts for {len(image)} pictures: give owner, the index of each prompt's picture."
            )
        if not dense.stride(0):  # the prompt encoder's view of one learned vector
            dense = dense[:1]
        fine = [parts_of(level, times) for level, times in zip(high_res_features, (2, 1), strict=False)]
        shared = self.transformer.look(image + dense, image_pe, tokens) if len(dense) == 1 else None
        answers = []
        for part in self._slices(tokens, image):
            pictures = pictures_of(part, owner, image)
            if shared is None:
                view = self.transformer.look(image[pictures] + dense[part], image_pe, tokens[part])
            else:
                view = shared[pictures]
            levels = [level[pictures] for level in fine]
            answers.append(self._decode(view, image_pe, tokens[part], levels, multimask_output, worth))
        return Answer.cat(answers)

    def _own_tokens(self) -> Tensor:
        """The learned tokens that ask for answers, (., C); the quality's, then the masks'."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def _tokens(self, sparse: Tensor) -> Tensor:
        """Learned tokens and the prompt's, (N, T, C)."""
        return torch.cat([self._own_tokens().expand(len(sparse), -1, -1), sparse], dim=1)

    def _slices(self, tokens: Tensor, image: Tensor) -> list[slice]:
        """Prompts to decode at once: all for gradients and graphs, else as many as the cache holds."""
        if recorded():
            return [slice(None)]
        count = max(1, AT_ONCE.get(image.device.type, AT_ONCE_ELSEWHERE) // image[0].numel())
        return [slice(start, start + count) for start in range(0, len(tokens), count)]

    def _decode(
        self, view: View, positions: Tensor, tokens: Tensor, fine: list[Tensor], multimask: bool, worth: Worth | None
    ) -> Answer:
        """Answer prompts whose pixels are in view, those that are worth it."""
        tokens, pixels = self.transformer.run(view, positions, tokens)
        if worth is not None and not recorded():
            chosen = worth(self._overlaps(tokens)[:, 1 if multimask else 0 :]).nonzero()[:, 0]
            if len(chosen) < len(tokens):
                tokens, pixels = tokens[chosen], pixels[chosen]
                fine = [level[chosen] if len(level) > 1 else level for level in fine]
        return self._answer(tokens, self._upscale(pixels, fine), positions.shape[-2:], multimask)

    def _overlaps(self, tokens: Tensor) -> Tensor:
        """The predicted overlap of each mask with the true one, (N, all masks)."""
        return self.iou_prediction_head(tokens[:, self._ahead])

    def _answer(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], multimask: bool) -> Answer:
        """Tokens (N, T, C) and upscaled pixels (N, 16 P, C / 8) -> the masks asked for."""
        return self._masks(tokens, pixels, grid, slice(1, None) if multimask else slice(0, 1))

    def _masks(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], chosen: slice) -> Answer:
        """The chosen masks: each is the product of its token's hypernetwork with every pixel."""
        mask_tokens = self._mask_tokens(tokens)[:, chosen]
        networks = self.output_hypernetworks_mlps[chosen]
        weights = [network(token) for network, token in zip(networks, mask_tokens.unbind(1), strict=True)]
        logits = put_in_order(torch.stack(weights, dim=1) @ pixels.mT, grid)
        return Answer(logits, self._overlaps(tokens)[:, chosen], mask_tokens)

    def _mask_tokens(self, tokens: Tensor) -> Tensor:
        """(N, all masks, C)."""
        first = self._ahead + 1
        return tokens[:, first : first + self.num_mask_tokens]

    def _upscale(self, pixels: Tensor, fine: list[Tensor]) -> Tensor:
        """Pixels (N, P, C) -> (N, 16 P, C / 8); finer maps, where there are any, are added on the way."""
        first, norm, activation, second, last_activation = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        x = transposed(first, pixels)
        x = x.add_(fine[1]) if fine else x  # in place: these are the largest maps of all
        x = transposed(second, activation(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)))
        x = x.add_(fine[0]) if fine else x
        return last_activation(x).flatten(1, 3)


class SAM2MaskDecoder(MaskDecoder):
    """SAM 2's mask decoder (arXiv 2408.00714, appendix D): finer maps, presence, a fallback for shaky masks."""

    def __init__(
        self, transformer_dim: int, transformer: TwoWayTransformer, num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU, iou_head_depth: int = 3, iou_head_hidden_dim: int = 256,
        use_high_res_features: bool = False, iou_prediction_use_sigmoid: bool = False,
        dynamic_multimask_via_stability: bool = False, dynamic_multimask_stability_delta: float = 0.05,
        dynamic_multimask_stability_thresh: float = 0.98, pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False, use_multimask_token_for_obj_ptr: bool = False,
    ) -> None:  # fmt: skip
        """Make the decoder; what is not said here is as in `MaskDecoder`.

        Args:
            transformer_dim: width C.
            transformer: the two-way transformer.
            num_multimask_outputs: masks for an ambiguous prompt, beside the single one.
            activation: activation of the upscaling.
            iou_head_depth: layers of the head that predicts a mask's quality.
            iou_head_hidden_dim: its hidden width.
            use_high_res_features: add two finer maps while upscaling; `conv_s0` and `conv_s1` make them narrow.
            iou_prediction_use_sigmoid: end the quality head with a sigmoid.
            dynamic_multimask_via_stability: where a single mask is asked for and is not stable, give the one of the
                several masks with the highest predicted quality (not in training).
            dynamic_multimask_stability_delta: a mask's stability is its overlap between thresholds at plus and minus
                this logit.
            dynamic_multimask_stability_thresh: below this overlap it is not stable.
            pred_obj_scores: predict whether the object is there at all.
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
        self._ahead = int(pred_obj_scores)
        self.use_multimask_token_for_obj_ptr = use_multimask_token_for_obj_ptr
        if use_high_res_features:
            self.conv_s0 = nn.Conv2d(transformer_dim, transformer_dim // 8, 1)
            self.conv_s1 = nn.Conv2d(transformer_dim, transformer_dim // 4, 1)
        if pred_obj_scores:
            self.obj_score_token = nn.Embedding(1, transformer_dim)
            deep = MLP(transformer_dim, transformer_dim, 1, 3) if pred_obj_scores_mlp else None
            self.pred_obj_score_head = deep or Linear(transformer_dim, 1)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool = False,
        repeat_image: bool | None = None,
        high_res_features: Sequence[Tensor] | None = None,
        *,
        owner: Tensor | None = None,
        worth: Worth | None = None,
    ) -> Answer:
        """Answer N prompts; as `MaskDecoder.forward`, with presence.

        Args:
            image_embeddings: (F, C, h, w).
            image_pe: (1, C, h, w).
            sparse_prompt_embeddings: (N, T', C).
            dense_prompt_embeddings: (N or 1, C, h, w).
            multimask_output: several masks a prompt instead of one.
            repeat_image: whether one picture serves all prompts. The numbers of pictures and prompts say so already,
                so this is only checked.
            high_res_features: ((F, C/8, 4h, 4w), (F, C/4, 2h, 2w)), through `conv_s0` and `conv_s1`.
            owner: (N,) int64, the index of each prompt's picture.
            worth: the prompts to be answered.

        Returns:
            The answer, with M = 1 or `num_multimask_outputs`.

        Raises:
            ValueError: if pictures, prompts and finer maps do not fit together.
        """
        if repeat_image and len(image_embeddings) != 1:
            raise ValueError(f"repeat_image is for one picture, here are {len(image_embeddings)}: give owner instead.")
        if self.use_high_res_features != bool(high_res_features):
            wanted = "needs the two finer maps as" if self.use_high_res_features else "has no use for"
            raise ValueError(f"This mask decoder {wanted} high_res_features.")
        return super().forward(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            multimask_output,
            high_res_features=high_res_features or (),
            owner=owner,
            worth=worth,
        )

    def _own_tokens(self) -> Tensor:
        """The learned tokens that ask for answers: presence first, where it is predicted."""
        tokens = super()._own_tokens()
        return torch.cat([self.obj_score_token.weight, tokens]) if self.pred_obj_scores else tokens

    def _answer(self, tokens: Tensor, pixels: Tensor, grid: Sequence[int], multimask: bool) -> Answer:
        if self.pred_obj_scores:
            presence = self.pred_obj_score_head(tokens[:, 0])
        else:
            presence = tokens.new_full((len(tokens), 1), SURELY_PRESENT)
        if multimask or self.training or not self.dynamic_multimask_via_stability:
            answer = super()._answer(tokens, pixels, grid, multimask)
        else:
            answer = self._stable(self._masks(tokens, pixels, grid, slice(None)))
        own = multimask and self.use_multimask_token_for_obj_ptr
        return replace(answer, tokens=answer.tokens if own else self._mask_tokens(tokens)[:, :1], presence=presence)

    def _stable(self, answer: Answer) -> Answer:
        """The single mask where it is stable, else the best of the several."""
        best = 1 + answer.iou[:, 1:].argmax(1, keepdim=True)
        choice = torch.where(self._stability(answer.logits[:, :1]) < self.dynamic_multimask_stability_thresh, best, 0)
        logits = answer.logits.take_along_dim(choice[..., None, None], dim=1)
        return replace(answer, logits=logits, iou=answer.iou.take_along_dim(choice, dim=1))

    def _stability(self, logits: Tensor) -> Tensor:
        """(N, M, H, W) -> (N, M): overlap of the masks at a raised and a lowered threshold, 1 for two empty ones."""
        delta = self.dynamic_multimask_stability_delta
        inner, outer = ((logits > threshold).sum((-2, -1)).float() for threshold in (delta, -delta))
        return torch.where(outer > 0, inner / outer, 1.0)
