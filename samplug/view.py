"""How a picture lies in the network's square or rectangular input, and the way there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_LOGIT = 10.0  # a 0/1 mask given by the user becomes plus or minus this
MASK_STRIDE = 4  # the networks take and give masks at a quarter of their input

Size = tuple[int, int]


def is_binary(mask: Tensor) -> bool:
    """Whether these logits came from a 0/1 mask, so that no value says more than on or off."""
    return bool((mask.abs() == MASK_LOGIT).all())


def shrink(mask: Tensor, size: Size) -> Tensor:
    """Resize (H, W) logits; going down averages over the pixels that fall together."""
    if tuple(mask.shape) == size:
        return mask
    return F.interpolate(mask[None, None], size, mode="bilinear", align_corners=False, antialias=True)[0, 0]


@dataclass(frozen=True)
class View:
    """How a picture lies in the network's input.

    `letterbox` is what Ultralytics' `LetterBox(auto=False, center=False)` does: one gain for both sides, the picture at
    the top left, padding to its right and below. `stretch` gives each side its own gain and leaves no padding. `pad` is
    what Meta's SAM predictor does: as `letterbox`, but halves are rounded up, and the gain is what rounding makes it.

    Attributes:
        picture: (H, W) of the picture, in pixels.
        network: (h, w) of the network's input, in pixels.
        resize: `"letterbox"`, `"stretch"` or `"pad"`.
    """

    picture: Size
    network: Size
    resize: Literal["letterbox", "stretch", "pad"] = "letterbox"

    def __post_init__(self) -> None:
        if self.resize not in ("letterbox", "stretch", "pad"):
            raise ValueError(f'resize={self.resize!r} is not known: write "letterbox", "stretch" or "pad".')

    @property
    def gains(self) -> tuple[float, float]:
        """(vertical, horizontal) factors from the picture's pixels to the network's."""
        (height, width), (h, w) = self.picture, self.network
        if self.resize == "stretch":
            return h / height, w / width
        if self.resize == "pad":
            rows, columns = self.content
            return rows / height, columns / width
        gain = min(h / height, w / width)
        return gain, gain

    @property
    def content(self) -> Size:
        """(h', w') of the resized picture inside the input; the rest, right and below, is padding."""
        if self.resize == "stretch":
            return self.network
        if self.resize == "pad":
            scale = min(n / side for n, side in zip(self.network, self.picture, strict=True))
            down, across = (max(int(side * scale + 0.5), 1) for side in self.picture)
            return down, across
        rows, columns = (max(round(side * gain), 1) for side, gain in zip(self.picture, self.gains, strict=True))
        return rows, columns

    def span(self, grid: Size) -> tuple[float, float]:
        """(rows, columns) that the picture covers in a map of this size over the whole input; rarely whole numbers."""
        rows, columns = (c * g / n for c, g, n in zip(self.content, grid, self.network, strict=True))
        return rows, columns

    def points(self, xy: Tensor) -> Tensor:
        """(…, 2) xy of the picture to xy of the input, in pixels; half a pixel is not added here."""
        return xy * xy.new_tensor(self.gains[::-1])

    def boxes(self, xyxy: Tensor) -> Tensor:
        """(…, 4) xyxy of the picture to xyxy of the input."""
        return xyxy * xyxy.new_tensor(self.gains[::-1] * 2)

    def points_back(self, xy: Tensor) -> Tensor:
        """(…, 2) xy of the input to xy of the picture; not clipped."""
        return xy / xy.new_tensor(self.gains[::-1])

    def boxes_back(self, xyxy: Tensor) -> Tensor:
        """(…, 4) xyxy of the input to xyxy of the picture, clipped to it."""
        height, width = self.picture
        boxes = xyxy / xyxy.new_tensor(self.gains[::-1] * 2)
        return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))

    def mask(self, mask: Tensor, stride: int = MASK_STRIDE) -> Tensor:
        """(H', W') logits of the picture, at any resolution, to (h / stride, w / stride) logits of the input.

        A 0/1 mask (±10) stays one at the input's resolution and is averaged only in the last step down; padding is off
        the object. Logits of the network's own mask size are such an answer fed back, and pass as they are.
        """
        h, w = self.network
        target = h // stride, w // stride
        on_or_off = is_binary(mask)
        if tuple(mask.shape) == (h // MASK_STRIDE, w // MASK_STRIDE) and not on_or_off:
            return shrink(mask.float(), target)
        resized = shrink(mask.float(), self.content)
        if on_or_off:
            resized = torch.where(resized >= 0, MASK_LOGIT, -MASK_LOGIT)
        rows, columns = self.content
        placed = F.pad(resized, (0, w - columns, 0, h - rows), value=-MASK_LOGIT)
        return shrink(placed, target)
