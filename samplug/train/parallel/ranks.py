"""The processes that train together, and what they tell each other.

All of them take the same steps on the same weights, each on its part of the images. Gradients are added up before every
step of the optimizer, so weights stay equal bit by bit. Whatever decides about the course of a run is decided together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from samplug.errors import one_line

Item = TypeVar("Item")


class PeerError(RuntimeError):
    """Another process has ended; its own error says why."""


@contextmanager
def exchange() -> Iterator[None]:
    """Errors of the connection are those of a process that has ended."""
    try:
        yield
    except RuntimeError as error:
        raise PeerError(f"Another process of this training has ended: {one_line(error):.200}") from error


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train together; without arguments it is alone.

    Attributes:
        rank: its number; the first one writes, measures and calls callbacks.
        count: of the processes.
        device: its own, as `device=` takes it; None for that of the settings.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and measures."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""
        numbers = torch.tensor(values, dtype=torch.float64)
        if self.count > 1:
            with exchange():
                dist.all_reduce(numbers)
        return numbers.tolist()

    def least(self, values: Tensor) -> Tensor:
        """The least of each of some whole numbers or truth values over all processes."""
        if self.count == 1:
            return values
        numbers = values.to("cpu", torch.int64)
        with exchange():
            dist.all_reduce(numbers, dist.ReduceOp.MIN)
        return numbers.to(values.dtype)

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return self.sums([flag])[0] > 0

    def first(self, make: Callable[[], Item]) -> Item:
        """What the first process makes, in all of them; the others wait."""
        made = [make() if self.is_first else None]
        if self.count > 1:
            with exchange():
                dist.broadcast_object_list(made, device=torch.device("cpu"))
        return made[0]  # type: ignore[return-value]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up gradients over all processes; parameters that have none in any of them get none."""
        if self.count == 1:
            return
        every = list(parameters)
        used = self.sums([parameter.grad is not None for parameter in every])
        learning = [parameter for parameter, count in zip(every, used, strict=True) if count]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in learning]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with exchange():
            dist.all_reduce(flat)
        for parameter, part in zip(learning, flat.split([each.numel() for each in learning]), strict=True):
            parameter.grad = part.view_as(parameter)


ONE_PROCESS = Ranks()
