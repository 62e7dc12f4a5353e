"""The files and folders that labels take: never those of what they are made from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from samplug.errors import DataError


def check_overlap(places: Iterable[Path], files: Iterable[str | Path], give: str) -> None:
    """Refuse places of labels that are, hold, or lie in files and folders that are read.

    Links are followed, and those of a folder looked up once: there may be a million files.

    Args:
        places: what is written or replaced.
        files: what is read.
        give: the arguments that name another place.

    Raises:
        DataError: a place is one of these; the message names both.
    """
    taken = {os.path.realpath(place): place for place in places}
    above = {str(folder): place for real, place in taken.items() for folder in (Path(real), *Path(real).parents)}
    is_new = not any(map(os.path.lexists, taken))  # then no link leads there
    real_folder = cache(os.path.realpath)

    @cache
    def holder(folder: str) -> Path | None:
        """The place that is a folder or holds it."""
        return next((taken[str(each)] for each in (Path(folder), *Path(folder).parents) if str(each) in taken), None)

    for file in files:
        folder, name = os.path.split(os.path.abspath(file))
        whole = os.path.join(real_folder(folder), name)
        place = above.get(whole) or holder(os.path.dirname(whole))
        if place is None and not is_new and os.path.islink(whole):
            whole = os.path.realpath(whole)
            place = above.get(whole) or holder(os.path.dirname(whole))
        if place is not None:
            raise DataError(
                f"{place} is where labels would be written, and is, holds or lies in {file}, which they are made "
                f"from. Expected a place apart: give another {give}."
            )


def is_taken(place: Path) -> bool:
    """Whether something is there that would be lost: a file, a link, or a folder that is not empty."""
    return os.path.lexists(place) and (place.is_symlink() or not place.is_dir() or any(place.iterdir()))
