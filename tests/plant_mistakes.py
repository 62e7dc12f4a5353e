"""Plant known mistakes in a copy of the project, one at a time, and see the tests turn red.

    python tests/plant_mistakes.py                  # all of them, as a table
    python tests/plant_mistakes.py pixel letterbox  # those with one of these words in their names

A defect that survives is a gap in the tests; one whose text is no longer found has to follow the code. The exit status
is 0 only if with each defect a test turns red that is green without it.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from planted.defect import Defect, locate_test
from planted.doors import DOORS
from planted.jobs import JOBS
from planted.labels import LABELS
from planted.learning import LEARNING
from planted.networks import NETWORKS
from planted.results import RESULTS
from planted.training import TRAINING
from planted.training_data import TRAINING_DATA
from planted.videos import VIDEOS

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("samplug", "tests", "examples", "pyproject.toml", "README.md", "LICENSE")
LIMIT = 600  # seconds that one run of tests may take, beside others too
STUCK = 240  # seconds after which a test shows where it stands
GREEN, RED, NOTHING, LATE = 0, 1, 2, -signal.SIGKILL  # statuses of pytest: 2 without a test; and of what was ended
STUCK_AT_FIRST = "stuck at first:"  # begins the line about a run that was repeated
CONTEXT = multiprocessing.get_context("forkserver")  # a process a defect, from one that has imported the slow packages
CONTEXT.set_forkserver_preload(["torch", "torchvision", "cv2", "pytest"])


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    name: str
    good: bool
    said: str
    seconds: float


DEFECTS = (*DOORS, *NETWORKS, *VIDEOS, *RESULTS, *LABELS, *JOBS, *TRAINING, *TRAINING_DATA, *LEARNING)


def check(tests: Sequence[str], defect: Defect | None = None) -> tuple[int, str]:
    """Run tests in a copy of the project with a defect in it: pytest's exit status, and the test that failed.

    A run without an end is repeated once: it is the machine's or a test's fault, and `said` names it.
    """
    status, said = run(tests, defect)
    if status != LATE:
        return status, said
    print(f"{STUCK_AT_FIRST} {said}", flush=True)
    return run(tests, defect)


def run(tests: Sequence[str], defect: Defect | None) -> tuple[int, str]:
    """As `check`, once; LATE for a run without an end."""
    with tempfile.TemporaryDirectory(prefix="samplug-defect-") as name:
        folder = Path(name)
        copy_project(folder)
        if defect:
            defect.plant(folder / "samplug")
        output, chosen = folder / "output.txt", [locate_test(folder / "tests", each) for each in tests]
        process = CONTEXT.Process(target=run_pytest, args=(folder, chosen, output))
        process.start()
        process.join(LIMIT)
        late = process.is_alive()
        with suppress(ProcessLookupError):  # what a failed test has left running, too
            os.killpg(int(process.pid or 0), signal.SIGKILL)
        process.join()
        lines = output.read_text(errors="replace").splitlines()
        if late:
            return LATE, f"no end after {LIMIT} s: {standing(lines, folder)}"
        failed = [line.split(" ", 1)[1].split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
        status = int(process.exitcode or 0)
        return (status, failed[-1]) if failed else (NOTHING if status == RED else status, (lines or ["no output"])[-1])


def standing(lines: Sequence[str], folder: Path) -> str:
    """The test that pytest began last, and the lines of ours that its threads were in when it had been stuck."""
    begun = [line for line in lines if "::" in line and not line.startswith(" ")]
    frames = [line for line in lines if f'File "{folder}/' in line]
    own = [line.replace(f"{folder}/", "").strip() for line in (*begun[-1:], *frames)]
    return "; ".join(dict.fromkeys(own)) or "nothing was begun"


def run_pytest(folder: Path, tests: Sequence[str], output: Path) -> None:
    """Run tests of a copy in this process, which has imported nothing of the original's, and exit with their status."""
    os.setsid()  # what it starts ends with it
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}  # for processes that tests start
    sys.dont_write_bytecode = True
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests")))]
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        options = ["-o", f"faulthandler_timeout={STUCK}"]
        options += [f"--basetemp={folder / 'temporary'}"]  # those of other runs are not cleaned up
        options += ["--assert=plain"]  # how two long values differ takes pytest minutes, where CI is set
        status = pytest.main(["-vv", "-x", "--tb=no", "-p", "no:cacheprovider", *options, *tests])
        sys.stdout.flush()
    os._exit(int(status))  # threads of a failed test would be waited for


def copy_project(folder: Path) -> None:
    """Copy what the tests need, so that a defect never touches the original."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)  # with the compiled files of what stays as it is
        elif source.exists():
            shutil.copy(source, folder / name)


def without_defect(tests: Sequence[str]) -> Outcome:
    """The tests that failed, as they are: they must pass, or their failing says nothing."""
    start = time.monotonic()
    status, said = check(tests)
    said = "green" if status == GREEN else said
    return Outcome("no defect", status == GREEN, said, time.monotonic() - start)


def with_defect(defect: Defect) -> Outcome:
    """The chosen tests with the defect: some of them must fail."""
    start = time.monotonic()
    try:
        status, said = check([defect.tests], defect)
    except LookupError as error:
        return Outcome(defect.name, False, str(error), time.monotonic() - start)
    said = said if status == RED else "SURVIVED" if status == GREEN else f"pytest ended with {status}: {said}"
    return Outcome(defect.name, status == RED, said, time.monotonic() - start)


def main(words: Sequence[str] = ()) -> int:
    """Plant the defects whose names contain one of the words (all, without words); 0 if the tests catch each."""
    chosen = [defect for defect in DEFECTS if not words or any(word in defect.name for word in words)]
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = [report(outcome) for outcome in pool.map(with_defect, chosen)]
    outcomes.append(report(without_defect(sorted({outcome.said for outcome in outcomes if outcome.good}))))
    missed = [outcome for outcome in outcomes if not outcome.good]
    print(f"\n{len(chosen)} defects, {time.monotonic() - start:.0f} s: {len(missed) or 'none'} missed")
    for outcome in missed:
        report(outcome)
    return 0 if chosen and not missed else 1


def report(outcome: Outcome) -> Outcome:
    """Print a row of the table as soon as it is known."""
    mark = "ok  " if outcome.good else "FAIL"
    said = outcome.said.rpartition("::")[2] if outcome.good else outcome.said
    print(f"{mark} {outcome.seconds:5.1f} s  {outcome.name:38}  {said}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
