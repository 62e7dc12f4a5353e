"""What a run needs to go on, in `weights/last.pt`: a checkpoint like any other, with the rest beside its weights."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplug.checkpoints.reader import read
from samplug.errors import CheckpointError, JobError, one_line
from samplug.files.atomic import atomic_write

STATE_PARTS = ("settings", "identity", "mean", "optimizer")  # of a state, in its file
FORMAT = "samplug training 1"  # the number rises when older code cannot go on with the files


@dataclass(eq=False)
class Progress:
    """How far a run is; plain values.

    Attributes:
        step: batches learned from.
        epoch: epochs that are complete and evaluation.
        best_epoch: that with the highest fitness; 0 is the untouched network.
        best_fitness: its fitness.
        rows: of results.csv; the first is that of the untouched network.
        sums: of each loss over the epoch's steps so far, and how many steps had it.
        rate: the largest learning rate of the last step.
        kept: scores of the untouched network on the anchor set.
        seconds: that the run took.
        stopped: whether no further epoch follows.
        complete: whether it has ended, and all files are written.
    """

    step: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best_fitness: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    rate: float = 0.0
    kept: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: bool = False
    complete: bool = False

    def add(self, losses: Mapping[str, float]) -> None:
        """Count the losses of one step."""
        for name, value in losses.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1

    @property
    def means(self) -> dict[str, float]:
        """The losses of the epoch so far."""
        return {name: total / count for name, (total, count) in self.sums.items()}


@dataclass(frozen=True, eq=False)
class RunState:
    """The content of a `last.pt`.

    Attributes:
        settings: those of the run.
        identity: what else a run is bound to: fingerprints of the network and of the data set.
        progress: how far it is.
        weights: all tensors of the network in training.
        mean: the running mean of what learns.
        optimizer: its state.
        start: what learns as it was before training; empty where nothing is rehearsed.
    """

    settings: dict[str, Any]
    identity: dict[str, Any]
    progress: Progress
    weights: dict[str, Tensor]
    mean: dict[str, Tensor]
    optimizer: dict[str, Any]
    start: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path, model: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write it beside the weights that the run would end with now; tensors that are in both are written once."""
        own = {name: tensor for name, tensor in self.weights.items() if not _same(tensor, model.get(name))}
        training = {name: getattr(self, name) for name in (*STATE_PARTS, "start")}
        training |= {"format": FORMAT, "progress": asdict(self.progress), "weights": own}
        write_tensors(path, {"model": dict(model), **about, "training": training})

    def is_bound_to(self, identity: Mapping[str, Any]) -> bool:
        """Whether a run of this identity may go on from here; earlier releases wrote no hash of the labels."""
        began = {"data": "", **self.identity}
        same_data = began["data"] in (identity["data"], identity["data"].partition("-")[0])
        return same_data and {**began, "data": ""} == {**identity, "data": ""}

    @staticmethod
    def load(path: Path) -> RunState:
        """Read what `save` wrote; no code in the file runs.

        Raises:
            JobError: there is no such file, or it holds no training.
        """
        try:
            read(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            training = content["training"]
            if training["format"] != FORMAT:
                raise JobError(f"Its format is {training['format']!r:.80}. Expected {FORMAT!r}.")
            weights, progress = {**content["model"], **training["weights"]}, Progress(**training["progress"])
            own = {name: training[name] for name in STATE_PARTS}
            return RunState(progress=progress, weights=weights, start=training.get("start", {}), **own)
        except (CheckpointError, OSError, JobError) as error:
            raise JobError(f"Cannot resume from {path}. {one_line(error)}") from error
        except (KeyError, TypeError, RuntimeError) as error:
            raise JobError(
                f"Cannot resume from {path}. It holds no training, only weights: give the weights/last.pt of a run, or "
                "start a new run with model=."
            ) from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of torch.save; the write is atomic, and equal contents make equal bytes.

    Raises:
        OSError: it cannot be written; the old file stays.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # by name, the name would be in the file
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # what torch makes of a full disk
            cause = error.__context__ if isinstance(error.__context__, OSError) else None
            number = cause.errno if cause else errno.EIO
            raise OSError(number, f"{cause.strerror if cause else one_line(error)}") from error


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.shape == other.shape and torch.equal(tensor.cpu(), other.cpu())
