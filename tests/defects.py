"""Plant known mistakes in a copy of the project, one at a time, and see the tests turn red.

    python tests/defects.py                  # all of them, as a table
    python tests/defects.py pixel letterbox  # those with one of these words in their names

A defect that survives is a gap in the tests; one whose text is no longer found has to follow the code. The exit status
is 0 only if the tests are green without a defect and red with each.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from planted import Defect
from planted_networks import NETWORKS
from planted_results import RESULTS
from planted_videos import VIDEOS

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("samplug", "tests", "examples", "pyproject.toml", "README.md", "LICENSE")
LIMIT = 1800  # seconds that one run of tests may take, beside others too
GREEN, RED = 0, 1  # exit statuses of pytest


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    name: str
    good: bool
    said: str
    seconds: float


DEFECTS = (*NETWORKS, *VIDEOS, *RESULTS)


def check(tests: Iterable[str], defect: Defect | None = None) -> tuple[int, str]:
    """Run tests in a copy of the project with a defect in it: pytest's exit status, and the first failure or error."""
    with tempfile.TemporaryDirectory(prefix="samplug-defect-") as folder:
        copy_project(Path(folder))
        if defect:
            defect.plant(Path(folder) / "samplug")
        # As a module, pytest puts the folder it runs in before an installed samplug; other processes need the variable.
        command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-p", "no:cacheprovider"]
        command += [f"tests/{file}" for file in tests]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        lines = (run.stdout + run.stderr).splitlines()
        failed = [line.split(" - ")[0].split("::")[-1] for line in lines if line.startswith(("FAILED", "ERROR"))]
        return run.returncode, (failed or lines or ["nothing"])[-1]


def copy_project(folder: Path) -> None:
    """Copy what the tests need, so that a defect never touches the original."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)


def without_defect(tests: Iterable[str]) -> Outcome:
    """The chosen tests as they are: they must pass, or their failing says nothing."""
    start = time.monotonic()
    status, said = check(tests)
    said = "green" if status == GREEN else said
    return Outcome("no defect", status == GREEN, said, time.monotonic() - start)


def with_defect(defect: Defect) -> Outcome:
    """The chosen tests with the defect: some of them must fail."""
    start = time.monotonic()
    try:
        status, said = check([defect.tests], defect)
    except (LookupError, subprocess.TimeoutExpired) as error:
        return Outcome(defect.name, False, str(error), time.monotonic() - start)
    said = said if status == RED else "SURVIVED" if status == GREEN else f"pytest ended with {status}: {said}"
    return Outcome(defect.name, status == RED, said, time.monotonic() - start)


def main(words: Sequence[str] = ()) -> int:
    """Plant the defects whose names contain one of the words (all, without words); 0 if the tests catch each."""
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.name for word in words)]
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        green = pool.submit(without_defect, {defect.tests for defect in chosen})
        outcomes = [report(outcome) for outcome in pool.map(with_defect, chosen)] + [report(green.result())]
    good = bool(chosen) and all(outcome.good for outcome in outcomes)
    print(f"{len(chosen)} defects, {time.monotonic() - start:.0f} s: {'all caught' if good else 'SEE ABOVE'}")
    return 0 if good else 1


def report(outcome: Outcome) -> Outcome:
    """Print a row of the table as soon as it is known."""
    mark = "ok  " if outcome.good else "FAIL"
    print(f"{mark} {outcome.seconds:5.1f} s  {outcome.name:38}  {outcome.said}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
