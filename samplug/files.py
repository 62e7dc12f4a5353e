"""Files that are whole or not there: atomic writes, and what is wrong with a zip archive before it is opened."""

from __future__ import annotations

import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_aside(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; what is written there takes the place of `path` in one step.

    A reader sees the old file or the new one, never half of one. If the block raises, the temporary file is removed and
    the old file stays; an error of the disk names `path`. A symbolic link is followed, so it still points to the file
    afterwards.

    Args:
        path: The file to write. Its folder must exist.
        flush: Wait for the disk, so that a power cut too leaves the old file or the new one, not only a kill.

    Yields:
        An empty file beside `path`, with the same suffix.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {target}: there is no folder {target.parent}. Make it first.")
    aside = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    with naming(target, aside):
        aside.open("xb").close()  # plain `open`, so that the new file gets the rights the user's umask gives
        try:
            yield aside
            if flush:
                _flush(aside)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Let an error of the disk that names no file, or a temporary one, name the file that is being written."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(aside)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def archive_fault(path: str | os.PathLike[str]) -> str:
    """Say what is wrong with a zip archive whose entries should lie uncompressed in it, as torch and numpy write them.

    Args:
        path: The archive.

    Returns:
        The fault in a few words: cut short, packed (an archive that could unpack to any size), a wrong checksum.
        Empty if there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                return "its entries are compressed or encrypted"
            if sum(entry.file_size for entry in entries) > os.path.getsize(path):
                return "its entries say to be larger than the file"
            damaged = archive.testzip()
    except Exception as error:  # a damaged directory leads zipfile anywhere, and it raises accordingly
        return f"the archive is cut short or damaged ({error})"
    return f"the checksum of its entry {damaged!r} is wrong" if damaged else ""


def _flush(path: Path) -> None:
    """Wait until the file's bytes are on the disk: a rename may otherwise outlive them in a power cut."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
