"""An annotation job: a folder whose record files are its state, so that a job that was killed goes on."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from samplug import __version__
from samplug.annotate.engines import annotate_shards
from samplug.annotate.export import check_places, export
from samplug.annotate.filters import Tally, unknown_classes
from samplug.annotate.hashes import hashes, hashes_beside
from samplug.annotate.lock import lock
from samplug.annotate.plan import (
    JOB,
    PLAN,
    Shard,
    Source,
    check_names,
    find_sources,
    read_plan,
    update_plan,
    write_plan,
)
from samplug.annotate.progress import Progress
from samplug.annotate.records import Failure, ImageRecord, RecordFolder, naming_damage
from samplug.annotate.review.sheet import write_sheet
from samplug.annotate.review.table import write_review
from samplug.annotate.settings import Settings, check_unchanged
from samplug.annotate.work.prompters import check_prompter, unused_names
from samplug.data.formats import places_of
from samplug.errors import JobError
from samplug.files.atomic import atomic_write
from samplug.host import LOGGER
from samplug.values import check_folder

LISTED_FAILURES = 10
FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, of a user's share of it


class Job:
    """A job in its folder.

    ```
    out/job.json       settings that the records depend on, and where the sources are
    out/plan.jsonl     the shards, a line each
    out/records/       what was found, a file a shard: that it exists means that the shard is done
    out/journal/       what is being annotated
    out/state/         videos that are not done: records so far, and the tracker behind them
    out/status.json    how far it is
    out/failures.jsonl what could not be annotated, and why
    out/review.csv     the riskiest masks first
    out/review.html    what the first of them look like
    out/labels/ …      the labels, made from the records
    ```

    Args:
        settings: its arguments. Without a source it goes on with the job in `out`, or writes other formats of it.

    Raises:
        JobError: there is no job to go on with, it was begun with other settings, or the source holds nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self.out = Path(settings.out)
        check_folder(self.out)
        self.records_of = RecordFolder(self.out / "records")
        self._before = read_job(self.out / JOB)
        self.settings = settings if settings.source is not None else resumed(settings, self._before)
        self._of_records, self._known = self.settings.of_records, dict[str, str]()
        self._add_hashes(hashes(self.settings))
        self._shards: list[Shard] | None = None

    # What it holds

    @property
    def shards(self) -> list[Shard]:
        """All shards, in order."""
        if self._shards is None:
            self._shards = read_plan(self.out / PLAN, self._before.get("root", ""))
        return self._shards

    @property
    def progress(self) -> tuple[int, int]:
        """(shards done, shards)."""
        done = self.records_of.done()
        return sum(shard.id in done for shard in self.shards), len(self.shards)

    def records(self) -> Iterator[ImageRecord]:
        """What was found, in the order of the plan; no more than one image is held at a time."""
        done = self.records_of.done()
        for shard in self.shards:
            if shard.id in done:
                yield from self.records_of.read(shard.id)

    @property
    def failures(self) -> list[Failure]:
        """What could not be annotated."""
        done, failures = self.records_of.done(), self.records_of.failures()
        return [each for shard in self.shards if shard.id in done for each in failures.get(shard.id, ())]

    # What it does

    def run(self) -> Job:
        """Annotate the shards that are not done, and write the labels.

        Raises:
            JobError: the source holds nothing, another process works in the folder, or more than `max_failures` of the
                images and videos failed.
            OSError: the disk is full, or the folder cannot be written.
        """
        check_prompter(self.settings.prompter)
        with without_collector():
            root, sources = find_sources(self.settings.source, self._before.get("root", ""), self.settings.frames)
        self._add_hashes(hashes_beside(self.settings, sources))
        check_names(sources, self.settings.format)
        check_places(self.out, self.settings, sources, self._before.get("places"))
        if isinstance(prompter := self.settings.prompter, str | Path) and (unused := unused_names(prompter, sources)):
            LOGGER.warning(f"prompter={prompter}: {unused}.")
        self.out.mkdir(parents=True, exist_ok=True)
        with lock(self.out / self._named("lock")):
            with without_collector():
                self._plan(root, sources)
            del sources
            self._annotate()
            done, total = self.progress
            if done < total:
                LOGGER.info(f"{self.out}: {done} of {total} shards are done; the last part writes the labels.")
                return self
            self._check_failures(len(self.failures), sum(len(shard.sources) for shard in self.shards))
            with suppress(JobError) if self.settings.part else nullcontext(), lock(self.out / "lock-export"):
                self.export()  # another part may be doing it
        return self

    def export(self) -> None:
        """Write the labels in the formats of the settings, the review list and the failures, from the records."""
        file_of = partial(os.path.join, self._before["root"])
        written = export(self.records, self.settings, self.out, file_of)
        tally = Tally()
        rows = write_review(tally.watch(self.records(), self.settings), self.settings, self.out / "review.csv")
        write_sheet(rows[: self.settings.sheet], file_of, self.out / "review.html")
        failures = self.failures
        with atomic_write(self.out / "failures.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(asdict(each)) + "\n" for each in failures), encoding="utf-8")
        if self.settings.verbose:
            LOGGER.info("\n".join(f"{name}: {path}" for name, path in written.items()))
            LOGGER.info(f"{tally}; {len(failures)} could not be annotated{listed(failures)}")
        if unknown := unknown_classes(self.settings.class_names, tally.names):
            LOGGER.warning(unknown)
        if tally.images and not tally.kept:
            ask = "Does prompter= know these images, and what they show?"
            ask = f"All {tally.found} are dropped: review.csv says by what." if tally.found else ask
            LOGGER.warning(f"{self.out}: no object on any image. {ask}")

    def _add_hashes(self, known: dict[str, str]) -> None:
        """Note hashes of what the records depend on; JobError where the job was begun with others."""
        self._known = {**self._known, **known}
        self._of_records = {**self._of_records, **known}
        if self._before:  # a file that was fetched since had no hash then
            check_unchanged({**self._known, **self._before["settings"]}, self._of_records, str(self.out))

    def _plan(self, root: str, sources: Sequence[Source]) -> None:
        """Bring what the folder says of the job up to date; the records of what has changed are removed."""
        given = self.settings.source
        named = [*map(os.path.abspath, given if isinstance(given, list | tuple) else [given])]  # from any folder
        source = named if isinstance(given, list | tuple) else named[0]
        content = {"source": source, "root": root, "settings": self._of_records, "run": self.settings.of_run}
        content["samplug"] = __version__
        if not self._before or "places" in self._before:  # a job of an older version does not know what it has made
            content["places"] = sorted({*places_of(self.settings.format), *self._before.get("places", ())})
        if content != self._before:
            with atomic_write(self.out / JOB) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            self._before, self._shards = content, None
        shards, dropped = update_plan(self.shards, sources, self.settings.shard)
        if shards != self.shards:
            write_plan(self.out / PLAN, shards)
            self._shards = shards
        for shard in dropped:
            self.records_of.remove(shard.id)
            self._forget(shard.id)

    def _forget(self, shard_id: str) -> None:
        """Remove what was written while a shard was annotated."""
        (self.out / "journal" / shard_id).unlink(missing_ok=True)
        shutil.rmtree(self.out / "state" / shard_id, ignore_errors=True)

    def _annotate(self) -> None:
        index, count = self.settings.shard_part
        own = self.shards[index::count]
        done = self.records_of.done()
        todo = [shard for shard in own if shard.id not in done]
        if not todo:
            return
        self.records_of.remove_temporaries({shard.id for shard in todo})
        for shard_id in done:  # whose process died after it was done
            self._forget(shard_id)
        images, left = (sum(len(shard.sources) for shard in shards) for shards in (own, todo))
        failed = sum(len(few) for shard_id, few in self.records_of.failures().items() if shard_id in done)
        status = self.out / self._named("status", ".json")

        def commit(shard: Shard, failed: int) -> None:
            progress.commit(shard, failed)
            self._check_failures(progress.failed, images)

        with Progress(images, images - left, failed, status, self.settings.verbose) as progress:
            try:
                annotate_shards(self.settings, todo, progress, commit)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise self._full_disk(error) from error
            except KeyboardInterrupt:
                LOGGER.info(f"\nInterrupted: annotate out={self.out} goes on.")
                raise

    def _named(self, stem: str, suffix: str = "") -> str:
        """The name of a file of this part of the job."""
        index, count = self.settings.shard_part
        return f"{stem}{suffix}" if count == 1 else f"{stem}-{index + 1}-of-{count}{suffix}"

    def _check_failures(self, failed: int, images: int) -> None:
        """End a job of which too much fails; what was done stays."""
        allowed = max(self.settings.max_failures * images, 1 if images > 1 else 0)
        if failed > allowed:
            raise JobError(
                f"{failed} of {images} images and videos failed, more than max_failures={self.settings.max_failures:g}"
                f"{listed(self.failures)}\nThe others are kept: mend or remove these, or give a higher max_failures, "
                "and start the job again."
            )

    def _full_disk(self, error: OSError) -> OSError:
        """The error of a full disk with what is needed, going by the records that are there."""
        done = self.records_of.done()
        size = sum(self.records_of.path(shard_id).stat().st_size for shard_id in done) / max(1, len(done))
        left = len(self.shards) - len(done)
        need = f", about {size * left / 1e6:.1f} MB" if done else ""
        told = f"{error.strerror}: {left} shards are still to be written{need}. Make space and start the job again"
        return OSError(error.errno, told, error.filename)


def read_job(file: Path) -> dict[str, Any]:
    """What a job was begun with; nothing where there is none.

    Raises:
        JobError: the file is damaged.
    """
    if not file.exists():
        return {}
    with naming_damage(file):
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if not isinstance(content["settings"], dict) or not {"root", "source"} <= content.keys():
            raise ValueError("it lacks a part")
        return content


@contextmanager
def without_collector() -> Iterator[None]:
    """Let Python's collector rest while a plan is made: it would look at each of a million names many times."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def resumed(given: Settings, before: dict[str, Any]) -> Settings:
    """The settings of the job in a folder, with those that were given now in place of its own.

    Raises:
        JobError: there is no such job, or it needs a function or a model that only a program can give.
    """
    if not before:
        raise JobError(f"out={given.out} holds no job to go on with. Expected source=, what is to be annotated.")
    saved = {**before["settings"], **before.get("run", {})}
    known = {name: saved[name] for name in Settings.defaults() if name in saved and name not in given.given}
    for name, value in known.items():
        if isinstance(value, dict) and "name" in value:
            raise JobError(f"{given.out} was begun with {name}={value['name']}, an object of a program: give it again.")
    known["format"] = tuple(known.get("format", given.format))
    return replace(given, **known, source=before["source"])


def listed(failures: list[Failure]) -> str:
    """The first failures, a line each."""
    lines = [f"\n  {failure.source}: {failure.reason}" for failure in failures[:LISTED_FAILURES]]
    more = len(failures) - LISTED_FAILURES
    return ("." if not lines else ":") + "".join(lines) + (f"\n  and {more} more" if more > 0 else "")
