"""How many CPU threads a run computes on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from samplug.host import NUM_THREADS
from samplug.resources import usable_cores
from samplug.runtime.idle_team import IDLE_TEAM
from samplug.runtime.torch_state import default_torch_state


@contextmanager
def use_threads(count: int | None = None) -> Iterator[None]:
    """Compute on so many threads, or on every core that this process may use, in torch's default state, and restore.

    Ultralytics' `select_device` leaves one core unused for the whole process, so a detector that ran before would halve
    the speed on two cores. Any other number was chosen by the user (or by OMP_NUM_THREADS) and is kept.
    """
    before = torch.get_num_threads()
    if count is None and (before != NUM_THREADS or "OMP_NUM_THREADS" in os.environ):
        IDLE_TEAM.adapt()
        with default_torch_state():
            yield
        return
    torch.set_num_threads(count or usable_cores())
    IDLE_TEAM.adapt()
    try:
        with default_torch_state():
            yield
    finally:
        torch.set_num_threads(before)
