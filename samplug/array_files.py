"""Tensors with a header of plain values in one .npz file: no pickle, written in one step, told apart when read.

The header is JSON; its "format" names the kind of file and its version, its "dtype" what all tensors are of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.files import archive_fault, write_aside

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ArrayFileError(ValueError):
    """A file that is absent, damaged, or of another kind or version; the message does not name it."""


def write(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of one dtype, in their own precision; the write is atomic.

    Args:
        path: The file, under any name. Its folder must exist.
        header: Plain values, "format" among them.
        tensors: By any names but "header".
    """
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} or {"float32"}
    assert len(kinds) == 1, "the tensors of a file have one dtype"
    arrays: dict[str, Any] = {name: _bits(tensor) for name, tensor in tensors.items()}
    with write_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, header=np.array(json.dumps({**header, "dtype": kinds.pop()})), **arrays)


def read(path: Path, kind: str, writer: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a file, each value of which may still be anything.

    Args:
        path: The file.
        kind: The "format" that is wanted.
        writer: What writes such files, for messages.

    Raises:
        ArrayFileError: If there is no such file, or it is not one of this kind.
    """
    arrays = _arrays(path, writer)
    header = _header(arrays, kind, writer)
    try:
        dtype = DTYPES[header["dtype"]]
        return header, {name: _tensor(array, dtype) for name, array in arrays.items() if name != "header"}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(error) from error


def damaged(reason: object) -> ArrayFileError:
    """The error for a file that contradicts itself."""
    return ArrayFileError(f"It is damaged: {reason if isinstance(reason, str) else repr(reason)}.")


def _bits(tensor: Tensor) -> np.ndarray:
    """A tensor for numpy, which has no bfloat16: its bits as whole numbers instead."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """An array of the file as the tensor it was."""
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if dtype == torch.bfloat16 else tensor.to(dtype)


def _arrays(path: Path, writer: str) -> Mapping[str, np.ndarray]:
    """What the file holds by name."""
    if not path.is_file():
        raise ArrayFileError("There is no such file.")
    if fault := archive_fault(path):
        raise ArrayFileError(f"It is damaged, or was not written by {writer}: {fault}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError) as error:
        raise ArrayFileError(f"It was not written by {writer} ({error}).") from error


def _header(arrays: Mapping[str, np.ndarray], kind: str, writer: str) -> dict[str, Any]:
    """What the file says about itself, if it is of the kind and version that is wanted."""
    try:
        header = json.loads(str(arrays["header"]))
        found = header["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArrayFileError(f"It was not written by {writer}.") from error
    if found != kind:
        raise ArrayFileError(f"It is of the format {found!r}, this samplug reads {kind!r}: make it again.")
    return header
