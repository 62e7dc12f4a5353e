"""Pictures and frames that are read or drawn when their turn comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose members are made from what stands for them, each time they are asked for.

    Args:
        items: What stands for the members.
        make: Makes a member.
    """

    def __init__(self, items: Sequence[Any], make: Callable[[Any], T]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        """A member; for a slice a sequence as lazy as this."""
        chosen = self.items[index]
        return Lazy(chosen, self.make) if isinstance(index, slice) else self.make(chosen)
