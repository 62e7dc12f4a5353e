"""Records: what was found on each image, in a file a shard. They are the state of a job; labels are made from them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.data.image_file import MALFORMED
from samplug.errors import JobError
from samplug.files.atomic import atomic_write

FAILURES = ".failed.json"


@dataclass(frozen=True)
class Failure:
    """An image or video that could not be annotated, and why."""

    source: str
    reason: str


@contextmanager
def naming_damage(file: Path) -> Iterator[None]:
    """Turn whatever reading a damaged file of a job raises into a `JobError` that names it."""
    try:
        yield
    except (*MALFORMED, EOFError, RecursionError, gzip.BadGzipFile, zlib.error) as error:
        raise JobError(
            f"{file} is damaged ({error!r:.100}). Delete it and begin the job again, with source= "
            "and out=: only what it held is made anew."
        ) from error


class RecordFolder:
    """The records of a job: a shard whose file is there is done.

    A file is one or more parts compressed by themselves: a video has one for each few frames.

    Args:
        folder: where the files are, in a subfolder for each first two characters of a shard's id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, shard_id: str) -> Path:
        """The file of a shard."""
        return self.folder / shard_id[:2] / f"{shard_id}.jsonl.gz"

    def done(self) -> set[str]:
        """The ids of the shards that are done."""
        return {path.name.partition(".")[0] for path in self.folder.glob("??/*.jsonl.gz")}

    def write(self, shard_id: str, records: Sequence[ImageRecord]) -> int:
        """Commit a shard; returns how many of its records say that they failed."""
        failures = [record for record in records if record.error]
        write_shard(self.path(shard_id), [encode(records)], failures)
        return len(failures)

    def read(self, shard_id: str) -> Iterator[ImageRecord]:
        """The records of a shard, in order."""
        path = self.path(shard_id)
        with naming_damage(path), gzip.open(path, "rt", encoding="utf-8") as lines:
            if not path.stat().st_size:  # no part at all: a disk that was full
                raise EOFError("it is empty")
            for line in lines:
                content = json.loads(line)
                objects = tuple(read_object(each) for each in content.pop("objects"))
                yield ImageRecord(**{**content, "size": tuple(content["size"])}, objects=objects)

    def failures(self) -> dict[str, list[Failure]]:
        """What could not be annotated, by the id of its shard, done or not; little is read, however many records."""
        files = self.folder.glob(f"??/*{FAILURES}")
        return {path.name.removesuffix(FAILURES): read_failures(path) for path in files}

    def remove(self, shard_id: str) -> None:
        """Remove the records of a shard."""
        self.path(shard_id).unlink(missing_ok=True)
        failures_of(self.path(shard_id)).unlink(missing_ok=True)

    def remove_temporaries(self, shard_ids: Collection[str]) -> None:
        """Remove what killed processes left of shards that nobody is annotating."""
        for path in self.folder.glob("??/.*"):
            if path.name.lstrip(".").partition(".")[0] in shard_ids:
                path.unlink(missing_ok=True)


def read_object(content: dict[str, Any]) -> ObjectRecord:
    """An object from its JSON."""
    boxes = {name: content[name] and tuple(content[name]) for name in ("box", "prompt_box")}
    return ObjectRecord(**{**content, **boxes})


def encode(records: Sequence[ImageRecord]) -> bytes:
    """Records as a part of the file of a shard: the same bytes whoever writes them."""
    lines = "".join(json.dumps(asdict(record), separators=(",", ":")) + "\n" for record in records)
    return gzip.compress(lines.encode(), 6, mtime=0)


def write_shard(path: Path, parts: Iterable[bytes], failures: Sequence[ImageRecord]) -> None:
    """Commit a shard: its file appears whole, after the list of its failures if there are any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if failures:
        with atomic_write(failures_of(path)) as temporary:
            temporary.write_text(json.dumps([[record.source, record.error] for record in failures]), encoding="utf-8")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def failures_of(path: Path) -> Path:
    """The list of failures beside the file of a shard."""
    return path.with_name(path.name.partition(".")[0] + FAILURES)


def read_failures(path: Path) -> list[Failure]:
    """What a list of failures says."""
    with naming_damage(path):
        return [Failure(*row) for row in json.loads(path.read_text(encoding="utf-8"))]
