"""Read files of tensors without running any code that is in them.

What is given as a checkpoint is often something else: half a download, an error page, a pickled YOLO. Each gets a
message of its own.
"""

import json
import re
import reprlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from samplug.errors import CheckpointError
from samplug.files.atomic import find_archive_fault

WRAPPERS = ("ema", "model", "state_dict")  # keys that trainers save the tensors under; averaged weights come first
ENCODER = "image_encoder."  # every network has it: what stands before it in a name is a wrapper's prefix
MAX_WRAPPERS = 8  # inside each other; a file whose wrapper contains itself has no end
COMPILED = "_orig_mod."  # torch.compile puts it in, wherever it was applied
GET_AGAIN = "Put a whole copy in its place: download or copy it again."


@dataclass(frozen=True, eq=False)
class Contents:
    """A file's tensors under their official names, and the `config` beside them, if there is one."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None


def read(path: Path) -> Contents:
    """Read a .pt, .pth or .safetensors file; the format is told by its bytes, not by its name.

    The tensors of a .pt file stay mapped to the file: copy what has to outlive it.

    Raises:
        CheckpointError: if it is not a file of tensors, is damaged, or wants to run code.
    """
    if not path.is_file():
        raise CheckpointError("It is a folder: give the file in it." if path.is_dir() else "There is no such file.")
    with path.open("rb") as file:
        head = file.read(64)
    contents = _reader(head)(path)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in contents.tensors.values())
    if claimed > path.stat().st_size:
        raise CheckpointError(f"Its tensors claim {claimed} bytes, more than the file has. {GET_AGAIN}")
    return contents


def _reader(head: bytes) -> Callable[[Path], Contents]:
    """The reader of a file that begins with these bytes."""
    if not head:
        raise CheckpointError(f"It is empty. {GET_AGAIN}")
    if head[7:9] == b"\0{":  # first, as the length of its header, in the first 8 bytes, may look like anything
        return _read_safetensors
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"It is a web page, not a checkpoint: the link led to a login or an error. {GET_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("It is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository.")
    return _read_zip if head.startswith(b"PK") else _read_old_pickle


def _read_zip(path: Path) -> Contents:
    if fault := find_archive_fault(path):
        raise CheckpointError(f"It is damaged: {fault}. {GET_AGAIN}")
    return unwrapped(_load(path, mmap=path.suffix != ".safetensors"))  # torch.load goes by this one suffix


def _read_old_pickle(path: Path) -> Contents:
    """A file of torch.save before PyTorch 1.6, which cannot be mapped; or anything else."""
    return unwrapped(_load(path, mmap=False))


def _load(path: Path, mmap: bool) -> Any:
    _warn_of_unsafe_pickles()
    try:
        with path.open("rb") as file, torch.sparse.check_sparse_tensor_invariants(True):
            return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged pickles raise anything; whatever it is, there is no second, laxer attempt
        raise _unreadable(str(error)) from error


def _unreadable(message: str) -> CheckpointError:
    if wanted := re.search(r"GLOBAL (\S+)", message):
        return CheckpointError(
            f"It is a pickle that wants to run code ({wanted[1]}), which is never allowed. Expected tensors by name, "
            "not a whole model object (a YOLO, torch.save(model, …)): load it where you trust it and save "
            "model.state_dict() instead."
        )
    return CheckpointError(
        "PyTorch cannot read it: expected a checkpoint of torch.save or a .safetensors file that is not damaged "
        f"({shorten(message, 120) or 'no reason given'}). {GET_AGAIN}"
    )


@cache
def _warn_of_unsafe_pickles() -> None:
    if torch.__version__ < "2.10":  # a TorchVersion, which compares as numbers do
        warnings.warn(
            f"PyTorch {torch.__version__} reads checkpoints with weights_only=True, which before 2.10 is not a "
            "sandbox (CVE-2025-32434, CVE-2026-24747): open only files you trust, use .safetensors or upgrade PyTorch.",
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
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"It is a damaged .safetensors file ({error}). {GET_AGAIN}") from error
    return Contents(_official_names(tensors), _own_config(config))


def unwrapped(payload: Any) -> Contents:
    """Find the tensors in what a trainer saved, as they are or under `WRAPPERS`; CheckpointError if there are none."""
    config = None
    for _ in range(MAX_WRAPPERS):
        if not isinstance(payload, Mapping):
            break
        config = config or _own_config(payload.get("config"))
        # Nested tensors have no shape: they cannot be weights.
        named = ((name, value) for name, value in payload.items() if isinstance(name, str))
        tensors = {name: value for name, value in named if isinstance(value, Tensor) and not value.is_nested}
        inner = next((payload[name] for name in WRAPPERS if isinstance(payload.get(name), Mapping)), None)
        if inner is None and tensors:
            return Contents(_official_names(tensors), config)
        payload = inner
    raise CheckpointError(
        "It holds no tensors by name. Expected a state_dict, as it is or under "
        f"{', '.join(repr(name) for name in WRAPPERS)}, for instance torch.save(model.state_dict(), path)."
    )


def _own_config(config: Any) -> dict[str, Any] | None:
    """A `config` of ours; trainers save other things under this name."""
    return dict(config) if isinstance(config, Mapping) and "variant" in config else None


def _official_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes of wrappers (module., model., _orig_mod.)."""
    tensors = {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}
    prefixes = {name[: name.index(ENCODER)] for name in tensors if ENCODER in name}
    if len(prefixes) > 1:
        raise CheckpointError(
            f"It holds {len(prefixes)} networks, under {reprlib.repr(sorted(prefixes))}: save the one you want in a "
            "file of its own."
        )
    prefix = prefixes.pop() if prefixes else ""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
