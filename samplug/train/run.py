"""A leg of training from beginning to end: begin or go on, keep checkpoints, tell how it goes, make the file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from samplug.checkpoints import build, save_model
from samplug.files import write_aside
from samplug.nn.sam2 import SAM2Model

from .batches import Batch, Steps
from .check import look
from .curves import Curves, line, plot
from .settings import Settings
from .start import listen_to_prompts, look_at_the_same_place
from .trainer import Trainer

CONFIG = {"variant": "samplug-nano"}
CHECKPOINT, CURVES, WEIGHTS, CARD = "last.pt", "curves.csv", "samplug-nano.pt", "samplug-nano.json"


@dataclass(frozen=True)
class Leg:
    """Where a leg is kept and how it is watched; none of this changes the curve.

    Attributes:
        folder: For `last.pt`, `curves.csv` and, at the end, `samplug-nano.pt` with its card.
        begin: A checkpoint or shipped file whose weights the leg begins with; None for fresh ones.
        device: Where it runs.
        workers: Processes that draw scenes ahead; with 0 the training process draws them itself.
        minutes: Stop after so many, as if interrupted; 0 for no limit.
        save_every: Seconds between checkpoints.
        say_every: Steps between lines on the screen.
        check_every: Steps between looks at scenes not seen; 0 for none.
        check_pictures: Pictures of such a look.
    """

    folder: Path
    begin: Path | None = None
    device: str = "cpu"
    workers: int = 1
    minutes: float = 0.0
    save_every: float = 90.0
    say_every: int = 25
    check_every: int = 200
    check_pictures: int = 24


def train(settings: Settings, leg: Leg) -> Trainer:
    """Run a leg, or the rest of it where its folder holds a checkpoint.

    Raises:
        Diverged: If the loss is no number any more; the last checkpoint stays.
        ValueError: If the folder's checkpoint was made with other settings.
    """
    leg.folder.mkdir(parents=True, exist_ok=True)
    trainer = prepared(settings, leg)
    curves = Curves(leg.folder / CURVES, trainer.step)
    began = said = saved = time.monotonic()
    for batch in views(settings, trainer.step, leg.workers):
        curves.add(trainer.advance(batch))
        if trainer.step % leg.say_every == 0:
            said, elapsed = time.monotonic(), time.monotonic() - said
            print(line(curves.flush(), settings.steps, elapsed), flush=True)
        if leg.check_every and trainer.step % leg.check_every == 0:
            print(_checked(trainer, leg.check_pictures), flush=True)
        if time.monotonic() - saved > leg.save_every:
            trainer.save(leg.folder / CHECKPOINT)
            saved = time.monotonic()
        if 0 < 60 * leg.minutes < time.monotonic() - began:
            break
    curves.flush()
    trainer.save(leg.folder / CHECKPOINT)
    plot(leg.folder / CURVES)
    return trainer


def views(settings: Settings, step: int, workers: int) -> Iterator[Batch]:
    """The drawn batch of every step from one to the end of the leg: each as often as the settings say."""
    total = -(-settings.steps // settings.views)
    drawn = DataLoader(
        Steps(settings),
        batch_size=None,
        sampler=range(step // settings.views, total),
        num_workers=workers,
        worker_init_fn=_draw_on_one_core,
    )
    for batch in drawn:
        for _ in range(step % settings.views, settings.views):
            if step < settings.steps:
                yield batch
            step += 1


def _draw_on_one_core(_: int) -> None:
    """OpenCV would start as many threads in every worker as there are cores."""
    cv2.setNumThreads(0)


def prepared(settings: Settings, leg: Leg) -> Trainer:
    """The trainer of a leg: as its checkpoint says, else with the weights it begins from, else fresh."""
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")  # 10 bits of the factors on a GPU that is faster then
    model = fresh()
    listen_to_prompts(model)
    look_at_the_same_place(model)
    trainer = Trainer(model, settings, leg.device)
    if (leg.folder / CHECKPOINT).exists():
        trainer.resume(leg.folder / CHECKPOINT)
    elif leg.begin:
        trainer.begin_from(leg.begin)
    return trainer


def fresh() -> SAM2Model:
    """The network to train, with weights as drawn."""
    model = build(CONFIG)
    assert isinstance(model, SAM2Model)
    return model


def ship(trainer: Trainer, folder: Path, about: dict[str, Any]) -> Path:
    """Write the averaged weights in half precision, `samplug-nano.pt`, and beside it their card.

    Args:
        trainer: Its running mean is what is kept.
        folder: Where both files go.
        about: What the card says beyond the settings of all legs: command, metrics, licence.
    """
    model = fresh()
    model.load_state_dict(trainer.averaged())
    card = {"network": CONFIG["variant"], "legs": trainer.legs, **about}
    save_model(folder / WEIGHTS, model, CONFIG, card=card)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()  # a file cannot hold its own
    with write_aside(folder / CARD) as aside:
        aside.write_text(json.dumps({"sha256": digest, **card}, indent=2) + "\n")
    return folder / WEIGHTS


def _checked(trainer: Trainer, pictures: int) -> str:
    """Overlaps of the averaged weights on unseen scenes, easy and as hard as the leg's own, as one line."""
    model = fresh().to(trainer.device)
    model.load_state_dict(trainer.averaged())
    said = []
    for level in (0.0, trainer.settings.level_end):
        found = look(model, trainer.settings.size, level=level, count=pictures)
        said.append(f"level {level}: " + " ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return "  unseen " + " | ".join(said)
