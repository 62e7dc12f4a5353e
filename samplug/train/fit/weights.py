"""The files of a finished run: ours, and those that Ultralytics and Meta's code load by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug.benchmark.weights import CLASSIFIER
from samplug.checkpoints.families import VARIANTS
from samplug.nn.sam2 import SAM2Model
from samplug.train.fit.state import write_tensors
from samplug.val.images import Network

SAMPLUG_ONLY = ("samplug-nano",)  # variants that only samplug knows


def stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a file: on the CPU, floats in float32, each with a storage of its own."""
    layout = torch.contiguous_format
    dtypes = {name: torch.float32 if tensor.is_floating_point() else tensor.dtype for name, tensor in state.items()}
    return {
        name: tensor.detach().to("cpu", dtypes[name], copy=True, memory_format=layout) for name, tensor in state.items()
    }


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write weights with their description, as `load_model` reads them; equal ones make equal bytes."""
    about = json.dumps({"config": config, "card": card})  # and back: pickles tell one text from two equal ones
    write_tensors(path, {"model": dict(tensors), **json.loads(about)})


def write_export(folder: Path, tensors: Mapping[str, Tensor], model: Network) -> Path | None:
    """Write weights as Meta's own files are, under a name by which Ultralytics knows the network; None for our own.

    SAM 2's are under "model", those of SAM and MobileSAM bare, MobileSAM's with its unused classifier.
    """
    if model.variant in SAMPLUG_ONLY or model.variant not in VARIANTS:
        return None
    path = folder / f"best_{model.variant}.pt"
    missing = CLASSIFIER.keys() - tensors.keys() if model.variant == "mobile_sam" else ()
    content = {**tensors, **{name: torch.zeros(CLASSIFIER[name]) for name in sorted(missing)}}
    write_tensors(path, {"model": content} if isinstance(model, SAM2Model) else content)
    return path
