"""The folder of a run, as Ultralytics lays it out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samplug.errors import JobError
from samplug.files.atomic import atomic_write
from samplug.host import run_folder
from samplug.train.fit.state import RunState
from samplug.train.settings import OF_RUN, TrainSettings

CHOSEN = {"batch": ("auto", -1), "features": ("auto",)}  # values that leave the choice to the run


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    ```
    args.yaml               the arguments; results.csv, results.png: a row an epoch, 0 is the untouched network
    train_batch0.jpg …      first batches, with prompts and truth; val_worst_click.jpg …: the worst answers
    weights/last.pt         to go on; weights/best.pt: the best epoch's; weights/best_sam2.1_b.pt: for others to load
    report.json             before, after, kept
    ```
    """

    path: Path

    @property
    def weights(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "weights"

    @property
    def last(self) -> Path:
        """What a run goes on from."""
        return self.weights / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.weights / "best.pt"

    @property
    def table(self) -> Path:
        """The row of every epoch."""
        return self.path / "results.csv"

    def create(self, arguments: Mapping[str, Any]) -> None:
        """Make the folders, and write the arguments."""
        import yaml

        self.weights.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / "args.yaml") as file:
            file.write_text(yaml.safe_dump(dict(arguments), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def write_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the table anew."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        order = sorted(names, key=lambda name: ("/" in name, name.startswith(("metrics", "lr")), name.startswith("lr")))
        with atomic_write(self.table, flush=False) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, order, restval="")
            writer.writeheader()
            writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)


def open_folder(
    settings: TrainSettings, given: Mapping[str, Any], base: str, fingerprint: str
) -> tuple[RunFolder, RunState | None]:
    """The folder of a run, and the state that it goes on from.

    Args:
        settings: of this call.
        given: those that its caller wrote.
        base: file of the network.
        fingerprint: of the network.

    Raises:
        JobError: `resume` finds nothing to go on with.
    """
    if settings.resume:
        last = _resumed_file(settings, given, base)
        state = RunState.load(last)
        if state.progress.complete:
            raise JobError(
                f"The run of {last} has ended after epoch {state.progress.epoch}: there is nothing to resume."
            )
        return RunFolder(last.parent.parent), state
    folder = RunFolder(_run_path(settings))
    if settings.exist_ok and folder.last.is_file():
        state = RunState.load(folder.last)
        same = state.identity["network"] == fingerprint and not differences(state.settings, settings.of_weights)
        if same and not state.progress.complete:
            return folder, state
    return folder, None


def resumed_settings(state: RunState, given: Mapping[str, Any]) -> TrainSettings:
    """The settings of a run that goes on: its own, but for those of the caller that do not change the weights.

    Raises:
        JobError: the caller gives others.
    """
    wanted = TrainSettings.read({**state.settings, **given})
    if changed := differences(
        state.settings, {name: value for name, value in wanted.of_weights.items() if name in given}
    ):
        raise JobError(f"The run to resume has other settings: {changed}. Leave them out, or start a new run.")
    return replace(TrainSettings(**state.settings), **{name: getattr(wanted, name) for name in OF_RUN if name in given})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings of `now` that were others before, in words; what a run chooses by itself is none of them."""
    changed = [name for name in now if before.get(name) != now[name] and now[name] not in CHOSEN.get(name, ())]
    return ", ".join(f"{name}={before.get(name)!r} there, {now[name]!r} here" for name in changed)


def _run_path(settings: TrainSettings, exist_ok: bool | None = None) -> Path:
    exist_ok = settings.exist_ok if exist_ok is None else exist_ok
    where = {"project": settings.project, "name": settings.name, "save_dir": settings.save_dir}
    return run_folder(task="segment", mode="train", exist_ok=exist_ok, **where)


def _resumed_file(settings: TrainSettings, given: Mapping[str, Any], base: str) -> Path:
    """The `last.pt` that `resume` means: the one given, that of the network itself, or the newest run's."""
    if settings.resume is not True:
        return Path(str(settings.resume)).expanduser()
    if Path(base).name == "last.pt":
        return Path(base)
    path = _run_path(settings, exist_ok=True)
    if any(given.get(name) is not None for name in ("name", "save_dir")):
        return RunFolder(path).last
    runs = sorted(path.parent.glob(f"{path.name}*/weights/last.pt"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise JobError(f"resume=True: there is no run in {path.parent}. Give resume=path/to/weights/last.pt.")
    return runs[-1]
