"""Memory banks in files, bound to the network that made their memories: no pickle, written in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug.array_files import ArrayFileError, damaged, read, write
from samplug.embeddings import model_fingerprint
from samplug.nn.sam2 import SAM2Model
from samplug.tracking.bank import Lesson, MemoryBank

FORMAT = "samplug memory bank 1"  # the number rises when files change so that older code cannot read them
WRITER = "SAM2DynamicInteractivePredictor.save_memory"


class MemoryBankError(ValueError):
    """A file that is no memory bank, or the memory bank of another network."""


def save_bank(path: str | os.PathLike[str], bank: MemoryBank, model: SAM2Model) -> None:
    """Write a .npz file of plain arrays; the write is atomic.

    Args:
        path: The file, under any name. Its folder must exist.
        bank: What was shown.
        model: The network whose memories these are.
    """
    header = {
        "format": FORMAT,
        "variant": model.variant,
        "model": model_fingerprint(model),
        "slots": bank.slots,
        "classes": list(bank.classes.items()),
        "names": list(bank.names.items()),
        "lessons": [[picture.name, picture.ids, picture.presence, picture.grid] for picture in bank],
    }
    write(path, header, {f"memories_{i}": picture.memories for i, picture in enumerate(bank)})


def load_bank(path: str | os.PathLike[str], model: SAM2Model) -> MemoryBank:
    """Read what `save_bank` wrote, onto the device of the network; no pickle is opened.

    Raises:
        MemoryBankError: If the file is missing, damaged, of another version or another network, or no memory bank.
    """
    try:
        header, tensors = read(Path(path), FORMAT, WRITER)
        _check_network(header, model)
        return _bank(header, tensors, model)
    except ArrayFileError as error:
        raise MemoryBankError(f"Cannot load the memory bank {path}. {error}") from error


def _check_network(header: Mapping[str, Any], model: SAM2Model) -> None:
    own = model_fingerprint(model)
    if header.get("model") != own:
        raise ArrayFileError(
            f"It is of another network: {header.get('variant') or 'one without a name'} with the fingerprint "
            f"{header.get('model')}, not {model.variant or 'one without a name'} with {own}. Load the network it was "
            "made with, or show the objects again."
        )


def _bank(header: Mapping[str, Any], tensors: Mapping[str, Tensor], model: SAM2Model) -> MemoryBank:
    """The bank in a file's header and tensors, each of which may be anything."""
    bank = MemoryBank(0)
    try:
        bank.slots = [None if obj_id is None else int(obj_id) for obj_id in header["slots"]]
        bank.classes = {int(obj_id): int(kind) for obj_id, kind in header["classes"]}
        bank.names = {int(kind): str(name) for kind, name in header["names"]}
        for i, row in enumerate(header["lessons"]):
            bank.lessons.append(_lesson(row, tensors[f"memories_{i}"], model))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(error) from error
    if len(set(bank.known)) != len(bank.known) or not {i for each in bank for i in each.ids} <= set(bank.known):
        raise damaged("its objects are not those of its pictures")
    return bank


def _lesson(row: Any, memories: Tensor, model: SAM2Model) -> Lesson:
    """One picture of the file.

    Raises:
        ValueError: the memories are not of these objects, this size and this network.
    """
    name, ids, presence, (height, width) = row
    ids, presence, grid = tuple(map(int, ids)), tuple(map(float, presence)), (int(height), int(width))
    expected = len(ids), grid[0] * grid[1], model.mem_dim
    sound = ids and len(set(ids)) == len(ids) == len(presence) and min(grid) > 0
    if not sound or tuple(memories.shape) != expected:
        raise ValueError(f"memories of {tuple(memories.shape)}, expected are {expected}")
    if not bool(torch.isfinite(memories).all()):
        raise ValueError("the memories hold NaN or infinity")
    return Lesson(str(name), ids, memories.to(model.device), presence, grid)
