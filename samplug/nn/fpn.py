"""The neck behind Hiera: every stage's map brought to one width, coarse maps added to finer ones.

F pictures, C channels, (H, W) a map. Levels count from 0, the finest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from samplug.nn.hiera import Hiera
from samplug.nn.layers import sine_positions


class FpnNeck(nn.Module):
    """A feature pyramid without output convolutions."""

    def __init__(
        self, d_model: int, backbone_channel_list: Sequence[int], kernel_size: int = 1, stride: int = 1,
        padding: int = 0, fpn_interp_model: str = "bilinear", fuse_type: str = "sum",
        fpn_top_down_levels: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Make the neck.

        Args:
            d_model: channels of every map that comes out.
            backbone_channel_list: channels of the maps that come in, coarse to fine.
            kernel_size: side of the lateral convolutions.
            stride: their stride.
            padding: their padding.
            fpn_interp_model: how a coarse map is doubled in size, a mode of `torch.nn.functional.interpolate`.
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
        self.convs = nn.ModuleList()
        for channels in self.backbone_channel_list:
            lateral = nn.Conv2d(channels, d_model, kernel_size, stride, padding)
            self.convs.append(nn.Sequential())
            self.convs[-1].add_module("conv", lateral)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (F, C, H, W), fine to coarse -> maps (F, d_model, H, W) and their sine positions, in the same order."""
        fused = self.fuse(maps)
        return fused, [positions_of(level) for level in fused]

    def fuse(self, maps: Sequence[Tensor], heads: Sequence[nn.Conv2d] = ()) -> list[Tensor]:
        """The maps alone: positions cost time, and the finer ones have no use.

        Args:
            maps: (F, C, H, W), fine to coarse.
            heads: 1×1 convolutions that follow on the finest maps.

        Returns:
            Maps (F, d_model, H, W), fine to coarse; those with a head have its width.
        """
        fused: list[Tensor] = []
        last = len(maps) - 1
        for level in range(last, -1, -1):
            lateral = self.convs[last - level].conv
            assert isinstance(lateral, nn.Conv2d)
            if level < len(heads) and self.stands_alone(level, last):
                fused.append(both(lateral, heads[level], maps[level]))
            elif level in self.fpn_top_down_levels and fused:
                fused.append(self.join(lateral(maps[level]), fused[-1]))
            else:
                fused.append(lateral(maps[level]))
        fused.reverse()
        for level, head in enumerate(heads):
            fused[level] = fused[level] if self.stands_alone(level, last) else head(fused[level])
        return fused

    def stands_alone(self, level: int, last: int) -> bool:
        """Whether a level neither receives the coarser map nor is received by the finer one."""
        receives = level in self.fpn_top_down_levels and level < last
        return not receives and not (level and level - 1 in self.fpn_top_down_levels)

    def join(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Add a coarse map to one twice its size."""
        # As trained: the coarse map is doubled in float32, whatever the network's dtype.
        doubled = F.interpolate(coarse.float(), scale_factor=2.0, mode=self.fpn_interp_model).to(fine.dtype)
        return (fine + doubled) / 2 if self.fuse_type == "avg" else fine + doubled


def both(first: nn.Conv2d, second: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution and a 1×1 convolution after it, in one: the wide map between them is never made."""
    assert first.bias is not None and second.bias is not None
    narrow = second.weight.flatten(1)
    weight = (narrow @ first.weight.flatten(1)).unflatten(1, first.weight.shape[1:])
    return F.conv2d(x, weight, narrow @ first.bias + second.bias, first.stride, first.padding)


def positions_of(level: Tensor, channels: int | None = None) -> Tensor:
    """Sine positions of a map, of its dtype; as wide as the map where `channels` are not given."""
    count, width_of_map, height, width = level.shape
    positions = sine_positions((height, width), channels or width_of_map, level.device)
    return positions.to(level.dtype).expand(count, -1, -1, -1)


class ImageEncoder(nn.Module):
    """Trunk and neck."""

    def __init__(self, trunk: Hiera, neck: FpnNeck, scalp: int = 0) -> None:
        """Join them.

        Args:
            trunk: pictures -> maps, fine to coarse; its `channel_list` is the neck's.
            neck: maps -> maps of one width.
            scalp: how many of the coarsest maps are left out of the result.

        Raises:
            ValueError: trunk and neck disagree about the channels.
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
        """Encode pictures (F, 3, H, W).

        Args:
            images: normalised pictures.
            heads: 1×1 convolutions that follow on the finest maps.
            positions: whether to make them; they cost time, and only a memory asks for the coarsest.

        Returns:
            `backbone_fpn`, maps (F, d_model, H, W) from fine to coarse, those with a head of its width;
            `vision_features`, the last of them; `vision_pos_enc`, their sine positions, if asked for.
        """
        fused = self.neck.fuse(self.trunk(images), heads)
        maps = fused[: len(fused) - self.scalp]
        encoded: dict[str, Tensor | list[Tensor]] = {"vision_features": maps[-1], "backbone_fpn": maps}
        if positions:
            encoded["vision_pos_enc"] = [positions_of(level) for level in maps]
        return encoded
