"""`python -m samplug.train`: the bundled network, from nothing or with `model=` from a file, on drawn data.

It is `samplug train` with other defaults, and leaves a file to ship. Options of older releases, which stand in the
card of the bundled network, are understood too.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from samplug.checkpoints.load import load_model, save_model
from samplug.cli.main import exit_codes
from samplug.cli.modes import argument_errors, train
from samplug.cli.parse import merge, read_options, read_value
from samplug.files.atomic import atomic_write
from samplug.train.settings import TrainSettings

PROGRAM, WEIGHTS, LICENCE = "python -m samplug.train", "samplug-nano.pt", "AGPL-3.0-or-later"
DEFAULTS = """data=scenes learn=all epochs=10 patience=0 batch=8 objects=4 frames=8 corrections=1 imgsz=128 lr0=0.001
    warmup_epochs=0.5 cooldown=0.4 level=[0.05,0.5] save_dir=runs/nano exist_ok=True"""

# Options of older releases: those with another name, those that are fixed now, and those that others follow from.
RENAMED = {"folder": "save_dir", "init": "model", "prompts": "objects", "decay": "weight_decay", "clip": "max_norm"}
RENAMED |= {"average": "ema", "rounds": "corrections"}
FIXED = {"corrections": 0.4, "presence": 2, "balance": 0.3, "every_mask": 0, "probe": 1, "padded": 0.5, "objects": 3}
FIXED |= {"given": 0, "views": 1, "scenes": 0}
COMPUTED: dict[str, Any] = {"size": 128, "largest": 128, "pictures": 8, "steps": 2000, "warmup": 100, "minutes": 0}
COMPUTED |= {"level": 0.05, "level_end": 0.5, "rate": 0.001, "trunk_rate": 0.001, "precision": "float32"}
EPOCH = 200  # steps


def main(args: list[str] | None = None) -> None:
    """Train, and write the finished weights in half precision with their card beside them."""
    given = sys.argv[1:] if args is None else args
    with exit_codes(PROGRAM):
        arguments = translated(merge(given))
        if "help" in arguments:
            print("\n".join([f"    {PROGRAM} model=FILE …, without model= from nothing; beside", DEFAULTS, ""]))
            print("\n".join(TrainSettings.help()))
            return
        names = {each.partition("=")[0] for each in arguments}
        from_nothing = [] if names & {"model", "pretrained"} else ["pretrained=False"]
        defaults = ["save_dir=runs/nano"] if "resume" in names else [*DEFAULTS.split(), *from_nothing]
        arguments = [*defaults, *arguments]
        train(arguments, PROGRAM)
        options = read_options(arguments, TrainSettings.accepted())
        if not options.get("dry"):
            last = options.get("resume")
            folder = Path(last).parent.parent if isinstance(last, str) else Path(options["save_dir"])
            write_shipped(folder, shlex.join(["python", "-m", "samplug.train", *given]))


def translated(args: list[str]) -> list[str]:
    """Arguments with options of older releases, `--name value` or `--name=value`, as `name=value` of today.

    Raises:
        UsageError: an option chose what cannot be chosen any more.
    """
    old, arguments, rest = {}, [], iter(args)
    for arg in rest:
        if arg.startswith("--") and arg != "--help":
            name, equals, text = arg[2:].partition("=")
            old[name.replace("-", "_")] = read_value(name, text if equals else next(rest, ""))
        else:
            arguments.append(arg.lstrip("-"))
    with argument_errors():
        return [*(f"{name}={value}" for name, value in (of_old(old) if old else {}).items()), *arguments]


def of_old(old: dict[str, Any]) -> dict[str, Any]:
    """The arguments of today for options of older releases, some of which had other units."""
    was = {**COMPUTED, **old}
    for name, value in was.items():
        if name in COMPUTED and isinstance(value, str) and name != "precision":
            raise ValueError(f"--{name}={value}. Expected a number.")
    for name, value in {**FIXED, "clips_at_once": was["pictures"] // 4}.items():
        if was.pop(name, value) != value:
            raise ValueError(f"--{name}={old[name]} cannot be chosen any more. Expected {value}, or no --{name}.")
    least, most = was["size"], max(was["largest"], was["size"])
    epochs = max(1, was["steps"] // EPOCH)
    new = {
        "imgsz": (least + most) // 2,
        "multi_scale": (most - least) / (most + least),
        "batch": max(1, round(was["pictures"] * (2 * least / (most + least)) ** 2)),
        "epochs": epochs,
        "steps": was["steps"] // epochs,
        "warmup_epochs": was["warmup"] * epochs / max(was["steps"], 1),
        "level": [was["level"], was["level_end"]],
        "lr0": was["rate"],
        "encoder_rate": was["trunk_rate"] / (was["rate"] or 1),
        "amp": "bf16" if was["precision"] == "bfloat16" else False,
        "time": was["minutes"] / 60 or None,
    }
    return new | {RENAMED.get(name, name): value for name, value in old.items() if name in was and name not in COMPUTED}


def write_shipped(folder: Path, command: str) -> None:
    """Write the best weights of a run as they are shipped: in half precision, with a card in and beside the file."""
    best = folder / "weights" / "best.pt"
    content = torch.load(best, map_location="cpu", weights_only=True)
    card = {"network": "samplug-nano", "command": command, "licence": LICENCE, **content["card"]}
    save_model(folder / WEIGHTS, load_model(best), content["config"], card=card)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()  # a file cannot hold its own
    with atomic_write((folder / WEIGHTS).with_suffix(".json")) as file:
        file.write_text(json.dumps({"sha256": digest, **card}, indent=2) + "\n")


if __name__ == "__main__":
    main()
