"""Tensors with a header of plain values in one .npz file: atomic writes, and reads without pickle.

The header is JSON; its "format" is the kind of file and its version, its "dtype" that of all tensors.
"""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.errors import ArrayFileError
from samplug.files.atomic import DAMAGE, atomic_write, find_archive_fault, find_array_fault

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def write_npz(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of one dtype, in their own precision, by any names but "header"; the write is atomic.

    The header holds plain values, "format" among them. The file has any name; its folder must exist.
    """
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} or {"float32"}
    assert len(dtypes) == 1, "the tensors of a file have one dtype"
    arrays: dict[str, Any] = {name: _as_array(tensor) for name, tensor in tensors.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, header=np.array(json.dumps({**header, "dtype": dtypes.pop()})), **arrays)


def read_npz(path: Path, expected: str, writer: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a file that `writer` writes, named in messages; values are not checked.

    ArrayFileError if there is no such file, or it is not of this format.
    """
    arrays = _read_arrays(path, writer)
    header = _parse_header(arrays, expected, writer)
    try:
        dtype = DTYPES[header["dtype"]]
        return header, {name: _as_tensor(array, dtype) for name, array in arrays.items() if name != "header"}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged_error(error) from error


def damaged_error(reason: object) -> ArrayFileError:
    """The error for a file that contradicts itself."""
    return ArrayFileError(f"It is damaged: {reason if isinstance(reason, str) else repr(reason)}.")


def _as_array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array; numpy has no bfloat16, so those are stored as int16."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if dtype == torch.bfloat16 else tensor.to(dtype)


def _read_arrays(path: Path, writer: str) -> Mapping[str, np.ndarray]:
    try:
        if not path.is_file():
            raise ArrayFileError("There is no such file.")
    except OSError as error:
        raise ArrayFileError(f"{error.strerror}.") from error
    if fault := find_archive_fault(path) or find_array_fault(path):
        raise ArrayFileError(f"It is damaged, or was not written by {writer}: {fault}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except DAMAGE as error:
        raise ArrayFileError(f"It was not written by {writer} ({error}).") from error


def _parse_header(arrays: Mapping[str, np.ndarray], expected: str, writer: str) -> dict[str, Any]:
    try:
        header = json.loads(str(arrays["header"]))
        found = header["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArrayFileError(f"It was not written by {writer}.") from error
    if found != expected:
        raise ArrayFileError(
            f"Its format is {reprlib.repr(found)}. Expected {expected!r}: write the file again with this samplug."
        )
    return header
