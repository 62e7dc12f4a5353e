"""Files of fine-tuned networks: mixed with the network that was tuned (arXiv 2109.01903), and low-rank updates merged.

A mix keeps more of what the network could before than the tuned weights do, and often gives up little of the gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import TQDM

from samplug.checkpoints.load import load_model, save_model
from samplug.errors import CheckpointError
from samplug.host import LOGGER, select_device
from samplug.nn.sam2 import SAM2Model
from samplug.train.blend_settings import BlendSettings, MergeSettings
from samplug.train.data.sets import open_sets
from samplug.train.fit.evaluation import evaluate, open_anchor
from samplug.train.fit.setup import input_size
from samplug.train.lora import load_lora, merge_lora
from samplug.val.images import Network

Scores = dict[str, float]  # the share, scores on the data set, and "kept …" on the anchor


def merge(settings: MergeSettings) -> Path:
    """Write a network with the low-rank updates of a training inside its weights.

    Raises:
        CheckpointError: the updates are those of another network.
    """
    assert settings.model and settings.lora and settings.out
    model = load_model(settings.model)
    load_lora(settings.lora, model)
    merge_lora(model)
    return _write(model, settings.out, {"merged": {"model": settings.model, "lora": settings.lora}})


def blend(settings: BlendSettings) -> list[Scores]:
    """Mix a network with the one it was tuned from, and write the best mix: by the mean of its scores.

    Returns:
        The scores of the untouched network (share 0), of every mix, and of the tuned one (share 1); none without data.

    Raises:
        CheckpointError: the two files are not of one network.
        DataError: a data set cannot be read.
    """
    assert settings.model and settings.tuned and settings.out
    base, tuned = load_model(settings.model), load_model(settings.tuned)
    rows = [] if settings.data is None else _measured(base, tuned, settings)
    share = max(
        settings.shares, key=lambda share: max((_fitness(row) for row in rows if row["share"] == share), default=0)
    )
    for row in rows:
        LOGGER.info(", ".join(f"{name} {value:.3f}" for name, value in row.items()))
    _write(mixed(base, tuned, share), settings.out, {"share": share, "model": settings.model, "tuned": settings.tuned})
    LOGGER.info(f"{settings.out}: {share:g} of {settings.tuned}, the rest of {settings.model}.")
    return rows


def mixed(base: Network, tuned: Network, share: float) -> Network:
    """A network with weights between those of two.

    Raises:
        CheckpointError: their tensors have other names or shapes.
    """
    states = base.state_dict(), tuned.state_dict()
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if shapes[0] != shapes[1]:
        raise CheckpointError(
            f"{base.variant or 'One network'} and {tuned.variant or 'another'} cannot be mixed: their weights have "
            "other names or shapes. Expected a network, and the same one fine-tuned."
        )
    model = deepcopy(base)
    pairs = ((name, first, states[1][name]) for name, first in states[0].items())
    model.load_state_dict({name: _between(first, second, share) for name, first, second in pairs})
    return model


def _between(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """Exactly the one or the other at 0 and 1; counters are the other's."""
    if share in (0, 1) or not first.is_floating_point():
        return second if share else first
    return torch.lerp(first, second, share)


def _measured(base: Network, tuned: Network, settings: BlendSettings) -> list[Scores]:
    size = input_size(base, settings.of_training)
    tracks = isinstance(base, SAM2Model)
    parts = {"": open_sets(settings.of_training, size, tracks).val, "kept ": open_anchor(settings.anchor, tracks)}
    device = select_device(settings.device, verbose=False)
    rows = []

    def watch(items: Iterable[Any], description: str) -> Iterable[Any]:
        return TQDM(items, desc=description, disable=not settings.verbose)

    for share in sorted({0.0, *settings.shares, 1.0}):
        model = mixed(base, tuned, share).to(device).eval()
        row: Scores = {"share": share}
        for prefix, data in parts.items():
            if data is not None:
                scores = evaluate(model, data, size, settings.batch, watch).scores
                row |= {f"{prefix}{name}": value for name, value in scores.items()}
        rows.append(row)
    return rows


def _fitness(row: Scores) -> float:
    """The mean of all scores, those on the anchor included."""
    values = [value for name, value in row.items() if name != "share"]
    return sum(values) / len(values)


def _write(model: Network, out: str, card: dict[str, Any]) -> Path:
    """Write a network as trainings do, in float32."""
    if model.config is None:
        raise CheckpointError(f"{model.variant or 'This network'} has no description that its file could hold.")
    save_model(out, model, model.config, dtype=torch.float32, card=card)
    return Path(out)


COMMANDS: dict[type[Any], Callable[[Any], Any]] = {BlendSettings: blend, MergeSettings: merge}
