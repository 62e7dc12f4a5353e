"""Which network a file's tensors are of: read from their names and shapes, never from the name of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from samplug.variants import STRIDE, VARIANTS, CheckpointError, HieraRow, ViTRow

HIERA_WIDTH = "image_encoder.trunk.patch_embed.proj.weight"
VIT_WIDTH = "image_encoder.patch_embed.proj.weight"
VIT_GRID = "image_encoder.pos_embed"  # (1, h, w, C)
TINY_VIT = ("image_encoder.patch_embed.seq.", "image_encoder.layers.")
SINCE_2_1 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight")
FOREIGN = {  # how the tensors of files begin that people try, and what to tell them
    "vision_encoder.": "They have Hugging Face Transformers' names: take that model's original file instead.",
    "detector.": "They look like SAM 3, which is not supported.",
    "model.0.": "They look like a YOLO detector, which belongs in ultralytics.YOLO.",
}


def config_of(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the network from its tensors.

    Heads, windows and global blocks leave no trace in the tensors, so only networks of `VARIANTS` can be told.

    Args:
        state_dict: Tensors under the official names, without wrapper or prefix.

    Returns:
        A config for `build`: the variant, and the size of the input where it is not the variant's own.

    Raises:
        CheckpointError: If the tensors are none of the known networks'.
    """
    if HIERA_WIDTH in state_dict:
        return {"variant": _hiera_variant(state_dict)}
    if any(name.startswith(TINY_VIT) for name in state_dict):
        return {"variant": "mobile_sam"}
    if VIT_WIDTH in state_dict:
        return _vit_config(state_dict)
    hints = [hint for start, hint in FOREIGN.items() if any(name.startswith(start) for name in state_dict)]
    raise CheckpointError(
        f"Its {len(state_dict)} tensors ({', '.join([*state_dict][:3])}, …) are not those of a SAM, MobileSAM, SAM 2 "
        f"or SAM 2.1 under its official names (image_encoder.… and so on). {' '.join(hints)}".rstrip()
    )


def _hiera_variant(state_dict: Mapping[str, Tensor]) -> str:
    width, depth = _width(state_dict, HIERA_WIDTH), _count(state_dict, r"image_encoder\.trunk\.blocks\.(\d+)\.")
    sam2_1 = any(name in state_dict for name in SINCE_2_1)
    rows = [row for row in VARIANTS.values() if isinstance(row, HieraRow)]
    for row in rows:
        if (row.embed_dim, sum(row.stages), row.sam2_1) == (width, depth, sam2_1):
            return row.variant
    raise _of_no_known_size("Hiera", width, depth, {(row.embed_dim, sum(row.stages)) for row in rows})


def _vit_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    width, depth = _width(state_dict, VIT_WIDTH), _count(state_dict, r"image_encoder\.blocks\.(\d+)\.")
    rows = [row for row in VARIANTS.values() if isinstance(row, ViTRow)]
    for row in rows:
        if (row.embed_dim, row.depth) == (width, depth):
            grid = state_dict.get(VIT_GRID)  # files fine-tuned for another input have another one
            size = grid.shape[1] * STRIDE if grid is not None and grid.dim() == 4 else row.image_size
            return {"variant": row.variant} | ({"image_size": size} if size != row.image_size else {})
    raise _of_no_known_size("ViT", width, depth, {(row.embed_dim, row.depth) for row in rows})


def _of_no_known_size(trunk: str, width: int, depth: int, known: set[tuple[int, int]]) -> CheckpointError:
    sizes = ", ".join(f"{width} wide with {depth}" for width, depth in sorted(known))
    return CheckpointError(
        f"Its tensors are of a {trunk} {width} wide with {depth} blocks; known are {sizes}. Heads and windows cannot "
        "be read from tensors: save the file with samplug.checkpoints.save_model and a config that names them."
    )


def _width(state_dict: Mapping[str, Tensor], name: str) -> int:
    """The first size of a tensor; 0 for one that has none, so that no row of the table fits."""
    return next(iter(state_dict[name].shape), 0)


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the pattern finds in the names."""
    return len({found[1] for name in state_dict if (found := re.match(pattern, name))})
