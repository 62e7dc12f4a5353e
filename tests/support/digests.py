"""Files compared by what they hold: as bytes, pytest looks for minutes for where two that differ do so."""

import hashlib
from pathlib import Path


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
