"""A training run from start to end.

Everything drawn in a step follows from the seed and the step's number, and all that a step changes is saved, so a run
that is killed and resumed ends with the same bytes as one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from samplug import host
from samplug.data.help import SCENES
from samplug.data.open import Data
from samplug.errors import CheckpointError, DivergedError, JobError
from samplug.files.embedding import model_fingerprint
from samplug.host import LOGGER, TQDM
from samplug.nn.sam2 import SAM2Model
from samplug.runtime.interrupts import Interrupted, Interrupts
from samplug.train.data.batches import Batch
from samplug.train.fit.estimate import StepCost, memory_of
from samplug.train.fit.evaluation import Evaluation, evaluate, open_anchor
from samplug.train.fit.events import TrainerEvents
from samplug.train.fit.folder import open_folder, resumed_settings
from samplug.train.fit.plots import BatchPlot, plot_results
from samplug.train.fit.report import TrainReport
from samplug.train.fit.setup import Setup
from samplug.train.fit.state import Progress, RunState
from samplug.train.fit.weights import stored, write_export, write_weights
from samplug.train.lora import merged, save_lora
from samplug.train.parallel.launch import launch
from samplug.train.parallel.ranks import ONE_PROCESS, Ranks
from samplug.train.settings import TrainSettings
from samplug.val.images import Network
from samplug.val.plots import draw_cases
from samplug.val.scores import Case

SAVE_INTERVAL = 300.0  # seconds between saves inside an epoch
PLOTTED_BATCHES = 3  # first batches that are drawn
GPU_BATCH = 8  # images that are measured at once


class SAMTrainer(TrainerEvents):
    """A run.

    Args:
        model: the network; it gets the best weights when the run has ended, and is left alone until then.
        given: the arguments that the caller wrote, of `TrainSettings`.
        base: the file of the network.
        callbacks: functions by event.
        ranks: the processes that train together, where this is one of several.

    Raises:
        CheckpointError: the network was not made by samplug.
        JobError: a run that `resume` names cannot be resumed.
    """

    setup: Setup

    def __init__(
        self, model: Network, given: Mapping[str, Any], base: str = "", callbacks: Mapping[str, list] | None = None,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:  # fmt: skip
        if model.config is None:
            raise CheckpointError("This network was not made by samplug, which therefore cannot describe its file.")
        settings, self.untouched, self.ranks = TrainSettings.read(given), model, ranks
        self.identity = {"variant": model.variant, "network": model_fingerprint(model)}
        folder, self.state = open_folder(settings, given, base, self.identity["network"])
        if self.state is not None:
            settings, self.identity = resumed_settings(self.state, given), self.state.identity
            _check_variant(self.state, model)
        super().__init__(settings, folder, self.state.progress if self.state else Progress(), base, callbacks or {})
        self.is_launcher = ranks.count == 1 and len(settings.devices) > 1 and not settings.dry
        device = ranks.device or (settings.devices[0] if len(settings.devices) > 1 else settings.device)
        self.device = host.select_device("cpu" if self.is_launcher else device, verbose=host.from_shell())
        self.interrupts, self.lora = Interrupts(), self.wdir / "lora.pt"
        self.worst: dict[str, list[Case]] = {}
        self.started, self.saved = time.monotonic() - self.progress.seconds, time.monotonic()
        self.is_set_up = False

    # The life of a run

    def train(self) -> TrainReport | StepCost:
        """Train, or with `dry` say what a step would cost.

        Raises:
            DataError: the data set cannot be used.
            DivergedError: a loss is no finite number; what was saved stays.
            JobError: the data set is another one than that of the run that is resumed.
        """
        if self.is_launcher:
            return self._train_in_processes()
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), _determinism(self.settings, self.device), self.interrupts:
                torch.manual_seed(self.settings.seed)  # for the factors of lora
                self.run_callbacks("on_pretrain_routine_start")
                self._set_up()
                return self._say_cost() if self.settings.dry else self._run()
        except Interrupted:
            if self.is_set_up and not self.settings.dry:
                self._save()
                LOGGER.info(f"\nInterrupted after step {self.progress.step}: resume={self.last} goes on.")
            self.interrupts.deliver()
            raise
        finally:
            self.run_callbacks("teardown")

    def _train_in_processes(self) -> TrainReport:
        """Train in a process for each device; afterwards the network has the best weights here too."""
        given = {**vars(self.settings), "save_dir": str(self.save_dir), "project": None, "name": None}
        given["resume"] = str(self.last) if self.settings.resume else False
        launch(self.untouched, given, self.base, type(self), self.callbacks, self.settings.devices)
        content = torch.load(self.best, map_location="cpu", weights_only=True)
        self.untouched.load_state_dict(content["model"])
        return TrainReport.load(self.save_dir)

    def _run(self) -> TrainReport:
        if self.ranks.is_first:
            self.folder.create(self._arguments())
        self.run_callbacks("on_pretrain_routine_end")
        if self.ranks.is_first and not self.progress.rows:
            self._evaluate_untouched()
        self.run_callbacks("on_train_start")
        groups = self.setup.groups(self.progress.step)
        while self.progress.epoch < self.epochs and not self.progress.stopped:
            self.epoch = self.progress.epoch
            self._learn(groups)
            if self.ranks.is_first:
                self._end_epoch()
            stopped = self.ranks.any(self.stop)
            self.progress.epoch, self.progress.sums, self.progress.stopped = self.epoch + 1, {}, stopped
        return self._complete() if self.ranks.is_first else TrainReport(self.save_dir, self.progress.epoch, 0)

    def _learn(self, groups: Iterator[list[Batch]]) -> None:
        """The rest of an epoch's steps."""
        length = len(self.train_loader)
        begin, end = self.epoch * length, (self.epoch + 1) * length
        self.epoch_started = time.monotonic()
        self.run_callbacks("on_train_epoch_start")
        with TQDM(total=length, initial=self.progress.step - begin, disable=not self.settings.verbose) as bar:
            while self.progress.step < end and not self.ranks.any(self._is_out_of_time()):
                group = next(groups)
                self.run_callbacks("on_train_batch_start")
                self._step(group)
                self.run_callbacks("on_train_batch_end")
                bar.set_description(self._line())
                bar.update(len(group))
                self._save_in_time()
        self.run_callbacks("on_train_epoch_end")

    def _step(self, group: list[Batch]) -> None:
        progress, learner = self.progress, self.setup.learner
        within = (progress.step - self.epoch * len(self.train_loader)) // self.settings.accumulate
        update = self.epoch * learner.updates_per_epoch + within
        plot = BatchPlot(group[0]) if self.settings.plots and progress.step < PLOTTED_BATCHES else None
        try:
            losses = learner.step(group, progress.step, update, plot.note if plot else None)
        except DivergedError as error:
            raise DivergedError(
                f"{error}. The rate {learner.rate:.2g} may be too high: give a lower lr0. {self.best} holds the best "
                "weights so far."
            ) from error
        if plot:
            plot.draw(self.on_plot(self.save_dir / f"train_batch{progress.step}.jpg"))
        progress.add(losses)
        progress.step += len(group)
        progress.rate = learner.rate

    def _end_epoch(self) -> None:
        """Measure, note, save."""
        progress, evaluation = self.progress, Evaluation()
        if self.settings.val:
            self.run_callbacks("on_val_start", self.validator)
            evaluation = self._evaluate(self.setup.sets.val)
            self.validator.metrics = SimpleNamespace(results_dict=evaluation.scores)
            self.run_callbacks("on_val_end", self.validator)
        losses = {f"train/{name}": value for name, value in progress.means.items()}
        self.metrics, self.fitness = _named(evaluation.scores), evaluation.fitness
        self.epoch_time, progress.seconds = time.monotonic() - self.epoch_started, self._seconds()
        progress.epoch = self.epoch + 1
        row = {"epoch": progress.epoch, "time": progress.seconds, **losses, **self.metrics, **self.lr}
        progress.rows.append(row)
        self._keep_best(evaluation)
        self.folder.write_rows(progress.rows)
        if self.settings.save_period > 0 and progress.epoch % self.settings.save_period == 0:
            self._write_weights(self.wdir / f"epoch{progress.epoch}.pt")
        if self.settings.save:
            progress.sums, sums = {}, progress.sums
            self._save()
            progress.sums = sums  # callbacks still read the epoch's losses
        self.run_callbacks("on_model_save")
        self.run_callbacks("on_fit_epoch_end")

    def _keep_best(self, evaluation: Evaluation) -> None:
        progress, patience = self.progress, self.settings.patience
        progress.stopped = self.stop = self.stop or self._is_out_of_time()
        if not self.settings.val or evaluation.fitness > progress.best_fitness:
            progress.best_epoch, progress.best_fitness, self.worst = (
                progress.epoch,
                evaluation.fitness,
                evaluation.worst,
            )
            self._write_weights(self.best)
        elif 0 < patience <= progress.epoch - progress.best_epoch:
            LOGGER.info(f"No better result in {patience} epochs (patience={patience}): training ends.")
            progress.stopped = self.stop = True

    def _complete(self) -> TrainReport:
        """Give the best weights to the network, see what it forgot, write the files for others."""
        progress = self.progress
        content = torch.load(self.best, map_location="cpu", weights_only=True)
        self.untouched.load_state_dict(content["model"])
        network = self.untouched.to(self.device).eval()
        kept = {} if self.anchor is None else self._scores_of(network, self.anchor).scores
        after = _scores(progress.rows[progress.best_epoch])
        report = TrainReport(
            self.save_dir, progress.epoch, progress.best_epoch, _scores(progress.rows[0]), after, progress.kept, kept
        )
        content["card"] |= {"before": report.before, "after": after, "kept": kept, "kept_before": progress.kept}
        report.files.update(self._write_files(content))
        report.save()
        progress.complete = True
        if self.settings.save:
            self._save()
        self.metrics = _named(after)
        if self.settings.plots:
            self._draw()
        self.run_callbacks("on_fit_epoch_end")
        self.run_callbacks("on_train_end")
        if self.settings.verbose:
            LOGGER.info(f"\n{report}\n\nResults saved to {self.save_dir}")
        return report

    # Before the first step

    def _set_up(self) -> None:
        self.setup = Setup.of(self.untouched, self.settings, self.folder, self.device, self.ranks)
        self.settings, self.train_loader = self.setup.settings, self.setup.batches
        self.identity = {**self.identity, "data": self.setup.sets.fingerprint}
        self.model, self.optimizer = self.setup.learner.model, self.setup.learner.optimizer
        self.data = {"names": self.setup.sets.classes, "nc": len(self.setup.sets.classes), "channels": 3}
        measured = self.settings.data == self.settings.anchor == SCENES  # after every epoch already
        self.anchor = open_anchor(not measured and self.settings.anchor, isinstance(self.model, SAM2Model))
        self.set_args(self.settings)
        if self.settings.keep and not self.settings.dry:
            self.setup.rehearse(self.anchor)
        if self.state is not None:
            if not self.state.is_bound_to(self.identity):
                raise JobError(
                    f"data={self.settings.data} has changed since the run of {self.last} began: start a new one."
                )
            self.setup.learner.restore(self.state)
            LOGGER.info(f"Going on from {self.last}, after step {self.progress.step}.")
        self.is_set_up = True

    def _evaluate_untouched(self) -> None:
        """The row of epoch 0, which is the best until another is better."""
        progress = self.progress
        evaluation = self._evaluate(self.setup.sets.val) if self.settings.val else Evaluation()
        progress.kept = {} if self.anchor is None else self._evaluate(self.anchor).scores
        progress.rows = [{"epoch": 0, "time": self._seconds(), **_named(evaluation.scores)}]
        progress.best_fitness, self.worst = evaluation.fitness, evaluation.worst
        self._write_weights(self.best)
        self.folder.write_rows(progress.rows)

    def _say_cost(self) -> StepCost:
        cost = self.setup.cost
        assert cost is not None
        LOGGER.info(cost.describe(self.setup.learner, len(self.train_loader), memory_of(self.device)))
        return cost

    # Measuring

    def _evaluate(self, data: Data) -> Evaluation:
        with self.setup.learner.averaged() as network:
            return self._scores_of(network, data)

    def _scores_of(self, network: Network, data: Data) -> Evaluation:
        batch = GPU_BATCH if self.device.type == "cuda" else 1
        return evaluate(network, data, self.setup.size, batch, self._watch)

    def _watch(self, items: Iterable[Any], what: str) -> Iterator[Any]:
        """The items, with a bar; a signal ends the run between two of them."""
        for item in TQDM(items, desc=f"measuring {what}", disable=not self.settings.verbose):
            self.interrupts.check()
            yield item

    # Saving

    def _save_in_time(self) -> None:
        """Save from time to time; a signal ends the run here, where a step is complete."""
        if self.ranks.any(self.interrupts.pending is not None):
            raise Interrupted
        if self.settings.save and time.monotonic() - self.saved > SAVE_INTERVAL:
            self._save()

    def _save(self) -> None:
        if not self.ranks.is_first:
            return
        self.progress.seconds = self._seconds()
        state = RunState(vars(self.settings), self.identity, self.progress, **self.setup.learner.state())
        state.save(self.last, *self._weights())
        self.saved = time.monotonic()

    def _weights(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors that the run would end with now, and what describes them."""
        with self.setup.learner.averaged() as network:
            state = merged(network.state_dict())
            tensors = stored({name: state[name] for name in self.untouched.state_dict()})  # what only learns stays out
        base = {"file": self.base, "fingerprint": self.identity["network"]}
        card = {"task": "segment", "base": base, **self.setup.card, "settings": self.settings.of_weights}
        return tensors, {"config": self.untouched.config, "card": {**card, "epoch": self.progress.epoch}}

    def _write_weights(self, path: Any) -> None:
        tensors, about = self._weights()
        write_weights(path, tensors, **about)
        if self.settings.lora and path == self.best:
            with self.setup.learner.averaged() as network:
                names = self.setup.learner.names
                save_lora(self.lora, network.state_dict(), names, self.identity["network"], network.variant)

    def _write_files(self, content: dict[str, Any]) -> dict[str, str]:
        """The files of the best weights, by who loads them."""
        write_weights(self.best, content["model"], content["config"], content["card"])
        files = {"samplug": str(self.best)}
        export = write_export(self.wdir, content["model"], self.untouched)
        if export is not None:
            files["Ultralytics and Meta"] = str(export)
        if self.settings.lora:
            files["samplug merge"] = str(self.lora)
        return files

    def _draw(self) -> None:
        plot_results(self.progress.rows, self.on_plot(self.save_dir / "results.png"))
        worst = self.worst or self._scores_of(self.untouched, self.setup.sets.val).worst if self.settings.val else {}
        for name, cases in worst.items():
            if cases:
                draw_cases(cases, self.on_plot(self.save_dir / f"val_worst_{name}.jpg"))

    # Small things

    def run_callbacks(self, event: str, about: Any = None) -> None:
        """Call what waits for an event, in the first process."""
        if self.ranks.is_first:
            super().run_callbacks(event, about)

    def _arguments(self) -> dict[str, Any]:
        return {"task": "segment", "mode": "train", "model": self.base, **vars(self.settings)}

    def _seconds(self) -> float:
        """Of the whole run, also before it was resumed."""
        return time.monotonic() - self.started

    def _is_out_of_time(self) -> bool:
        return self.settings.time is not None and self._seconds() > 3600 * self.settings.time

    def _line(self) -> str:
        losses = " ".join(f"{name.removesuffix('_loss')} {value:.3f}" for name, value in self.tloss.items())
        memory = f"{torch.cuda.memory_reserved() / 1e9:.1f}G " if self.device.type == "cuda" else ""
        return f"{self.epoch + 1}/{self.epochs} {memory}{losses}"


def _check_variant(state: RunState, model: Network) -> None:
    if state.identity["variant"] != model.variant:
        raise JobError(
            f"The run to resume trains {state.identity['variant']}, this network is {model.variant}: give its last.pt "
            "as model= too, or the network that it began with."
        )


def _named(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"metrics/{name}": value for name, value in scores.items()}


def _scores(row: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("metrics/"): value for name, value in row.items() if name.startswith("metrics/")}


@contextmanager
def _determinism(settings: TrainSettings, device: torch.device) -> Iterator[None]:
    """Let torch choose algorithms that give the same numbers every time, on a GPU, where it has such."""
    if device.type != "cuda":
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
