"""`python -m samplug.train`: every choice a flag."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from .check import look
from .run import Leg, ship, train
from .settings import Settings
from .trainer import Diverged, Trainer

LICENCE = "AGPL-3.0-or-later"
DATA = "procedural pictures and clips of samplug.train; no photograph was used"
TESTS = (
    ("unseen plain scenes", 0.0, False),
    ("unseen scenes", 0.5, False),
    ("unseen cluttered scenes", 1.0, False),
    ("unseen families, cluttered", 1.0, True),
)
PICTURES_ONLY = "Pictures only: the memory's networks hold their initial values, so this file does not track yet."
TRACKS = "Pictures and clips: clicks and boxes on pictures, and objects followed through memory."


def parser() -> argparse.ArgumentParser:
    """All flags: the settings, then where and how the leg runs."""
    made = argparse.ArgumentParser(
        prog="python -m samplug.train",
        description="Train the small network on procedural pictures. Interrupted, the same command goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for choice in fields(Settings):
        flag = "--" + choice.name.replace("_", "-")
        made.add_argument(flag, type=type(choice.default), default=choice.default, help=choice.metadata["help"])
    made.add_argument(
        "--folder", type=Path, default=Path("runs/nano"), help="checkpoints, curves and the finished file"
    )
    made.add_argument(
        "--init", type=Path, default=None, help="begin with the weights of this checkpoint or shipped file"
    )
    made.add_argument("--device", default="cpu", help="where to train, as torch names it")
    made.add_argument("--workers", type=int, default=1, help="processes that draw scenes ahead; 0: none")
    made.add_argument("--minutes", type=float, default=0.0, help="stop after so many, to go on later; 0: never")
    made.add_argument("--save-every", type=float, default=90.0, help="seconds between checkpoints")
    made.add_argument("--say-every", type=int, default=25, help="steps between lines")
    made.add_argument("--check-every", type=int, default=200, help="steps between looks at unseen scenes; 0: none")
    made.add_argument("--check-pictures", type=int, default=24, help="unseen scenes looked at")
    made.add_argument("--final-pictures", type=int, default=200, help="unseen scenes looked at for the card")
    return made


def main(words: list[str] | None = None) -> int:
    """Train, look, write the file and its card; returns the exit code."""
    words = sys.argv[1:] if words is None else words
    flags = parser().parse_args(words)
    settings = Settings(**{choice.name: getattr(flags, choice.name) for choice in fields(Settings)})
    leg = Leg(
        flags.folder,
        begin=flags.init,
        device=flags.device,
        workers=flags.workers,
        minutes=flags.minutes,
        save_every=flags.save_every,
        say_every=flags.say_every,
        check_every=flags.check_every,
        check_pictures=flags.check_pictures,
    )
    try:
        trainer = train(settings, leg)
    except (Diverged, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    path = ship(trainer, flags.folder, about(trainer, words, flags.final_pictures))
    print(f"{path} is ready.")
    return 0


def about(trainer: Trainer, words: list[str], pictures: int) -> dict[str, Any]:
    """What a reader of the file wants to know beyond the settings."""
    model = trainer.model
    model.load_state_dict(trainer.averaged())
    side = model.image_size[0]
    metrics: dict[str, Any] = {"pictures": pictures, "side": side}
    for name, level, held_out in TESTS:
        found = look(model, side, level=level, count=pictures, held_out=held_out)
        metrics[name] = {key: round(value, 4) for key, value in found.items()}
    print(json.dumps(metrics, indent=2))
    state = TRACKS if any(leg["settings"].get("clips") for leg in trainer.legs) else PICTURES_ONLY
    command = shlex.join(["python", "-m", "samplug.train", *words])
    return {"data": DATA, "state": state, "command": command, "metrics": metrics, "licence": LICENCE}


if __name__ == "__main__":
    sys.exit(main())
