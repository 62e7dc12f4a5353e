"""What every family of networks has: a row of sizes, which builds a network and is recognised in a file's tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model


@dataclass(frozen=True)
class Row(ABC):
    """The whole description of a network; its fields are what a `config` may hold beside the architecture."""

    variant: str  # the network's name
    image_size: int = field(default=1024, kw_only=True)  # side of its own input in pixels
    architecture: ClassVar[str]  # the family's name in a config
    encoder: ClassVar[str]  # its image encoder's name in messages
    block_counts: ClassVar[tuple[str, ...]]  # fields that count blocks
    unused: ClassVar[tuple[str, ...]] = ()  # tensors that no mask depends on: files may have them or not

    @abstractmethod
    def build(self) -> SAMModel | SAM2Model:
        """The network with fresh weights."""

    @property
    def size(self) -> tuple[int, ...]:
        """What tells the row from the others of its family: width, number of blocks, and more if need be."""
        return ()

    @classmethod
    @abstractmethod
    def size_in(cls, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
        """Read `size` from tensors under their official names; None if they are of another family."""

    def changes_in(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read the fields in which tensors of this size may still differ from the row."""
        return {}


def width_of(tensor: Tensor) -> int:
    """The first size of a tensor; 0 for one that has none, so that no row fits."""
    return next(iter(tensor.shape), 0)


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Count the different numbers that follow a prefix in the names."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    return sum(number.isdecimal() for number in numbers)
