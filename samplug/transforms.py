"""Image to network input: letterbox, stretch or pad, normalisation, and coordinates both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samplug.nn.constants import MASK_PROMPT_LOGIT, MASK_STRIDE, PIXEL_MEAN, PIXEL_STD

Size = tuple[int, int]


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and values in a plain layout: not sparse, nested, quantised, or on meta."""
    return not (tensor.is_nested or tensor.is_meta or tensor.is_quantized) and tensor.layout == torch.strided


def require_dense(tensor: Tensor) -> None:
    """Refuse any other tensor by a TypeError."""
    if not is_dense(tensor):
        kinds = {"nested": tensor.is_nested, "meta": tensor.is_meta, "quantised": tensor.is_quantized}
        kind = next((kind for kind, holds in kinds.items() if holds), tensor.layout)
        raise TypeError(f"got a {kind} tensor. Expected a dense one, with values.")


def numpy_of(tensor: Tensor) -> np.ndarray:
    """The values of a tensor of any device and dtype; numpy has no bfloat16, which comes as float32.

    TypeError where it is not dense.
    """
    require_dense(tensor)
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()


def tensor_of(values: np.ndarray | Tensor) -> Tensor:
    """An array as a tensor on the CPU, whatever torch's default device is; a tensor as it is."""
    return values if isinstance(values, Tensor) else torch.from_numpy(values)


def is_binary(mask: Tensor) -> bool:
    """Whether these logits were made from a 0/1 mask: all are plus or minus the same value."""
    return bool((mask.abs() == MASK_PROMPT_LOGIT).all())


def resize_logits(logits: Tensor, size: Size) -> Tensor:
    """Resize (H, W) logits; going down they are averaged (anti-aliasing)."""
    if tuple(logits.shape) == size:
        return logits
    return F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


@dataclass(frozen=True)
class ImageTransform:
    """How an image lies in the network's input.

    `letterbox` is Ultralytics' `LetterBox(auto=False, center=False)`: one gain for both sides, the image at the top
    left, padding to its right and below. `stretch` has a gain for each side and no padding. `pad` is Meta's SAM
    predictor: as `letterbox`, but halves are rounded up, and the gains follow from the rounded sides.

    Attributes:
        image_size: (H, W) of the image, in pixels.
        input_size: (h, w) of the network's input, in pixels.
        resize: `"letterbox"`, `"stretch"` or `"pad"`.
    """

    image_size: Size
    input_size: Size
    resize: Literal["letterbox", "stretch", "pad"] = "letterbox"

    def __post_init__(self) -> None:
        if self.resize not in ("letterbox", "stretch", "pad"):
            raise ValueError(f'resize={self.resize!r} is not known: write "letterbox", "stretch" or "pad".')

    @property
    def gains(self) -> tuple[float, float]:
        """(vertical, horizontal) factors from the image's pixels to the network's."""
        (height, width), (h, w) = self.image_size, self.input_size
        if self.resize == "stretch":
            return h / height, w / width
        if self.resize == "pad":
            rows, columns = self.content
            return rows / height, columns / width
        gain = min(h / height, w / width)
        return gain, gain

    @property
    def content(self) -> Size:
        """(h', w') of the resized image inside the input; the rest, right and below, is padding."""
        if self.resize == "stretch":
            return self.input_size
        if self.resize == "pad":
            scale = min(n / side for n, side in zip(self.input_size, self.image_size, strict=True))
            down, across = (max(int(side * scale + 0.5), 1) for side in self.image_size)
            return down, across
        rows, columns = (max(round(side * gain), 1) for side, gain in zip(self.image_size, self.gains, strict=True))
        return rows, columns

    def content_in(self, grid: Size) -> tuple[float, float]:
        """(rows, columns) that the image covers in a map of this size over the whole input; rarely whole numbers."""
        rows, columns = (c * g / n for c, g, n in zip(self.content, grid, self.input_size, strict=True))
        return rows, columns

    def points_to_input(self, xy: Tensor) -> Tensor:
        """(…, 2) xy of the image to xy of the input, in pixels; half a pixel is not added here."""
        return xy * xy.new_tensor(self.gains[::-1])

    def boxes_to_input(self, xyxy: Tensor) -> Tensor:
        """(…, 4) xyxy of the image to xyxy of the input."""
        return xyxy * xyxy.new_tensor(self.gains[::-1] * 2)

    def boxes_to_image(self, xyxy: Tensor) -> Tensor:
        """(…, 4) xyxy of the input to xyxy of the image, clipped to it."""
        height, width = self.image_size
        boxes = xyxy / xyxy.new_tensor(self.gains[::-1] * 2)
        return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))

    def mask_to_input(self, mask: Tensor, stride: int = MASK_STRIDE) -> Tensor:
        """(H', W') logits of the image, at any resolution, to (h / stride, w / stride) logits of the input.

        A 0/1 mask (±10) stays one at the input's resolution and is averaged only in the last step down; padding is off
        the object. Logits of the network's own mask size are an earlier answer fed back: they cover the whole input.
        """
        h, w = self.input_size
        target = h // stride, w // stride
        binary = is_binary(mask)
        if tuple(mask.shape) == (h // MASK_STRIDE, w // MASK_STRIDE) and not binary:
            return resize_logits(mask.float(), target)
        resized = resize_logits(mask.float(), self.content)
        if binary:
            resized = torch.where(resized >= 0, MASK_PROMPT_LOGIT, -MASK_PROMPT_LOGIT)
        rows, columns = self.content
        placed = F.pad(resized, (0, w - columns, 0, h - rows), value=-MASK_PROMPT_LOGIT)
        return resize_logits(placed, target)


def fit_image(image: np.ndarray, size: Size, resize: str = "letterbox") -> np.ndarray:
    """Bring an image (H, W, 3) of bytes, BGR where `resize` is `"pad"`, to the size (h, w) of the network's input.

    `resize` is as in `ImageTransform`; `"letterbox"` is Ultralytics' own. (h, w, 3) as the image: bytes when
    letterboxed, else float32 0-255.
    """
    if resize == "stretch":
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        resized = F.interpolate(tensor, tuple(size), mode="bilinear", align_corners=False, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    if resize == "pad":
        return _padded(image, size)
    from samplug.host import LetterBox  # here, so that this module needs no Ultralytics

    return LetterBox(list(size), auto=False, center=False)(image=image)


def _padded(image: np.ndarray, size: Size) -> np.ndarray:
    """Resized with PIL's anti-aliasing and surrounded by the mean, which normalises to zero."""
    from PIL import Image

    rows, columns = ImageTransform((image.shape[0], image.shape[1]), (size[0], size[1]), "pad").content
    padded = np.broadcast_to(np.array(PIXEL_MEAN[::-1], np.float32), (*size, 3)).copy()
    padded[:rows, :columns] = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    return padded


def to_rgb(batch: list[np.ndarray] | Tensor, device: torch.device) -> Tensor:
    """Stack fitted BGR images, or take a (F, 3, h, w) RGB tensor in 0-1, as (F, 3, h, w) RGB floats 0-255."""
    if isinstance(batch, Tensor):
        return batch.to(device).float() * 255
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(batch)[..., ::-1]))
    return stacked.to(device).permute(0, 3, 1, 2).float()


def normalise(
    rgb: Tensor, mean: Sequence[float] | Tensor = PIXEL_MEAN, std: Sequence[float] | Tensor = PIXEL_STD
) -> Tensor:
    """Normalise RGB (..., 3, h, w), 0-255, to float32; by default with the statistics of the released weights."""
    mean, std = (torch.as_tensor(row, dtype=torch.float32, device=rgb.device).view(3, 1, 1) for row in (mean, std))
    return (rgb.float() - mean) / std
