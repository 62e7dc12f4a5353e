"""Labels from records, one image at a time: a million images need no more memory than one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from samplug.annotate.filters import class_table, labelled
from samplug.annotate.settings import Settings
from samplug.data.formats import WRITERS
from samplug.data.formats.base import FileOf
from samplug.data.formats.frames import FrameImages
from samplug.data.formats.records import ImageRecord
from samplug.errors import JobError


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


def check_replaceable(places: Iterable[Path]) -> None:
    """Refuse places that a new file or folder cannot take: they are on another disk."""
    for place in places:
        if place.is_symlink() or place.is_mount():
            raise JobError(
                f"{place} is a link, or a disk of its own: labels cannot take its place at once. Remove it, and "
                "give out= on the disk that is to hold the labels; the records stay."
            )
