"""What a planted mistake is; the tables of them stand beside this file, plant_mistakes.py plants them."""

from dataclasses import dataclass
from pathlib import Path


def find(folder: Path, name: str) -> Path:
    """The one file below a folder that ends in this name, with as many of its folders as tell it apart."""
    found = [path for path in folder.rglob(Path(name).name) if path.parts[-len(Path(name).parts) :] == Path(name).parts]
    if len(found) != 1:
        raise LookupError(f"{len(found)} files below {folder} are called {name}")
    return found[0]


def locate_test(folder: Path, name: str) -> str:
    """A file of tests, or one test in it, as pytest takes it."""
    file, colons, test = name.partition("::")
    return f"{find(folder, file)}{colons}{test}"


@dataclass(frozen=True)
class Defect:
    """One mistake: in `file` of the package `old`, standing there once, becomes `new`; `tests` must notice.

    Files of the package and of the tests are found by their names.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def plant(self, package: Path) -> None:
        """Make the mistake in a copy of the package."""
        path = find(package, self.file)
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise LookupError(f"{self.file} has this {text.count(self.old)} times instead of once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
