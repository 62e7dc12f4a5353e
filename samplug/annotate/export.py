"""Labels from records, one image at a time: a million images need no more memory than one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from samplug.annotate.filters import class_table, labelled
from samplug.annotate.plan import JOB, PLAN, Source
from samplug.annotate.settings import Settings
from samplug.annotate.work.prompters import label_files
from samplug.data.formats import WRITERS, places_of
from samplug.data.formats.base import FileOf
from samplug.data.formats.frames import FrameImages
from samplug.data.formats.places import check_overlap, is_taken
from samplug.data.formats.records import ImageRecord
from samplug.data.label_boxes import beside
from samplug.errors import DataError, JobError

OWN_PLACES = ("status.json", "failures.jsonl", "review.csv", "review.html")  # that a job replaces, beside the labels


def export(
    records: Callable[[], Iterator[ImageRecord]], settings: Settings, out: Path, file_of: FileOf
) -> dict[str, Path]:
    """Write the labels in every format of the settings.

    They are written beside their place and moved there when they are complete.

    Returns:
        Where each format lies.
    """
    classes = class_table(records, settings)
    aside = out / ".export"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with ExitStack() as stack:
            frames = FrameImages(file_of) if settings.save_frames else None
            writers = [stack.enter_context(WRITERS[name](aside, classes, file_of, frames)) for name in settings.format]
            for record in labelled(records(), settings):
                for writer in writers:
                    writer.add(record, [(classes[each.name], each) for each in record.objects])
        made = {new: out / new.name for new in aside.iterdir()}
        check_replaceable(made.values())
        for new, place in made.items():
            if place.is_dir():
                shutil.rmtree(place)
            new.replace(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {name: out / WRITERS[name].place for name in settings.format}


def check_places(out: Path, settings: Settings, sources: Sequence[Source], made: Collection[str] | None) -> None:
    """Refuse, before the work begins, a folder in which the labels would replace what is not the job's.

    Args:
        out: folder of the job.
        settings: say the formats, and what the labels are made from.
        sources: the images and videos.
        made: what the job is known to have made there; None: whatever is there, if a job is.

    Raises:
        JobError: the labels would take the place of the source's or the prompter's files, or of somebody else's.
    """
    names = places_of(settings.format)
    try:
        check_overlap([out / name for name in names], read_files(settings, sources), "out=")
        if is_inside(out, settings.source):  # a job's folder is no source: what else it holds would be passed over
            check_overlap([out], (source.path for source in sources), "out=")
        if is_inside(out, settings.prompter):
            check_overlap([out], label_files(settings.prompter), "out=")
    except DataError as error:
        raise JobError(str(error)) from error
    taken = [name for name in (*names, *OWN_PLACES) if name not in (made or ()) and is_taken(out / name)]
    if (out / JOB).exists() or (out / PLAN).exists():  # asked last: another part may just have begun the job
        taken = [] if made is None else [name for name in taken if name not in OWN_PLACES]
    if taken:
        raise JobError(f"{out / taken[0]} is there, and no annotation job has made it: it stays. Give another out=.")


def read_files(settings: Settings, sources: Sequence[Source]) -> Iterator[str | Path]:
    """The files that labels are made from; those of a folder of frames by a pattern."""
    yield from (os.path.join(source.path, "*") if source.name.endswith("/") else source.path for source in sources)
    path = settings.prompter if isinstance(settings.prompter, str | Path) else ""
    if os.path.isfile(path):
        yield path
        if str(path).endswith((".yaml", ".yml")):
            yield from (beside(source.path) for source in sources)
    elif os.path.isdir(path):
        yield os.path.join(path, "*")


def is_inside(out: Path, given: Any) -> bool:
    """Whether the folder of a job is a folder that is read, or lies in it."""
    folder = Path(given).resolve() if isinstance(given, str | Path) else None
    return folder is not None and folder.is_dir() and out.resolve().is_relative_to(folder)


def check_replaceable(places: Iterable[Path]) -> None:
    """Refuse places that a new file or folder cannot take: they are on another disk."""
    for place in places:
        if place.is_symlink() or place.is_mount():
            raise JobError(
                f"{place} is a link, or a disk of its own: labels cannot take its place at once. Remove it, and "
                "give out= on the disk that is to hold the labels; the records stay."
            )
