"""Load and save networks: of the right size from any file that holds one, strictly and without running its code.

model = load_model("sam2.1_t.pt")        # a file, or a name that Ultralytics publishes
model = load_model(BUNDLED)              # the small model that comes with samplug
save_model("mine.pt", model, {"variant": "sam2.1_t"})
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from samplug.checkpoints.config import build, detect_config, row_of
from samplug.checkpoints.families import FAMILIES, VARIANTS
from samplug.checkpoints.reader import Contents, read, unwrapped
from samplug.errors import CheckpointError
from samplug.files.atomic import atomic_write
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.runtime.finite import is_finite
from samplug.runtime.torch_state import lasting_tensors
from samplug.values import check_path

BUNDLED = "samplug-nano.pt"
URL = re.compile(r"\w{2,}:/")  # a drive has one letter
SAM_CLASSES = ("SAMModel", "SAM2Model")  # of networks, ours and Ultralytics'
LISTED = 10  # names in an error before it says how many more there are
UNUSED = (  # tensors that no mask depends on: files may have them or not
    *(name for family in FAMILIES for name in family.unused),
    "n_averaged",  # the counter of torch.optim.swa_utils.AveragedModel
)


def load_model(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", variant: str | None = None
) -> SAMModel | SAM2Model:
    """Load a network from a checkpoint, in float32 and ready to predict.

    The network is read from the file's tensors, or from the `config` beside them; the file's name does not matter.
    Names that Ultralytics publishes (`sam_b.pt`, `sam2.1_t.pt`, …) are fetched by its downloader if there is no file.

    Args:
        path: a .pt, .pth or .safetensors file; or a name of `VARIANTS`, with or without `.pt`.
        device: where the network goes.
        variant: a name of `VARIANTS` that overrides the file.

    Returns:
        The network in eval mode, its `variant` set.

    Raises:
        CheckpointError: if the file is missing, damaged, wants to run code, or does not fit the network exactly.
    """
    check_path("model", path)
    if URL.match(str(path)):
        raise CheckpointError(
            f"Cannot load {path}. Expected a file: download it yourself where you trust its origin, or give the name "
            f"of one that Ultralytics publishes ({', '.join([*VARIANTS][:3])}, …)."
        )
    try:
        found = _find(path)
        network = _network(read(found), {"variant": variant} if variant else None)
    except (CheckpointError, OSError, RuntimeError) as error:  # the system and torch refuse what no check foresaw
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"Cannot load {path}. {reason}") from error
    return network.to(device)


def require_values(model: nn.Module) -> None:
    """Refuse a network of which a part lies on torch's device "meta", by a ValueError."""
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError('The network lies on torch\'s device "meta", without values: load its file again.')


def load_weights(weights: str | os.PathLike[str] | nn.Module | Mapping[str, Any]) -> SAMModel | SAM2Model:
    """Load a network from a checkpoint, a module as `adopt` takes it, or a state dict, wrapped or not."""
    if isinstance(weights, Mapping):
        return _network(unwrapped(weights))
    return adopt(weights) if isinstance(weights, nn.Module) else load_model(weights)


def adopt(module: nn.Module) -> SAMModel | SAM2Model:
    """Copy the weights of an Ultralytics `SAMModel` or `SAM2Model` into our network, on its device.

    One of ours is returned as it is.

    Raises:
        TypeError: if it is anything else.
        CheckpointError: if its sizes are none of the known networks'.
    """
    if isinstance(module, SAMModel | SAM2Model):
        return module
    kinds = ((kind.__module__, kind.__name__) for kind in type(module).__mro__)  # importing Ultralytics costs seconds
    if not any(place.startswith("ultralytics.models.sam.") and name in SAM_CLASSES for place, name in kinds):
        raise TypeError(
            f"{type(module).__module__}.{type(module).__qualname__} is not a SAM. Expected samplug.nn.SAMModel or "
            "SAM2Model, or the module inside ultralytics.SAM(…)."
        )
    device = next(module.parameters()).device
    return _network(unwrapped(module.state_dict())).to(device)


def save_model(
    path: str | os.PathLike[str], model: nn.Module, config: Mapping[str, Any], dtype: torch.dtype = torch.float16,
    card: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a network with its description beside it, so that `load_model` needs nothing else. The write is atomic.

    Args:
        path: a `.safetensors` file, or one of torch.save under any other name. Its folder must exist.
        model: the network.
        config: what `build` made it from.
        dtype: of its floats in the file.
        card: plain values about its making, for readers.

    Raises:
        CheckpointError: if the config describes another network, or a weight is not finite in that dtype.
    """
    row = row_of(config)
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    _check_fit(_uninitialised(config), tensors)
    _check_finite(tensors)
    config = {"architecture": row.architecture} | asdict(row)
    about = {"config": json.dumps(config), "card": json.dumps(card or {})}
    with atomic_write(path) as temporary:
        if temporary.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata=about)
        else:
            content = {"model": tensors} | {name: json.loads(text) for name, text in about.items()}
            with temporary.open("wb") as file:  # by its name, torch.save would put that into the file
                torch.save(content, file)


def bundled_path() -> Path:
    """The file of the small model that comes with samplug."""
    return Path(__file__).parents[1] / "weights" / BUNDLED


def _find(path: str | os.PathLike[str]) -> Path:
    """The file of a path or a name; one that Ultralytics publishes is fetched if it is absent."""
    file = Path(path).expanduser()
    if file.name in VARIANTS:
        file = file.with_name(f"{file.name}.pt")
    if file.exists():
        return file
    if file.name == BUNDLED:
        return bundled_path()
    return _fetch(file) if file.name.removesuffix(".pt") in VARIANTS else file


def _fetch(path: Path) -> Path:
    """Let Ultralytics find one of its files in its weights folder, or download it."""
    instead = f"Get the file elsewhere and give its path, or use {BUNDLED!r}, which comes with samplug."
    try:
        from samplug import host
    except ImportError as error:
        raise CheckpointError(f"There is no file {path}, and no Ultralytics to download it. {instead}") from error
    try:
        found = host.download_weights(path)
    except Exception as error:  # its downloader raises what its transport raises
        raise CheckpointError(f"There is no file {path}, and it cannot be downloaded ({error}). {instead}") from error
    if found is None:
        raise CheckpointError(f"There is no file {path}, and Ultralytics does not publish one. {instead}")
    return found


def _network(contents: Contents, config: Mapping[str, Any] | None = None) -> SAMModel | SAM2Model:
    """The network of these tensors, filled with a float32 copy of them, in eval mode."""
    if contents.config and not config:
        _check_size(contents.config, contents.tensors)
    with lasting_tensors():
        model = _uninitialised(config or contents.config or detect_config(contents.tensors))
        own = model.state_dict()
        tensors = {name: tensor for name, tensor in contents.tensors.items() if name in own or name not in UNUSED}
        tensors |= {name: torch.zeros_like(own[name]) for name in UNUSED if name in own and name not in tensors}
        _check_fit(model, tensors)
        _check_finite({name: tensors[name] for name, tensor in own.items() if tensor.is_floating_point()})
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return model.eval()


def _check_size(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a config of a network far larger than its file, before that network is given memory."""
    with torch.device("meta"):
        model = build(config)
    expected, found = (sum(tensor.numel() for tensor in some.values()) for some in (model.state_dict(), tensors))
    if expected > 2 * found:  # a file may lack a few that are in `UNUSED`
        _check_fit(model, tensors)


class _SkipInit(TorchFunctionMode):
    """Skips random initialisation: seconds for a large network whose every tensor is filled afterwards."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if function in (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_):
            # Not left as it was: truncated normals are drawn again until no value lies outside the bounds.
            return args[0].zero_()
        return function(*args, **kwargs)


def _uninitialised(config: Mapping[str, Any]) -> SAMModel | SAM2Model:
    """A network with arbitrary values, to be filled or for its shapes."""
    with _SkipInit():
        return build(config)


def _check_fit(model: SAMModel | SAM2Model, tensors: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    differences = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape or dtype": [
            f"{name} ({_form(tensors[name])}, expected {_form(own[name])})"
            for name in own
            if name in tensors and not _fits(tensors[name], own[name])
        ],
    }
    lines = [f"{len(names)} {what}: {_listed(names)}" for what, names in differences.items() if names]
    if lines:
        raise CheckpointError(f"The tensors do not fit {model.variant!r}, nothing was loaded. {'. '.join(lines)}.")


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors hold NaN or infinity: {_listed(broken)}. The training diverged, or float16 was too "
            "small for it: take an earlier file, or save with dtype=torch.float32."
        )


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Whether a tensor can fill one of the network's. Counters may be floats: people halve all of a state_dict."""
    dtypes_agree = tensor.is_floating_point() or not own.is_floating_point()
    return tensor.shape == own.shape and dtypes_agree and tensor.layout is torch.strided and not tensor.is_meta


def _form(tensor: Tensor) -> str:
    """Dtype, shape and layout of a tensor, for messages."""
    dtype = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    layout = "" if tensor.layout is torch.strided else f" {tensor.layout}".replace("torch.", "")
    values = " without values" if tensor.is_meta else ""
    return f"{dtype} {'x'.join(map(str, tensor.shape)) or 'scalar'}{layout}{values}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(f"{name:.300}" for name in names[:LISTED]) + more


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy for the file: torch.save would write the whole storage of a view."""
    stored_dtype = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", stored_dtype, copy=True, memory_format=torch.contiguous_format)
