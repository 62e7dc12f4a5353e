"""What Ultralytics' callbacks and integrations read of a trainer, and when they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from samplug import host
from samplug.host import DEFAULT_CFG_DICT
from samplug.train.fit.folder import RunFolder
from samplug.train.fit.state import Progress
from samplug.train.settings import TrainSettings


class TrainerEvents:
    """The attributes of a run that callbacks read; with the file of its network and functions by event.

    `args` has all of Ultralytics' names, `epoch` counts from 0 as there, `metrics` are the scores of the last epoch.
    """

    model: Any
    optimizer: Any
    train_loader: Any
    data: dict[str, Any]
    device: torch.device

    def __init__(
        self, settings: TrainSettings, folder: RunFolder, progress: Progress, base: str, callbacks: Mapping[str, list]
    ) -> None:
        self.settings, self.folder, self.progress, self.base = settings, folder, progress, base
        self.save_dir, self.wdir, self.csv = folder.path, folder.weights, folder.table
        self.last, self.best = folder.last, folder.best
        self.epoch, self.epochs, self.start_epoch = progress.epoch, settings.epochs, progress.epoch
        self.metrics: dict[str, float] = {}
        self.plots: dict[Path, Any] = {}
        self.validator = SimpleNamespace(  # what callbacks of validation get
            plots={}, names={}, save_dir=self.save_dir, metrics=SimpleNamespace(), training=True
        )
        self.stop, self.fitness, self.epoch_time, self.save_period = False, 0.0, 0.0, settings.save_period
        self.callbacks = host.copied_callbacks(callbacks)
        self.set_args(settings)
        host.add_integration_callbacks(self)

    def set_args(self, settings: TrainSettings) -> None:
        """Show these settings as `args`, beside all that Ultralytics has."""
        own = {**vars(settings), "task": "segment", "mode": "train", "model": self.base}
        self.args = host.get_cfg(overrides={"task": "segment", "mode": "train"})
        for name, value in own.items():
            known = name in DEFAULT_CFG_DICT and value is None
            setattr(self.args, name, DEFAULT_CFG_DICT[name] if known and name != "imgsz" else value)
        self.args.save_dir = str(self.save_dir)
        self.validator.args = self.args

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return int(self.settings.batch)

    @property
    def lr(self) -> dict[str, float]:
        """The largest learning rate."""
        return {"lr/pg0": self.progress.rate}

    @property
    def best_fitness(self) -> float:
        """Of the best epoch so far."""
        return self.progress.best_fitness

    @property
    def tloss(self) -> dict[str, float]:
        """The losses of the epoch so far."""
        return self.progress.means

    def label_loss_items(self, items: Mapping[str, float] | None = None, prefix: str = "train") -> Any:
        """Losses under the names of their columns; without any, the names."""
        if items is None:
            return [f"{prefix}/{name}" for name in self.tloss]
        return {f"{prefix}/{name}": value for name, value in items.items()}

    def add_callback(self, event: str, function: Callable[[Any], Any]) -> None:
        """Call a function at an event from now on."""
        self.callbacks[event].append(function)

    def run_callbacks(self, event: str, about: Any = None) -> None:
        """Call what waits for an event, with the trainer or the validator."""
        for function in list(self.callbacks.get(event, ())):
            function(self if about is None else about)

    def on_plot(self, path: Path) -> Path:
        """Note an image, so that loggers upload it."""
        self.plots[path] = {"data": None, "timestamp": 0.0}
        return path
