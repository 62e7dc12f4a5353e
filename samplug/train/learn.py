"""Which parameters learn, in which mode their modules are meanwhile, and at which rates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from samplug.checkpoints.families.mobile_sam import UNUSED_CLASSIFIER
from samplug.data.help import SCENES
from samplug.errors import JobError
from samplug.nn.encoders.tiny_vit import TinyViT
from samplug.nn.sam2 import SAM2Model
from samplug.train.lora import ADDED, LowRank, add_lora, is_site
from samplug.train.settings import LEARN, TrainSettings
from samplug.val.images import Network

Freeze = str | int | Iterable[str | int] | None

ENCODER, MEMORY_ATTENTION = "image_encoder.", "memory_attention."
PROMPTS = ("prompt_encoder.", "sam_prompt_encoder.")
DECODER = ("mask_decoder.", "sam_mask_decoder.")
BLOCK = re.compile(r"image_encoder\.(?:trunk\.)?(?:layers\.\d+\.)?blocks\.\d+\.")
TOKEN_RATE = 2.0  # times the rate of the decoder


def part_of(name: str) -> str:
    """The part of a network that a parameter belongs to.

    "encoder", "features" (the decoder's first convolutions, which are run with the encoder), "prompts", "transformer",
    "heads" (the decoder's tokens and what reads them), "image" (what stands for no memory), "pointer", "memory",
    "classifier", or "probe", which exists in training only.
    """
    if name in UNUSED_CLASSIFIER:
        return "classifier"
    if name.startswith(ENCODER):
        return "encoder"
    if name.startswith(PROMPTS):
        return "prompts"
    if name.startswith(DECODER):
        inside = name.partition(".")[2]
        if inside.startswith("conv_s"):
            return "features"
        return "transformer" if inside.startswith("transformer.") else "heads"
    if name == "no_mem_embed":
        return "image"
    part = name.partition(".")[0]
    return {"obj_ptr_proj": "pointer", "probe": "probe"}.get(part, "memory")


LEARNS = {  # the parts that learn; of the encoder "late" takes half of the blocks, the last ones, and the neck
    "token": {"heads"},
    "decoder": {"heads", "transformer", "pointer"},
    "late": {"heads", "transformer", "pointer", "features", "encoder"},
    "memory": {"heads", "transformer", "pointer", "memory"},
    "all": {"heads", "transformer", "pointer", "features", "encoder", "prompts", "image", "memory"},
}
FOR_CLIPS = {"pointer", "memory"}  # parts that no answer on an image depends on


def select_learning(
    model: Network, learn: str = "decoder", freeze: Freeze = None, lora: int = 0, clips: bool = False
) -> list[str]:
    """Choose what learns: sets `requires_grad` of all parameters and the modes of all modules.

    Args:
        model: changed in place; with `lora` factors are added to it.
        learn: "token", "decoder", "late", "memory" or "all".
        freeze: what does not learn nevertheless: beginnings of parameter names; a number, so many first blocks of the
            encoder and what comes before them; or a list of numbers of blocks.
        lora: rank; the attentions of the encoder and the memory then learn by small factors, and nothing else in them.
        clips: whether the data are clips: images train no memory.

    Returns:
        The names of the parameters that learn.

    Raises:
        JobError: the choice makes no sense for this network or these data.
    """
    _check_choice(model, learn, lora, clips)
    every = [name for name, _ in model.named_parameters()]
    parts = LEARNS[learn] - (set() if clips else FOR_CLIPS)
    depths = block_numbers(every)
    first = (max(depths.values()) + 2) // 2 if learn == "late" else -1
    names = [name for name in every if part_of(name) in parts and depths.get(name, first) >= first]
    frozen = _frozen(every, depths, freeze)
    names = [name for name in names if name not in frozen]
    if lora:
        sites = [name for name in names if is_site(name)]
        if not sites:
            raise JobError(
                f"lora={lora} adapts the attentions of the image encoder and of the memory, of which none learns with "
                f"learn={learn} here. Expected learn=late, all, or memory on clips; or leave lora out."
            )
        names = [name for name in names if not name.startswith((ENCODER, MEMORY_ATTENTION))]
        names += add_lora(model, sites, lora)
    if not names:
        raise JobError(f"freeze={freeze} leaves nothing of learn={learn} to learn. Expected fewer names in freeze.")
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    set_training_modes(model)
    return names


def _check_choice(model: Network, learn: str, lora: int, clips: bool) -> None:
    if learn not in LEARN:
        raise JobError(f"learn={learn!r}. Expected one of {', '.join(LEARN)}.")
    if learn == "memory" and not isinstance(model, SAM2Model):
        raise JobError(f"learn=memory: {model.variant or 'this network'} has no memory. Expected a SAM 2 network.")
    if learn == "memory" and not clips:
        raise JobError("learn=memory: the data are images, which train no memory. Expected clips, or learn=decoder.")
    if lora < 0:
        raise JobError(f"lora={lora}. Expected a rank, 1 or more; 0 for none.")


def block_numbers(names: Iterable[str]) -> dict[str, int]:
    """The number of the encoder's block that each of its parameters belongs to or follows; -1 before the first."""
    numbers: dict[str, int] = {}
    seen: list[str] = []
    for name in names:
        if name.startswith(ENCODER):
            block = BLOCK.match(name)
            if block and block[0] not in seen:
                seen.append(block[0])
            numbers[name] = len(seen) - 1
    return numbers


def _frozen(every: list[str], depths: dict[str, int], freeze: Freeze) -> set[str]:
    """The names that `freeze` keeps as they are."""
    frozen: set[str] = set()
    given = freeze.split(",") if isinstance(freeze, str) else [] if freeze is None else freeze
    if isinstance(given, int):  # so many first blocks, and what comes before them
        given = [*range(-1, given)] or [given - 1]
    last = max(depths.values())
    for each in given:
        if isinstance(each, int):
            if isinstance(freeze, bool) or not -1 <= each <= last:
                raise JobError(f"freeze={freeze!r}. Expected numbers of the encoder's {last + 1} blocks, or names.")
            found = {name for name, number in depths.items() if number == each}
        else:
            found = {name for name in every if name.startswith(each.strip())}
        if not found:
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in every))
            raise JobError(f"freeze={freeze!r}: no parameter's name begins with {each!r}. Expected one of {parts}, …")
        frozen |= found
    return frozen


def set_training_modes(model: Network) -> None:
    """Training mode, but for what must not change while it is frozen, and for batch norms, which never learn.

    The network and its decoder stay in training mode even if frozen: evaluation would replace masks that are unstable
    and space memories differently. Frozen parts drop nothing out. MobileSAM's encoder keeps the statistics of its batch
    norms, which a batch of a few images would ruin.
    """
    model.train()
    for name, part in model.named_children():
        learns = any(parameter.requires_grad for parameter in part.parameters())
        if isinstance(part, TinyViT) or not learns and f"{name}." not in DECODER:
            part.eval()


@dataclass(frozen=True)
class Rates:
    """The rate of the decoder; in such rates those of the encoder's last block and of the memory; layer decay.

    The latter is the rate of a block in that of the next.
    """

    decoder: float = 1e-4
    encoder: float = 0.1
    layer_decay: float = 0.9
    memory: float = 0.2

    @staticmethod
    def of(model: Network, settings: TrainSettings) -> Rates:
        """Those of the settings; where they say nothing, those of the network."""
        rates = {"decoder": settings.lr0, "encoder": settings.encoder_rate, "layer_decay": settings.layer_decay}
        rates["memory"] = 1.0 if settings.data == SCENES else None  # which begins with nothing there
        given = {name: rate for name, rate in rates.items() if rate is not None}
        return replace(OWN_RATES.get(model.variant, Rates()), **given)


OWN_RATES = {"samplug-nano": Rates(5e-4, 1.0, 1.0)}  # small networks learn faster, and everywhere


def parameter_groups(model: Network, settings: TrainSettings) -> list[dict[str, Any]]:
    """Parameters that learn, after `select_learning`, in groups of a rate and weight decay for an optimiser.

    Each has `params`, `names`, `lr`, `initial_lr` and `weight_decay`.
    """
    rates = Rates.of(model, settings)
    decaying, numbers = decaying_names(model), block_numbers(name for name, _ in model.named_parameters())
    groups: dict[tuple[float, float], dict[str, list[Any]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = rates.decoder * _rate_factor(name, numbers, rates, settings.learn)
            decay = settings.weight_decay if name in decaying else 0.0
            group = groups.setdefault((rate, decay), {"params": [], "names": []})
            group["params"].append(parameter)
            group["names"].append(name)
    return [{**group, "lr": rate, "initial_lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def _rate_factor(name: str, numbers: dict[str, int], rates: Rates, learn: str) -> float:
    """The rate of a parameter in rates of the decoder."""
    part = part_of(name)
    if ADDED in name:  # low-rank factors start from nothing
        return 1.0
    if part == "encoder":
        return rates.encoder * rates.layer_decay ** (max(numbers.values()) - numbers[name])
    if part == "memory":
        return rates.memory
    return TOKEN_RATE if learn == "token" else 1.0


def decaying_names(model: nn.Module) -> set[str]:
    """The parameters that weight decay pulls towards 0: matrices and kernels, not biases, norms and embeddings."""
    names = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            names.add(f"{name}.weight")
        elif isinstance(module, LowRank):
            names |= {f"{name}.A", f"{name}.B"}
    return names
