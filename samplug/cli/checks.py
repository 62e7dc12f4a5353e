"""`samplug checks`: what is installed, whether it works together, and what to do about what does not."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from samplug import __version__

AGAIN = "pip install --force-reinstall --no-deps samplug (in a clone: pip install -e .)"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` says what to do, and is empty where all is well."""

    subject: str
    state: str
    remedy: str = ""


def run_checks() -> int:
    """Print the report; return 0 if all is well, else 1."""
    print(f"samplug {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
    wrong = 0
    for check in (versions, predictors, devices, bundled_weights, folders, yolo_command):
        for finding in run_check(check):
            print(f"  {'wrong' if finding.remedy else 'ok':<6} {finding.subject:<16} {finding.state}", flush=True)
            if finding.remedy:
                wrong += 1
                print(f"         {'':<16} -> {finding.remedy}")
    print(f"\n{wrong} wrong." if wrong else "\nAll is well.")
    return int(wrong > 0)


def run_check(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Run one check; its error is a finding too, so that the others still run."""
    try:
        return list(check())
    except Exception as error:
        return [Finding(check.__name__.replace("_", " "), f"{type(error).__name__}: {error}", AGAIN)]


def versions() -> Iterator[Finding]:
    """Compare what is installed with what samplug asks for."""
    for line in importlib.metadata.requires("samplug") or ():
        name, least = required(line)
        if "extra ==" not in line:
            yield version(name, least)


def required(line: str) -> tuple[str, str]:
    """Read the name and the least version out of a requirement such as `torch>=2.5`."""
    found = re.match(r"([\w-]+)[^;]*?>=([\d.]+)", line)
    return (found[1], found[2]) if found else (re.split(r"[^\w-]", line)[0], "0")


def version(name: str, least: str) -> Finding:
    """Say which version of a distribution is installed."""
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        headless = name == "opencv-python" and importlib.util.find_spec("cv2") is not None
        if not headless:
            return Finding(name, "is not installed", f'pip install "{name}>={least}"')
        return Finding(name, "another build of OpenCV")
    new_enough = numbers(installed) >= numbers(least)
    return Finding(name, installed, "" if new_enough else f'pip install "{name}>={least}"')


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparing."""
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])))


def predictors() -> Iterator[Finding]:
    """Import what needs Ultralytics; the error names what is missing."""
    try:
        import samplug.host  # noqa: F401
    except ImportError as error:
        yield Finding("predictors", str(error), 'pip install "ultralytics>=8.3.200,<9"')
    else:
        yield Finding("predictors", "work with this Ultralytics")


def devices() -> Iterator[Finding]:
    """Name what networks can run on."""
    import torch

    from samplug.resources import usable_cores

    yield Finding("cpu", f"{usable_cores()} cores, torch uses {torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        yield Finding(f"cuda:{i}", torch.cuda.get_device_name(i))
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU")


def bundled_weights() -> Iterator[Finding]:
    """Compare the bundled model with the hash on its card."""
    from samplug.checkpoints.load import BUNDLED, bundled_path

    path = bundled_path()
    if not path.is_file():
        yield Finding(BUNDLED, f"{path} is missing", AGAIN)
        return
    recorded = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    same = hashlib.sha256(path.read_bytes()).hexdigest() == recorded
    other = Finding(BUNDLED, "is not the file that its card describes", AGAIN)
    yield Finding(BUNDLED, f"sha256 {recorded[:12]}…") if same else other


def folders() -> Iterator[Finding]:
    """Try to write where settings, downloads and results go."""
    settings = Path(os.environ.get("YOLO_CONFIG_DIR") or Path.home())
    yield writable("settings folder", settings, "set YOLO_CONFIG_DIR to a folder of yours")
    yield writable("current folder", Path.cwd(), "run from a folder of yours, or give project=FOLDER")


def writable(subject: str, folder: Path, remedy: str) -> Finding:
    """Say whether a file can be made in a folder, or in its nearest parent that exists."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding(subject, str(folder))
    except OSError as error:
        return Finding(subject, f"{folder} cannot be written: {error.strerror}", remedy)


def yolo_command() -> Iterator[Finding]:
    """Ask the `yolo` command itself whether it knows `sam`."""
    beside = Path(sys.executable).with_name("yolo.exe" if os.name == "nt" else "yolo")
    command = str(beside) if beside.is_file() else shutil.which("yolo")
    if command is None:
        remedy = "pip install ultralytics; `samplug predict` works without it"
        yield Finding("yolo sam", "there is no `yolo` command", remedy)
        return
    answer = subprocess.run([command, "sam", "help"], capture_output=True, text=True, timeout=300)
    knows = answer.returncode == 0 and "yolo sam predict" in answer.stdout
    yield Finding("yolo sam", f"{command} {'knows' if knows else 'does not know'} sam", "" if knows else hook_remedy())


def hook_remedy() -> str:
    """Say why the hook did not run; `samplug predict` works in every case."""
    for switch in ("SAMPLUG_YOLO", "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        if os.environ.get(switch) == "0":
            return f"unset {switch}, or write samplug in place of yolo sam"
    return f"{AGAIN}, or write samplug in place of yolo sam"
