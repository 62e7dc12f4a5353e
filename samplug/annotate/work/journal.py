"""The journal of a shard: what was begun before a process died, so that an input that kills it is found."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

START, STOP, UNSUPERVISED = "start", "stop", "unsupervised"
READ_AHEAD = 1  # batches that are read while one is segmented: the death may have been theirs


class Journal:
    """Lines of what was begun, written before it begins.

    An attempt that neither finished nor stopped by itself died in what its last line names.

    Args:
        file: of one shard.
        supervised: whether this process dies by its own fault alone: who stops the program stops another one.

    Attributes:
        quarantined: names of sources that two processes died in, the first of them perhaps in a batch.
    """

    def __init__(self, file: Path, supervised: bool = False) -> None:
        self.file, self.supervised = file, supervised
        lines = read_lines(file) if file.exists() else []
        died_in = [line for line, following in pairwise([*lines, [START]]) if following == [START] and line != [STOP]]
        self.quarantined = find_poison(died_in)
        self._deaths = Counter(line[1] for line in died_in if line[0] == "batch")

    def deaths(self, batch: int, ahead: int = READ_AHEAD) -> int:
        """How many processes died in a batch, or in those before it, during which this one was read."""
        return max(self._deaths[number] for number in range(batch - ahead, batch + 1))

    def note(self, *line: str | int) -> None:
        """Write that something begins: `start`, `batch` and its number, `source` and its name, `stop`."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")

    def note_source(self, name: str) -> None:
        """Write that a source is begun by itself."""
        self.note("source", name, *(() if self.supervised else (UNSUPERVISED,)))

    def stop(self) -> None:
        """Write that nothing died here, unless the disk is full."""
        with suppress(OSError):
            self.note(STOP)

    def remove(self) -> None:
        """Forget a shard that is done."""
        self.file.unlink(missing_ok=True)


def find_poison(died_in: list[list]) -> set[str]:
    """The sources in which two processes died: a supervised one also where the first had several at once."""
    deaths, poison, unexplained = Counter[str](), set[str](), False
    for kind, *rest in died_in:
        if kind == "batch":
            unexplained = True
        elif kind == "source":
            deaths[rest[0]] += 1
            if unexplained and UNSUPERVISED not in rest[1:] or deaths[rest[0]] > 1:
                poison.add(rest[0])
            unexplained = False
    return poison


def read_lines(file: Path) -> list[list]:
    """The lines of a journal, less one that was cut short when its process died."""
    lines = []
    for line in file.read_text("utf-8").splitlines():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines
