"""Points, boxes and masks as tokens and maps for the mask decoder.

N prompts, P points, C channels, (h, w) the grid of features: input size / 16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.constants import PADDING_LABEL
from samplug.nn.inputs import corner_labels_like, mask_size
from samplug.nn.ops.layers import LayerNorm2d
from samplug.nn.ops.positions import PositionEmbeddingRandom

HALF_PIXEL = 0.5  # coordinates count pixels; the network was trained on pixel centres


class PromptEncoder(nn.Module):
    """Embed prompts: points and box corners as tokens, a mask as a map on the grid of features."""

    def __init__(
        self, embed_dim: int, image_embedding_size: tuple[int, int], input_image_size: tuple[int, int],
        mask_in_chans: int, activation: type[nn.Module] = nn.GELU,
    ) -> None:  # fmt: skip
        """Make the embeddings.

        Args:
            embed_dim: width C of tokens and maps.
            image_embedding_size: the default grid (h, w).
            input_image_size: the default input size (H, W) in pixels, to which coordinates refer.
            mask_in_chans: hidden channels of the mask's convolutions.
            activation: their activation.
        """
        super().__init__()
        self.embed_dim = embed_dim
        self.image_embedding_size = (image_embedding_size[0], image_embedding_size[1])
        self.input_image_size = (input_image_size[0], input_image_size[1])
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        narrow = mask_in_chans // 4
        self.mask_downscaling = nn.Sequential(
            *(nn.Conv2d(1, narrow, 2, stride=2), LayerNorm2d(narrow), activation()),
            *(nn.Conv2d(narrow, mask_in_chans, 2, stride=2), LayerNorm2d(mask_in_chans), activation()),
            nn.Conv2d(mask_in_chans, embed_dim, 1),
        )

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Default size of a mask prompt."""
        return mask_size(self.image_embedding_size)

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Make another input size (H, W) the default; its grid follows at the same stride."""
        stride = self.stride
        self.input_image_size = (imgsz[0], imgsz[1])
        self.image_embedding_size = (imgsz[0] // stride, imgsz[1] // stride)

    @property
    def stride(self) -> int:
        """Pixels of the input to one of the grid."""
        return self.input_image_size[0] // self.image_embedding_size[0]

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None, *,
        grid: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Embed N prompts.

        Args:
            points: xy (N, P, 2) in pixels of the input and labels (N, P): 1 on the object, 0 off it, 2 and 3 a box's
                corners, -1 padding.
            boxes: (N, 4) or (N, 2, 2), xyxy in pixels of the input.
            masks: (N, 1, 4h, 4w) logits; other sizes are resampled.
            grid: (h, w) of the features where it is not the default; the input size follows.

        Returns:
            Tokens (N, P', C), the points and then two corners a box, with a padding point after the points where there
            are no boxes; and a map (N, C, h, w), without masks one learned vector everywhere.
        """
        grid = grid or self.image_embedding_size
        tokens = [self._points(*points, grid, pad=boxes is None)] if points is not None else []
        if boxes is not None:
            tokens.append(self._corners(boxes, grid))
        count = len(tokens[0]) if tokens else 1 if masks is None else len(masks)
        sparse = torch.cat(tokens, dim=1) if tokens else self.no_mask_embed.weight.new_empty(count, 0, self.embed_dim)
        return sparse, self._map(masks, count, grid)

    def get_dense_pe(self, grid: tuple[int, int] | None = None) -> Tensor:
        """The positions of the grid's own pixels, (1, C, h, w)."""
        return self.pe_layer(grid or self.image_embedding_size)[None].to(self.no_mask_embed.weight.dtype)

    def _points(self, xy: Tensor, labels: Tensor, grid: tuple[int, int], pad: bool) -> Tensor:
        """(N, P, 2), (N, P) -> (N, P or P + 1, C)."""
        if pad:
            xy, labels = F.pad(xy, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=PADDING_LABEL)
        height, width = grid[0] * self.stride, grid[1] * self.stride
        x, y = (xy.float() + HALF_PIXEL).unbind(-1)
        positions = self.pe_layer.encode(torch.stack([x / width, y / height], -1))
        kinds, labels = self._kinds(), labels.long()
        is_point = (labels != PADDING_LABEL)[..., None]
        return kinds[labels - PADDING_LABEL] + torch.where(is_point, positions, 0).to(kinds.dtype)

    def _kinds(self) -> Tensor:
        """The learned vector of each label, padding first: (5, C)."""
        kinds = [self.not_a_point_embed.weight]
        for kind in self.point_embeddings:
            assert isinstance(kind, nn.Embedding)
            kinds.append(kind.weight)
        return torch.cat(kinds)

    def _corners(self, boxes: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, 4) or (N, 2, 2) -> (N, 2, C)."""
        corners = boxes.reshape(-1, 2, 2)
        return self._points(corners, corner_labels_like(corners), grid, pad=False)

    def _map(self, masks: Tensor | None, count: int, grid: tuple[int, int]) -> Tensor:
        """(N, 1, 4h, 4w) -> (N, C, h, w); without masks an expanded view, which the decoder recognises."""
        if masks is None:
            return self.no_mask_embed.weight[..., None, None].expand(count, -1, *grid)
        if masks.shape[-2:] != mask_size(grid):
            masks = F.interpolate(masks.float(), mask_size(grid), mode="bilinear", align_corners=False)
        return self.mask_downscaling(masks.to(self.no_mask_embed.weight.dtype))
