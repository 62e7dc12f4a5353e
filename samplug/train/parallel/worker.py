"""A process of a training on several devices: `torch.distributed.run -m samplug.train.parallel.worker FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from samplug.checkpoints.load import load_model
from samplug.host import LOGGER
from samplug.train.parallel.launch import MODEL, SPEC, write_error
from samplug.train.parallel.ranks import PeerError, Ranks

LONGEST_WAIT = timedelta(days=7)  # while the first process measures; one that dies ends the others at once


def main(folder: Path) -> None:
    """Take part in the training that a folder describes."""
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks = Ranks(rank, count, spec["devices"][int(os.environ["LOCAL_RANK"])])
    given = spec["given"] if ranks.is_first else {**spec["given"], "verbose": False, "plots": False}
    if not ranks.is_first:
        LOGGER.setLevel("ERROR")
    try:
        callbacks = {event: list(map(named, names)) for event, names in spec["callbacks"].items()}
        trainer = named(spec["trainer"])(load_model(folder / MODEL), given, spec["base"], callbacks, ranks)
        is_gpu = trainer.device.type == "cuda"
        if is_gpu:
            torch.cuda.set_device(trainer.device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo", timeout=LONGEST_WAIT)
        dist.barrier()  # all have read what is there before anything is written
        trainer.train()
        dist.destroy_process_group()
    except PeerError:
        sys.exit(1)
    except Exception as error:
        write_error(folder, rank, error)
        raise


def named(name: str) -> Any:
    """The class or function of `module:name`."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
