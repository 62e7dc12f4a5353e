"""Checkpoints in and out: a network of the right size from any file that holds one, strictly and without running code.

model = load_model("sam2.1_t.pt")        # a file, or a name that Ultralytics publishes
model = load_model(BUNDLED)              # the small model that comes with samplug
save_model("mine.pt", model, {"variant": "sam2.1_t"})
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from samplug.files import write_aside
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.recognise import config_of
from samplug.tensor_files import Contents, read, unwrapped
from samplug.variants import VARIANTS, CheckpointError, build, row_of

__all__ = [
    "BUNDLED",
    "VARIANTS",
    "CheckpointError",
    "adopt",
    "build",
    "bundled_path",
    "config_of",
    "load_model",
    "save_model",
]

BUNDLED = "samplug-nano.pt"
LISTED = 10  # names in an error before it says how many more there are
UNUSED = {  # tensors that no mask depends on: files may have them or not
    "image_encoder.norm_head.weight": "the classifier that MobileSAM's encoder was once distilled as",
    "image_encoder.norm_head.bias": "the same",
    "image_encoder.head.weight": "the same",
    "image_encoder.head.bias": "the same",
    "n_averaged": "the counter of torch.optim.swa_utils.AveragedModel",
}


def load_model(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", variant: str | None = None
) -> SAMModel | SAM2Model:
    """Load a network from a checkpoint, in float32 and ready to predict.

    The network is read from the file's tensors, or from the `config` beside them; the file's name does not matter.
    Names that Ultralytics publishes (`sam_b.pt`, `sam2.1_t.pt`, …) are fetched by its downloader if there is no file.

    Args:
        path: A .pt, .pth or .safetensors file; or a name of `VARIANTS`, with or without `.pt`.
        device: Where the network goes.
        variant: A name of `VARIANTS` that overrides what the file says.

    Returns:
        The network in eval mode, its `variant` set.

    Raises:
        CheckpointError: If the file is missing, damaged, wants to run code, or does not fit the network exactly.
    """
    found = _find(path)
    try:
        contents = read(found)
        return _network(contents, {"variant": variant} if variant else None).to(device)
    except CheckpointError as error:
        raise CheckpointError(f"Cannot load {found}. {error}") from error


def adopt(module: nn.Module) -> SAMModel | SAM2Model:
    """Take over an Ultralytics SAM or SAM 2 module: our network with a copy of its weights, on its device.

    Args:
        module: An Ultralytics `SAMModel` or `SAM2Model`, or one of ours, which is returned as it is.

    Raises:
        TypeError: If it is anything else.
        CheckpointError: If its sizes are none of the known networks'.
    """
    if isinstance(module, SAMModel | SAM2Model):
        return module
    if not any(_is_ultralytics_sam(kind) for kind in type(module).__mro__):
        raise TypeError(
            f"{type(module).__module__}.{type(module).__qualname__} is no SAM: give samplug.nn.SAMModel or SAM2Model, "
            "or the module inside ultralytics.SAM(…)."
        )
    device = next(module.parameters()).device
    return _network(unwrapped(module.state_dict())).to(device)


def save_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    config: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a network with its description beside it, so that `load_model` needs nothing else. The write is atomic.

    Args:
        path: A `.safetensors` file, or one of torch.save under any other name. Its folder must exist.
        model: The network.
        config: What `build` made it from.
        dtype: What its floats are stored in.
        card: Plain values about its making, for readers.

    Raises:
        CheckpointError: If the config describes another network, or a weight is not finite in that dtype.
    """
    row = row_of(config)
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    _check_fit(_undrawn(config), tensors)
    _check_finite(tensors)
    described = {"architecture": row.architecture} | asdict(row)
    about = {"config": json.dumps(described), "card": json.dumps(card or {})}
    with write_aside(path) as aside:
        if aside.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, aside, metadata=about)
        else:
            torch.save({"model": tensors} | {name: json.loads(text) for name, text in about.items()}, aside)


def bundled_path() -> Path:
    """Where the small model lies that comes with samplug."""
    return Path(__file__).parent / "weights" / BUNDLED


def _find(path: str | os.PathLike[str]) -> Path:
    """The file of a path or a name; one that Ultralytics publishes is fetched if it is absent."""
    asked = Path(path).expanduser()
    if asked.name in VARIANTS:
        asked = asked.with_name(f"{asked.name}.pt")
    if asked.exists():
        return asked
    if asked.name == BUNDLED:
        return bundled_path()
    return _fetch(asked) if asked.name.removesuffix(".pt") in VARIANTS else asked


def _fetch(path: Path) -> Path:
    """Let Ultralytics look for one of its files in its weights folder and, if need be, download it."""
    instead = f"Get the file elsewhere and give its path, or use {BUNDLED!r}, which comes with samplug."
    try:
        from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset
    except ImportError as error:
        raise CheckpointError(f"There is no file {path}, and Ultralytics is not here to fetch it. {instead}") from error
    if path.name not in GITHUB_ASSETS_NAMES:
        raise CheckpointError(f"There is no file {path}, and Ultralytics does not publish one. {instead}")
    try:
        return Path(attempt_download_asset(path))
    except Exception as error:  # its downloader raises what its transport raises
        raise CheckpointError(f"There is no file {path}, and it cannot be downloaded ({error}). {instead}") from error


def _is_ultralytics_sam(kind: type) -> bool:
    """Told by name: importing Ultralytics to ask would cost seconds."""
    return kind.__module__.startswith("ultralytics.models.sam.") and kind.__name__ in ("SAMModel", "SAM2Model")


def _network(contents: Contents, config: Mapping[str, Any] | None = None) -> SAMModel | SAM2Model:
    """The network these tensors are of, filled with a float32 copy of them, in eval mode."""
    if contents.config and not config:
        _check_described(contents.config, contents.tensors)
    model = _undrawn(config or contents.config or config_of(contents.tensors))
    own = model.state_dict()
    tensors = {name: tensor for name, tensor in contents.tensors.items() if name in own or name not in UNUSED}
    tensors |= {name: torch.zeros_like(own[name]) for name in UNUSED if name in own and name not in tensors}
    _check_fit(model, tensors)
    _check_finite({name: tensors[name] for name, tensor in own.items() if tensor.is_floating_point()})
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return model.eval()


def _check_described(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a description of a network far larger than its file, before that network is given memory."""
    with torch.device("meta"):
        model = build(config)
    described, held = (sum(tensor.numel() for tensor in some.values()) for some in (model.state_dict(), tensors))
    if described > 2 * held:  # a file may lack a few that are in `UNUSED`
        _check_fit(model, tensors)


class _NoDraws(TorchFunctionMode):
    """Leaves out random initialisation: seconds for a large network whose every tensor is filled afterwards."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if function in (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_):
            # Not left as it was: truncated normals are drawn again until no value lies outside.
            return args[0].zero_()
        return function(*args, **kwargs)


def _undrawn(config: Mapping[str, Any]) -> SAMModel | SAM2Model:
    """A network whose tensors hold whatever memory held: only for filling or for its shapes."""
    with _NoDraws():
        return build(config)


def _check_fit(model: SAMModel | SAM2Model, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not one for one the network's."""
    own = model.state_dict()
    differences = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape or kind": [
            f"{name} ({_form(tensors[name])}; the network's is {_form(own[name])})"
            for name in own
            if name in tensors and not _fits(tensors[name], own[name])
        ],
    }
    said = [f"{len(names)} {what}: {_listed(names)}" for what, names in differences.items() if names]
    if said:
        raise CheckpointError(f"The tensors do not fit {model.variant!r}, nothing was loaded. {'. '.join(said)}.")


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that would turn every mask into nothing."""
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors hold NaN or infinity: {_listed(broken)}. The training diverged, or float16 was too "
            "small for it: take an earlier file, or save with dtype=torch.float32."
        )


def _is_finite(tensor: Tensor) -> bool:
    """By its smallest and largest value, which are NaN where any is: no mask as large as the tensor."""
    return tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Whether a tensor can fill one of the network's. Counters may be floats: people halve all of a state_dict."""
    kinds_agree = tensor.is_floating_point() or not own.is_floating_point()
    return tensor.shape == own.shape and kinds_agree and tensor.layout is torch.strided


def _form(tensor: Tensor) -> str:
    """Shape and kind of a tensor, for people."""
    kind = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    layout = "" if tensor.layout is torch.strided else f" {tensor.layout}".replace("torch.", "")
    return f"{kind} {'x'.join(map(str, tensor.shape)) or 'scalar'}{layout}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy for the file: torch.save would write all of the memory that a view looks at."""
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kind, copy=True, memory_format=torch.contiguous_format)
