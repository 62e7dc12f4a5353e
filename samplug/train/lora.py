"""Low-rank adaptation (arXiv 2106.09685): matrices learn by a product of two small ones, beside the frozen weight.

The networks read weights as tensors, so layers are not replaced: a parametrisation makes the weight W + s·B·A whenever
it is read. In a state dict the weight of a site is then under three names.

I inputs, O outputs of a matrix, r rank.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn.utils import parametrize

from samplug.errors import ArrayFileError, CheckpointError
from samplug.files.embedding import model_fingerprint
from samplug.files.npz import damaged_error, read_npz, write_npz
from samplug.val.images import Network

SITES = (".attn.qkv.weight", ".q_proj.weight", ".k_proj.weight", ".v_proj.weight")
LORA_FORMAT = "samplug lora 1"  # the number rises when older code cannot read the files
SAVER = "samplug.train.lora.save_lora"
ORIGINAL, ADDED = ".parametrizations.weight.original", ".parametrizations.weight.0."


class LowRank(nn.Module):
    """A weight (O, I) -> the weight plus scale · B (O, r) · A (r, I)."""

    scale: Tensor

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.A = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, weight.shape[1]), a=5**0.5))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.register_buffer("scale", weight.new_tensor(alpha / rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I) -> the same shape."""
        return weight + self.scale * (self.B @ self.A)


def is_site(name: str) -> bool:
    """Whether a parameter is a matrix that can be adapted: the projections of attentions outside of the decoder."""
    return name.endswith(SITES) and name.startswith(("image_encoder.", "memory_attention."))


def add_lora(model: Network, sites: Iterable[str], rank: int, alpha: float | None = None) -> list[str]:
    """Adapt the weights of these names, `is_site` of which holds, in place; return the new parameters' names.

    Until a step is taken the network answers as before. Products are scaled by alpha / rank, 1 where it is None.
    """
    names = []
    for site in sites:
        module = model.get_submodule(site.removesuffix(".weight"))
        assert isinstance(module.weight, Tensor)
        low_rank = LowRank(module.weight.detach(), rank, rank if alpha is None else alpha)
        module.weight.requires_grad_(False)
        parametrize.register_parametrization(module, "weight", low_rank)
        names += [f"{site.removesuffix('.weight')}{ADDED}{factor}" for factor in "AB"]
    return names


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the products added to their weights, under the official names; others are as they were."""
    official = {name: tensor for name, tensor in state.items() if ADDED not in name and not name.endswith(ORIGINAL)}
    for name, weight in state.items():
        if name.endswith(ORIGINAL):
            site = name.removesuffix(ORIGINAL)
            scale, a, b = (state[f"{site}{ADDED}{part}"] for part in ("scale", "A", "B"))
            official[f"{site}.weight"] = weight + scale * (b @ a)
    return official


def merge_lora(model: Network) -> None:
    """Make the adapted weights the weights, in place: the network is an ordinary one again, and answers as before."""
    for module in [*model.modules()]:
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def save_lora(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], names: Collection[str], base: str, variant: str = ""
) -> None:
    """Write what a run with LoRA learned: a small file that is loaded beside its base. The write is atomic.

    `state` is that of the adapted network, or its running mean, `names` are those of the parameters that learned,
    `base` is the `model_fingerprint` of the network before anything was added.
    """
    scales = [name for name in state if name.endswith(f"{ADDED}scale")]
    header = {"format": LORA_FORMAT, "base": base, "variant": variant}
    write_npz(path, header, {name: state[name].float() for name in (*names, *scales)})


def load_lora(path: str | os.PathLike[str], model: Network) -> None:
    """Adapt a network by a file of `save_lora`, in place; `merge_lora` then makes it an ordinary one.

    Raises:
        CheckpointError: the file is missing or damaged, or was made from another network.
    """
    try:
        header, tensors = read_npz(Path(path), LORA_FORMAT, SAVER)
        own = model_fingerprint(model)
        if header.get("base") != own:
            raise ArrayFileError(
                f"It was made from {header.get('variant') or 'a network'} with the fingerprint {header.get('base')}, "
                f"not from {model.variant or 'unnamed'} with {own}. Load the file it was trained from."
            )
        _load(model, tensors)
    except ArrayFileError as error:
        raise CheckpointError(f"Cannot load {path}. {error}") from error


def _load(model: Network, tensors: Mapping[str, Tensor]) -> None:
    """Add the factors, which may be anything, and set the other tensors."""
    factors = {name.removesuffix(f"{ADDED}A"): tensor for name, tensor in tensors.items() if name.endswith(f"{ADDED}A")}
    known = dict(model.named_parameters())
    for site, factor in factors.items():
        if f"{site}.weight" not in known or not is_site(f"{site}.weight") or factor.ndim != 2 or not len(factor):
            raise damaged_error(f"{site} is no place for it")
        add_lora(model, [f"{site}.weight"], len(factor))
    try:
        unexpected = model.load_state_dict(dict(tensors), strict=False).unexpected_keys
    except RuntimeError as error:
        raise damaged_error(str(error)) from error
    if unexpected:
        raise damaged_error(f"the network has no {unexpected[0]}")
