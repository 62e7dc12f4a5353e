"""Atomic writes, and zip archives checked before they are opened."""

import math
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO

from numpy.lib import format as npy

from samplug.values import check_path

DAMAGE = (  # what numpy raises over a damaged file: it reads the header of an array as Python
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, TokenError),
)
NAME_BYTES = 255  # the longest name that file systems take


@contextmanager
def atomic_write(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """Write to a temporary file that replaces `path` in one step when the block ends.

    A reader sees the old file or the new one, never half of one. If the block raises, the temporary file is removed and
    the old file stays; an `OSError` names `path`. A symbolic link is followed and stays a link. With `flush` it waits
    for the disk, so that a power cut too leaves the old file or the new one, not only a kill.

    Yields:
        The path of an empty file in the same folder, with the same suffix.

    Raises:
        TypeError: if it is no path.
        FileNotFoundError: if the folder does not exist.
    """
    check_path("path", path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {target}: there is no folder {target.parent}. Create it first.")
    mark = secrets.token_hex(4)
    temporary = target.with_name(f".{short_stem(target, 2 + len(mark))}-{mark}{target.suffix}")
    with name_in_errors(target, temporary):
        temporary.open("xb").close()  # plain `open` gives the rights of the user's umask
        try:
            yield temporary
            if flush:  # after a power cut the rename may otherwise be there without the bytes
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def short_stem(path: Path, more: int = 0) -> str:
    """The stem of a file's name, cut where with its suffix and `more` bytes it would be too long for a file system."""
    most = NAME_BYTES - more - len(os.fsencode(path.suffix))
    return os.fsencode(path.stem)[:most].decode(errors="ignore")


@contextmanager
def name_in_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Put the path into an `OSError` that names no file, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def find_archive_fault(path: str | os.PathLike[str]) -> str:
    """What is wrong with a zip archive of uncompressed entries, as torch and numpy write them; empty for a sound one.

    It may be cut short, be compressed (it could unpack to any size), or have a wrong checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                return "its entries are compressed or encrypted"
            if sum(entry.file_size for entry in entries) > os.path.getsize(path):
                return "its entries claim to be larger than the file"
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises anything over a damaged directory
        return f"the archive is cut short or damaged ({error})"
    return f"the checksum of its entry {damaged!r} is wrong" if damaged else ""


def find_array_fault(path: str | os.PathLike[str]) -> str:
    """Find an array of a sound .npz archive whose header states another size than its entry has; empty if none does.

    numpy takes the memory that the header states before it reads the first byte.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                if fault := _header_fault(file, entry.file_size):
                    return f"its entry {entry.filename!r:.80} {fault}"
    return ""


def _header_fault(file: IO[bytes], size: int) -> str:
    """Why the header of an array in a file of so many bytes cannot be right; empty if it can."""
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    except DAMAGE as error:
        return f"is no array ({error})"
    stated = math.prod(shape) * dtype.itemsize + file.tell()
    return "" if dtype.hasobject or stated == size else f"states {stated} bytes and has {size}"
