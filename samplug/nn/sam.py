"""Segment Anything: an image encoder that runs once a picture, prompts and a mask decoder that run once a question.

F pictures, N prompts, (H, W) the input size, (h, w) = (H, W) / 16 the grid of features, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from samplug.nn.mask_decoder import MaskDecoder
from samplug.nn.prompt_encoder import PromptEncoder
from samplug.nn.tiny_vit import TinyViT
from samplug.nn.types import Answer, Features, PromptBatch, Worth
from samplug.nn.vit import ImageEncoderViT


class SAMModel(nn.Module):
    """SAM and MobileSAM (arXiv 2304.02643, 2306.14289).

    Attributes:
        mask_threshold: a logit above this is on the object.
        stride: what the sides of the input must be a multiple of.
        variant: name of the architecture, such as "sam_b"; set by whoever builds it from a table.
        pixel_mean: (3, 1, 1), RGB from 0 to 255; not part of the state dict.
        pixel_std: the same.
    """

    mask_threshold: float = 0.0
    stride: int = 16
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        image_encoder: ImageEncoderViT | TinyViT,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        """Put the parts together.

        Args:
            image_encoder: pictures (F, 3, H, W) -> features (F, C, h, w).
            prompt_encoder: prompts as tokens and maps.
            mask_decoder: masks from both.
            pixel_mean: of RGB from 0 to 255.
            pixel_std: of the same.
        """
        super().__init__()
        self.variant = ""
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
        """Make another input size (H, W) the default. Nothing depends on it but who asks for `image_size`."""
        self.image_encoder.img_size = (imgsz[0], imgsz[1])
        self.prompt_encoder.set_imgsz(imgsz)

    def encode(self, images: Tensor) -> Features:
        """Look at pictures, normalised (F, 3, H, W) of any size.

        Raises:
            ValueError: if a side is not a multiple of 16.
        """
        if any(side % self.stride for side in images.shape[-2:]):
            size = " x ".join(map(str, images.shape[-2:]))
            raise ValueError(f"The input is {size} pixels: its sides must be multiples of {self.stride}.")
        return Features(self.image_encoder(images))

    def answer(
        self, features: Features, prompts: PromptBatch, multimask: bool = False, worth: Worth | None = None
    ) -> Answer:
        """Answer prompts about pictures: one mask each, or several for ambiguous prompts; as `SAM2Model.answer`."""
        points = None if prompts.points is None else (prompts.points, prompts.labels)
        sparse, dense = self.prompt_encoder(points, prompts.boxes, prompts.masks, grid=features.grid)
        positions = self.prompt_encoder.get_dense_pe(features.grid)
        return self.mask_decoder(features.image, positions, sparse, dense, multimask, owner=prompts.owner, worth=worth)

    def forward(self, *inputs: object) -> NoReturn:
        """Refuse: pictures and prompts come at different times.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "SAMModel is not called as a whole: features = model.encode(images), then "
            "model.answer(features, prompts) as often as you like."
        )
