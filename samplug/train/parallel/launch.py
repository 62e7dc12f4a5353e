"""Starts a training in a process for each device, by `torch.distributed.run`.

Nothing is pickled: the processes get the network in a file, settings as JSON, and classes and functions by name.
"""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from samplug import errors
from samplug.checkpoints.load import save_model
from samplug.errors import JobError
from samplug.runtime.interrupts import Interrupts

WORKER = "samplug.train.parallel.worker"
SPEC, MODEL = "spec.json", "model.pt"
ERROR = "error*.json"
POLL = 0.2  # seconds


def launch(
    model: nn.Module, given: Mapping[str, Any], base: str, trainer: type, callbacks: Mapping[str, list],
    devices: Sequence[str],
) -> None:  # fmt: skip
    """Run a training to its end.

    Args:
        model: the network.
        given: the arguments of the training.
        base: file of the network.
        trainer: the class of the trainer.
        callbacks: functions by event.
        devices: of the processes.

    Raises:
        JobError: a class or a function cannot be found by its name in other processes.
        RuntimeError: a process ended, without an error of its own.
    """
    own = {event: [each for each in functions if not _is_hosts(each)] for event, functions in callbacks.items()}
    named = {event: list(map(name_of, functions)) for event, functions in own.items() if functions}
    spec = {"given": dict(given), "base": base, "trainer": name_of(trainer), "callbacks": named, "devices": [*devices]}
    with TemporaryDirectory(prefix="samplug-") as folder:
        save_model(Path(folder) / MODEL, model, model.config, dtype=torch.float32)  # type: ignore[arg-type]
        (Path(folder) / SPEC).write_text(json.dumps(spec), encoding="utf-8")
        status = _run(_command(Path(folder), len(devices)), _environment(len(devices)))
        _raise_first(Path(folder))
    if status:
        raise RuntimeError(
            f"A process of the training on device={','.join(devices)} died; what it printed last is above. It may have "
            "been killed for lack of memory: a smaller batch= or fewer workers= need less."
        )


def _is_hosts(function: Any) -> bool:
    """Whether a callback is one of Ultralytics' own, which every trainer adds by itself."""
    return str(getattr(function, "__module__", "")).startswith("ultralytics.")


def name_of(item: Callable[..., Any]) -> str:
    """`module:name` of a class or a function.

    Raises:
        JobError: other processes cannot import it.
    """
    module, name = getattr(item, "__module__", None), getattr(item, "__qualname__", "<>")
    if module in (None, "__main__") or "<" in name:
        raise JobError(
            f"{item!r:.80} is needed in the processes of several devices, which import it by its name. Expected a "
            "class or a function of a module, or a single device."
        )
    return f"{module}:{name}"


def _command(folder: Path, count: int) -> list[str]:
    options = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={count}", "--monitor-interval=0.2"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", WORKER, str(folder)]


def _environment(count: int) -> dict[str, str]:
    """The parent's, with its search path, and its threads shared out."""
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; a signal to this process goes to it once, and is delivered here when it has ended."""
    with Interrupts() as interrupts:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        forwarded = False
        try:
            while True:
                try:
                    status = process.wait(POLL)
                    break
                except subprocess.TimeoutExpired:
                    if interrupts.pending is not None and not forwarded:
                        process.terminate()
                        forwarded = True
        except BaseException:  # a second signal
            process.kill()
            raise
    if interrupts.pending is not None:
        interrupts.deliver()
    return status


def write_error(folder: Path, rank: int, error: BaseException) -> None:
    """Leave the error of a process to the one that launched it."""
    content = {"type": type(error).__name__, "message": str(error)}
    (folder / ERROR.replace("*", str(rank))).write_text(json.dumps(content), encoding="utf-8")


def _raise_first(folder: Path) -> None:
    """Raise the first error that a process has left."""
    files = sorted(folder.glob(ERROR), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        return
    content = json.loads(files[0].read_text(encoding="utf-8"))
    kind: type[Exception] = getattr(errors, content["type"], getattr(builtins, content["type"], RuntimeError))
    raise kind(content["message"])
