"""Memory banks in files, bound to the network that encoded their memories."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug.errors import ArrayFileError, MemoryBankError
from samplug.files.embedding import model_fingerprint
from samplug.files.npz import damaged_error, read_npz, write_npz
from samplug.nn.sam2 import SAM2Model
from samplug.tracking.bank import MemoryBank, MemoryEntry
from samplug.values import check_path

BANK_FORMAT = "samplug memory bank 1"  # the number rises when older code cannot read the files
WRITER = "SAM2DynamicInteractivePredictor.save_memory"


def save_bank(path: str | os.PathLike[str], bank: MemoryBank, model: SAM2Model) -> None:
    """Write memories and which network encoded them, a .npz file of plain arrays under any name; the write is atomic.

    Its folder must exist.
    """
    header = {
        "format": BANK_FORMAT,
        "variant": model.variant,
        "model": model_fingerprint(model),
        "slots": bank.slots,
        "classes": list(bank.classes.items()),
        "names": list(bank.names.items()),
        "lessons": [[entry.name, entry.ids, entry.presence, entry.grid] for entry in bank],
    }
    write_npz(path, header, {f"memories_{i}": entry.memories for i, entry in enumerate(bank)})


def load_bank(path: str | os.PathLike[str], model: SAM2Model) -> MemoryBank:
    """Read what `save_bank` wrote, onto the device of the network; no pickle is opened.

    Raises:
        MemoryBankError: if the file is missing, damaged, of another version or another network, or not a memory bank.
    """
    try:
        check_path("path", path)
        header, tensors = read_npz(Path(path), BANK_FORMAT, WRITER)
        _check_network(header, model)
        return _parse_bank(header, tensors, model)
    except ArrayFileError as error:
        raise MemoryBankError(f"Cannot load the memory bank {path}. {error}") from error


def _check_network(header: Mapping[str, Any], model: SAM2Model) -> None:
    own = model_fingerprint(model)
    if header.get("model") != own:
        raise ArrayFileError(
            f"It is of another network: {header.get('variant') or 'unnamed'} with the fingerprint "
            f"{header.get('model')}, not {model.variant or 'unnamed'} with {own}. Load the network that made it, or "
            "prompt the objects again."
        )


def _parse_bank(header: Mapping[str, Any], tensors: Mapping[str, Tensor], model: SAM2Model) -> MemoryBank:
    """The bank of a file's header and tensors, which may hold anything."""
    bank = MemoryBank(0)
    try:
        bank.slots = [None if obj_id is None else int(obj_id) for obj_id in header["slots"]]
        bank.classes = {int(obj_id): int(kind) for obj_id, kind in header["classes"]}
        bank.names = {int(kind): str(name) for kind, name in header["names"]}
        for i, row in enumerate(header["lessons"]):
            bank.entries.append(_parse_entry(row, tensors[f"memories_{i}"], model))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged_error(error) from error
    if len(set(bank.known)) != len(bank.known) or not {i for each in bank for i in each.ids} <= set(bank.known):
        raise damaged_error("its objects are not those of its entries")
    return bank


def _parse_entry(row: Any, memories: Tensor, model: SAM2Model) -> MemoryEntry:
    """One entry of the file; ValueError if the memories are not of these objects, this size and this network."""
    name, ids, presence, (height, width) = row
    ids, presence, grid = tuple(map(int, ids)), tuple(map(float, presence)), (int(height), int(width))
    expected = len(ids), grid[0] * grid[1], model.mem_dim
    valid = ids and len(set(ids)) == len(ids) == len(presence) and min(grid) > 0
    if not valid or tuple(memories.shape) != expected:
        raise ValueError(f"memories of shape {tuple(memories.shape)}, expected {expected}")
    if not bool(torch.isfinite(memories).all()):
        raise ValueError("the memories hold NaN or infinity")
    return MemoryEntry(str(name), ids, memories.to(model.device), presence, grid)
