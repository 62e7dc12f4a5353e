"""Configs: networks described by plain values, as they stand in a file or are read from its tensors.

A `config` is `{"variant": "sam2.1_t"}`, the same with some values changed, or every value of a network that is in no
table: then with an "architecture" beside them.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from torch import Tensor

from samplug.checkpoints.families import FAMILIES, VARIANTS
from samplug.checkpoints.families.base import Row
from samplug.errors import CheckpointError
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model

MAX_VALUE = 8192  # of any number in a config: a damaged one must not ask for the memory of the whole machine
MAX_BLOCKS = 256  # in one list
ARCHITECTURES = {family.architecture: family for family in FAMILIES}
FOREIGN = {  # how the tensors of files begin that people try, and what to tell them
    "vision_encoder.": "They have the names of Hugging Face Transformers: take that model's original file instead.",
    "detector.": "They look like SAM 3, which is not supported.",
    "model.0.": "They look like a YOLO detector, which belongs in ultralytics.YOLO.",
}


def build(config: Mapping[str, Any]) -> SAMModel | SAM2Model:
    """Build a network from plain values, with fresh weights.

    Args:
        config: `{"variant": name}` with a name of `VARIANTS`, other values of its row beside it where they differ; or,
            for a network of one's own, `{"variant": any name, "architecture": "sam_vit" | "mobile_sam" | "sam2"}` and
            the values of that row.

    Returns:
        The network in training mode, its `variant` set.

    Raises:
        CheckpointError: if the values describe no network.
    """
    row = row_of(config)
    try:
        model = row.build()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"The config of {row.variant!r} cannot be built: {error}. It is {row}.") from error
    model.variant, model.config = row.variant, {"architecture": row.architecture} | asdict(row)
    return model


def row_of(config: Mapping[str, Any]) -> Row:
    """Read a config: the row of the table it names, with the values it changes.

    Raises:
        CheckpointError: if it names no variant, lacks a value, has one that is unknown or of another type.
    """
    variant, architecture = config.get("variant"), config.get("architecture")
    known = VARIANTS.get(variant) if isinstance(variant, str) else None
    named = ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    kind = type(known) if architecture is None and known else named
    if kind is None or not isinstance(variant, str):
        raise CheckpointError(
            f"Got variant={reprlib.repr(variant)}, architecture={reprlib.repr(architecture)} in a config. Expected a "
            f"'variant' of {', '.join(VARIANTS)}, or any other name beside an 'architecture' of "
            f"{', '.join(ARCHITECTURES)}."
        )
    values = asdict(known) if known is not None and isinstance(known, kind) else {}
    given = {name: value for name, value in config.items() if name != "architecture"}  # from JSON, which has no tuples
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**_checked(kind, values))


def detect_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Recognise a network by its tensors, under the official names without wrapper or prefix.

    Heads, windows and global blocks leave no trace in the tensors, so only networks of `VARIANTS` are recognised.

    Returns:
        A config for `build`: the variant, and the size of the input where it is not the variant's own.

    Raises:
        CheckpointError: if the tensors are none of the known networks'.
    """
    for family in FAMILIES:
        size = family.size_in(tensors)
        if size is not None:
            rows = [row for row in VARIANTS.values() if isinstance(row, family)]
            for row in rows:
                if row.size == size:
                    return {"variant": row.variant, **row.changes_in(tensors)}
            raise _unknown_size(family.encoder, size, rows)
    hints = [hint for start, hint in FOREIGN.items() if any(name.startswith(start) for name in tensors)]
    first = ", ".join(f"{name:.80}" for name in [*tensors][:3])
    raise CheckpointError(
        f"Its {len(tensors)} tensors ({first}, …) are not those of a SAM, MobileSAM, SAM 2 or SAM 2.1. Expected the "
        f"official names (image_encoder.… and so on). {' '.join(hints)}".rstrip()
    )


def _unknown_size(encoder: str, size: tuple[int, ...], rows: list[Row]) -> CheckpointError:
    known = ", ".join(f"{width} wide with {depth}" for width, depth in sorted({row.size[:2] for row in rows}))
    return CheckpointError(
        f"Its tensors are of a {encoder} {size[0]} wide with {size[1]} blocks; known are {known}. Heads and windows "
        "cannot be read from tensors: save the file with samplug.checkpoints.load.save_model and a config of them."
    )


def _checked(kind: type[Row], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row, if all are there and each is of its type and of a sane size."""
    known = {field.name: field for field in fields(kind)}
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    unknown = [name for name in values if name not in known]
    if missing or unknown:
        shown = reprlib.repr(unknown)  # cut: what a file holds may be of any size and depth
        raise CheckpointError(f"A config of {kind.architecture!r} lacks {missing} and must not have {shown}.")
    for name, value in values.items():
        most = MAX_BLOCKS if name in kind.block_counts else MAX_VALUE
        if not _fits(value, str(known[name].type), most):
            raise CheckpointError(
                f"Got {name}={reprlib.repr(value)} in a config. Expected {known[name].type}, numbers up to {most}."
            )
    return values


def _fits(value: Any, type_name: str, most: int) -> bool:
    """Whether a plain value is of the type a row's field is annotated with, and not above the most."""
    if type_name.startswith("tuple"):
        items = value if isinstance(value, tuple) else ()
        return 0 < len(items) <= MAX_BLOCKS and all(_fits(each, "int", most) for each in items)
    if type_name == "int":
        return type(value) is int and 0 <= value <= most
    if type_name == "float":
        return type(value) in (int, float) and 0 < value <= most
    return isinstance(value, {"str": str, "bool": bool}[type_name])
