"""Segment Anything: an image encoder that runs once an image, a prompt encoder and a mask decoder.

F images, N prompts, (H, W) the input size, (h, w) = (H, W) / 16 the grid of features, C channels.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from samplug.nn.constants import FEATURE_STRIDE, PIXEL_MEAN, PIXEL_STD
from samplug.nn.decoder.mask_decoder import MaskDecoder
from samplug.nn.decoder.prompt_encoder import PromptEncoder
from samplug.nn.encoders.tiny_vit import TinyViT
from samplug.nn.encoders.vit import ImageEncoderViT
from samplug.nn.structs import Answer, Features, KeepPrompt, PromptBatch


class SAMModel(nn.Module):
    """SAM and MobileSAM (arXiv 2304.02643, 2306.14289)."""

    mask_threshold: float = 0.0  # a logit above this is on the object
    stride: int = FEATURE_STRIDE  # what the sides of the input must be a multiple of
    variant: str = ""  # name of the architecture, such as "sam_b"; empty unless built from the table of variants
    config: dict[str, Any] | None = None  # the plain values that `checkpoints.config.build` made it from
    pixel_mean: Tensor  # (3, 1, 1), RGB from 0 to 255; not part of the state dict
    pixel_std: Tensor  # the same

    def __init__(
        self, image_encoder: ImageEncoderViT | TinyViT, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float] = PIXEL_MEAN, pixel_std: Sequence[float] = PIXEL_STD,
    ) -> None:  # fmt: skip
        """Join the networks.

        Args:
            image_encoder: images (F, 3, H, W) -> features (F, C, h, w).
            prompt_encoder: prompts -> tokens and maps.
            mask_decoder: features, tokens and maps -> masks.
            pixel_mean: of RGB from 0 to 255.
            pixel_std: of the same.
        """
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """Default input size (H, W)."""
        return self.prompt_encoder.input_image_size

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Make another input size (H, W) the default, `image_size`; any other still works."""
        self.image_encoder.img_size = (imgsz[0], imgsz[1])
        self.prompt_encoder.set_imgsz(imgsz)

    def encode(self, images: Tensor) -> Features:
        """Encode images (F, 3, H, W), normalised.

        Raises:
            ValueError: a side is not a multiple of 16.
        """
        if any(side % self.stride for side in images.shape[-2:]):
            size = " x ".join(map(str, images.shape[-2:]))
            raise ValueError(f"The input is {size} pixels: its sides must be multiples of {self.stride}.")
        return Features(self.image_encoder(images))

    def answer(
        self, features: Features, prompts: PromptBatch, multimask: bool = False, keep_prompt: KeepPrompt | None = None
    ) -> Answer:
        """Answer N prompts, with one mask each or several; as `SAM2Model.answer`."""
        features = features.to(self.prompt_encoder.no_mask_embed.weight.dtype)
        points = None if prompts.points is None else (prompts.points, prompts.labels)
        sparse, dense = self.prompt_encoder(points, prompts.boxes, prompts.masks, grid=features.grid)
        positions = self.prompt_encoder.get_dense_pe(features.grid)
        return self.mask_decoder(
            *(features.image, positions, sparse, dense, multimask),
            image_index=prompts.image_index,
            keep_prompt=keep_prompt,
        )

    def forward(self, *inputs: object) -> NoReturn:
        """Raise NotImplementedError: images and prompts come at different times."""
        raise NotImplementedError(
            "SAMModel has no single forward: features = model.encode(images), then model.answer(features, prompts)."
        )
