"""Trainers that other processes import by name, for tests of training on several devices."""

import os
import signal

from samplug.errors import DataError
from samplug.train.fit.trainer import SAMTrainer


class FailsInTheSecond(SAMTrainer):
    """The second process meets an error in its third step."""

    def _step(self, group):
        if self.ranks.rank == 1 and self.progress.step == 2:
            raise DataError("b.png is cut off.")
        super()._step(group)


class DiesInTheSecond(SAMTrainer):
    """The second process is killed in its third step."""

    def _step(self, group):
        if self.ranks.rank == 1 and self.progress.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._step(group)


class StopsOnce(SAMTrainer):
    """The first process gets a signal in its third step, unless the run goes on already."""

    def _step(self, group):
        if self.ranks.is_first and self.state is None and self.progress.step == 2:
            signal.raise_signal(signal.SIGTERM)
        super()._step(group)


def note_epoch(trainer):
    """A callback that leaves a line."""
    with (trainer.save_dir / "noted.txt").open("a") as file:
        file.write(f"{trainer.ranks.rank} {trainer.epoch}\n")
