"""The neck behind Hiera: a feature pyramid (arXiv 1612.03144).

F images, C channels, (H, W) a map. Levels count from 0, the finest.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.encoders.hiera import Hiera
from samplug.nn.ops.positions import sine_positions_like


class FpnNeck(nn.Module):
    """A feature pyramid without output convolutions."""

    def __init__(
        self, d_model: int, backbone_channel_list: Sequence[int], kernel_size: int = 1, stride: int = 1,
        padding: int = 0, fpn_interp_model: str = "bilinear", fuse_type: str = "sum",
        fpn_top_down_levels: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Make the neck.

        Args:
            d_model: channels of every output map.
            backbone_channel_list: channels of the input maps, coarse to fine.
            kernel_size: side of the lateral convolutions.
            stride: their stride.
            padding: their padding.
            fpn_interp_model: mode of `torch.nn.functional.interpolate` that doubles a coarse map.
            fuse_type: "sum" or "avg" of a map and the coarser one.
            fpn_top_down_levels: levels that receive the coarser map; None for all.

        Raises:
            ValueError: an unknown `fuse_type`.
        """
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f'fuse_type is {fuse_type!r}: choose "sum" or "avg".')
        self.d_model = d_model
        self.backbone_channel_list = list(backbone_channel_list)
        self.fpn_interp_model = fpn_interp_model
        self.fuse_type = fuse_type
        levels = range(len(self.backbone_channel_list))
        self.fpn_top_down_levels = list(levels if fpn_top_down_levels is None else fpn_top_down_levels)
        laterals = (nn.Conv2d(width, d_model, kernel_size, stride, padding) for width in self.backbone_channel_list)
        self.convs = nn.ModuleList(nn.Sequential(OrderedDict(conv=lateral)) for lateral in laterals)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (F, C, H, W), fine to coarse -> maps (F, d_model, H, W) and their sine positions, in the same order."""
        fused = self.fuse(maps)
        return fused, [sine_positions_like(level) for level in fused]

    def fuse(self, maps: Sequence[Tensor], heads: Sequence[nn.Conv2d] = ()) -> list[Tensor]:
        """Maps (F, C, H, W), fine to coarse -> maps alone (F, d_model, H, W), without positions, in the same order.

        `heads` are 1×1 convolutions that follow on the finest maps, which then have their width.
        """
        outputs: list[Tensor] = []
        fused: Tensor | None = None
        for level in reversed(range(len(maps))):
            lateral = self.convs[len(maps) - 1 - level].conv
            assert isinstance(lateral, nn.Conv2d)
            head = heads[level] if level < len(heads) else None
            if head is not None and self._is_independent(level, len(maps)):
                outputs.append(compose(lateral, head, maps[level]))
                continue
            coarser = fused if level in self.fpn_top_down_levels else None
            fused = lateral(maps[level]) if coarser is None else self._add(lateral(maps[level]), coarser)
            outputs.append(fused if head is None else head(fused))
        return outputs[::-1]

    def _is_independent(self, level: int, count: int) -> bool:
        """Whether a level neither receives the coarser map nor is received by the finer one."""
        receives = level in self.fpn_top_down_levels and level < count - 1
        return not receives and not (level and level - 1 in self.fpn_top_down_levels)

    def _add(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Add a coarse map to one twice its size."""
        # As trained: the coarse map is doubled in float32, whatever the network's dtype.
        doubled = F.interpolate(coarse.float(), scale_factor=2.0, mode=self.fpn_interp_model).to(fine.dtype)
        return (fine + doubled) / 2 if self.fuse_type == "avg" else fine + doubled


def compose(first: nn.Conv2d, second: nn.Conv2d, x: Tensor) -> Tensor:
    """`second(first(x))` of a convolution and a 1×1 convolution, in one: the wide map between them is never made."""
    assert first.bias is not None and second.bias is not None
    narrow = second.weight.flatten(1)
    weight = (narrow @ first.weight.flatten(1)).unflatten(1, first.weight.shape[1:])
    return F.conv2d(x, weight, narrow @ first.bias + second.bias, first.stride, first.padding)


class ImageEncoder(nn.Module):
    """Trunk and neck."""

    def __init__(self, trunk: Hiera, neck: FpnNeck, scalp: int = 0) -> None:
        """Join a trunk, images -> maps, and a neck of its `channel_list`, maps -> maps of one width.

        `scalp` of the coarsest maps are dropped.

        Raises:
            ValueError: trunk and neck have different channels.
        """
        super().__init__()
        if list(trunk.channel_list) != neck.backbone_channel_list:
            raise ValueError(
                f"The trunk gives {list(trunk.channel_list)} channels, the neck expects {neck.backbone_channel_list}: "
                "build the neck with the trunk's channel_list."
            )
        self.trunk = trunk
        self.neck = neck
        self.scalp = scalp

    def forward(
        self, images: Tensor, heads: Sequence[nn.Conv2d] = (), positions: bool = True
    ) -> dict[str, Tensor | list[Tensor]]:
        """Encode images (F, 3, H, W), normalised.

        `heads` are as in `FpnNeck.fuse`. Positions cost time, and only a memory reads the coarsest.

        Returns:
            `backbone_fpn`, maps (F, d_model, H, W) from fine to coarse; `vision_features`, the last of them;
            `vision_pos_enc`, their sine positions, if asked for.
        """
        maps = self.neck.fuse(self.trunk(images), heads)
        maps = maps[: len(maps) - self.scalp]
        encoded: dict[str, Tensor | list[Tensor]] = {"vision_features": maps[-1], "backbone_fpn": maps}
        if positions:
            encoded["vision_pos_enc"] = [sine_positions_like(level) for level in maps]
        return encoded
