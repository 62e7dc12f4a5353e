"""What a planted mistake is; the tables of them are in planted_*.py, defects.py plants them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Defect:
    """One mistake: in `file` of the package `old`, standing there once, becomes `new`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def plant(self, package: Path) -> None:
        """Make the mistake in a copy of the package."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise LookupError(f"{self.file} has this {text.count(self.old)} times instead of once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
