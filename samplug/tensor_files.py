"""Files of tensors, opened without running any code that is in them.

What people hand over as a checkpoint is often something else: half a download, an error page, a pickled YOLO. Each is
told apart here, before and while PyTorch reads it, so that the message can say what came.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug.files import archive_fault
from samplug.variants import CheckpointError

WRAPPERS = ("ema", "model", "state_dict")  # what trainers file the tensors under; smoothed weights are the better ones
MARK = "image_encoder."  # every network has it: what stands before it in a name is a wrapper's prefix
COMPILED = "_orig_mod."  # torch.compile puts it in, wherever it was applied
GET_AGAIN = "Delete it and get it again."


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: tensors under their official names, and the `config` beside them, if there is one."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None


def read(path: Path) -> Contents:
    """Read a .pt, .pth or .safetensors file; its bytes say which it is, not its name.

    The tensors of a .pt file stay mapped to the file, so take copies of what is to outlive it.

    Raises:
        CheckpointError: If it is no file of tensors, is damaged, or wants to run code.
    """
    if not path.is_file():
        raise CheckpointError("It is a folder: give the file in it." if path.is_dir() else "There is no such file.")
    with path.open("rb") as file:
        head = file.read(64)
    contents = _reader(head)(path)
    stated = sum(tensor.numel() * tensor.element_size() for tensor in contents.tensors.values())
    if stated > path.stat().st_size:
        raise CheckpointError(f"Its tensors say to hold {stated} bytes, more than the file has. {GET_AGAIN}")
    return contents


def _reader(head: bytes) -> Callable[[Path], Contents]:
    """What reads a file that begins like this."""
    if not head:
        raise CheckpointError(f"It is empty: a download that never began? {GET_AGAIN}")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError("It is a web page, not a checkpoint: the link led to a login or an error. " + GET_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("It is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from.")
    if head[8:9] == b"{":
        return _read_safetensors
    return _read_zip if head.startswith(b"PK") else _read_old_pickle


def _read_zip(path: Path) -> Contents:
    """A file of torch.save."""
    if fault := archive_fault(path):
        raise CheckpointError(f"It is damaged: {fault}. {GET_AGAIN}")
    return unwrapped(_load(path, mmap=path.suffix != ".safetensors"))  # torch.load goes by this one suffix


def _read_old_pickle(path: Path) -> Contents:
    """A file of torch.save as it was before PyTorch 1.6, which cannot be mapped; or anything else."""
    return unwrapped(_load(path, mmap=False))


def _load(path: Path, mmap: bool) -> Any:
    _warn_where_pickles_are_unsafe()
    try:
        with path.open("rb") as file, torch.sparse.check_sparse_tensor_invariants(True):
            return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged pickles raise anything; whatever it is, there is no second, laxer attempt
        raise _refusal(str(error)) from error


def _refusal(message: str) -> CheckpointError:
    """Why PyTorch would not read a file, in words for its owner."""
    if wanted := re.search(r"GLOBAL (\S+)", message):
        return CheckpointError(
            f"It is a pickle that wants to run code ({wanted[1]}), which is never allowed here. A file with a whole "
            "model object in it (a YOLO, torch.save(model, …)) is no checkpoint: load it where you trust it and save "
            "model.state_dict() instead."
        )
    return CheckpointError(
        "PyTorch cannot read it: it is neither a checkpoint of torch.save nor a .safetensors file, or it is damaged "
        f"({message.splitlines()[0][:120] if message else 'no reason given'}). {GET_AGAIN}"
    )


@cache
def _warn_where_pickles_are_unsafe() -> None:
    if torch.__version__ < "2.10":  # a TorchVersion, which compares as numbers do
        warnings.warn(
            f"PyTorch {torch.__version__} reads checkpoints with weights_only=True, but before 2.10 that is no sandbox "
            "(CVE-2025-32434, CVE-2026-24747): open only files you trust, use .safetensors, or upgrade PyTorch.",
            stacklevel=2,
        )


def _read_safetensors(path: Path) -> Contents:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError("It is a .safetensors file: pip install samplug[safetensors] to read it.") from error
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a file is no mapping
            metadata = file.metadata() or {}
            config = json.loads(metadata["config"]) if "config" in metadata else None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"It is a damaged .safetensors file ({error}). {GET_AGAIN}") from error
    return Contents(_official_names(tensors), _described(config))


def unwrapped(payload: Any) -> Contents:
    """Find the tensors in what a trainer saved: as they are, or under one or more of `WRAPPERS`.

    Raises:
        CheckpointError: If there are none.
    """
    config = None
    while isinstance(payload, Mapping):
        config = config or _described(payload.get("config"))
        tensors = {str(name): value for name, value in payload.items() if isinstance(value, Tensor)}
        inner = next((payload[name] for name in WRAPPERS if isinstance(payload.get(name), Mapping)), None)
        if inner is None and tensors:
            return Contents(_official_names(tensors), config)
        payload = inner
    raise CheckpointError(
        "It holds no tensors by name. Accepted is a state_dict, as it is or under "
        f"{', '.join(repr(name) for name in WRAPPERS)}, for instance torch.save(model.state_dict(), path)."
    )


def _described(config: Any) -> dict[str, Any] | None:
    """A `config` of ours; trainers file other things under this name."""
    return dict(config) if isinstance(config, Mapping) and "variant" in config else None


def _official_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what wrappers (module., model., _orig_mod.) wrote before their names."""
    tensors = {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}
    prefixes = {name[: name.index(MARK)] for name in tensors if MARK in name}
    if len(prefixes) > 1:
        raise CheckpointError(
            f"It holds {len(prefixes)} networks, under {sorted(prefixes)}: save the one you want in a file of its own."
        )
    prefix = prefixes.pop() if prefixes else ""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
