"""The wheel of this source, made as a release's is."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HATCH = "from hatchling.cli import hatchling; hatchling()"


def pip(*words, python=sys.executable):
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def wheel_in(folder):
    """The wheel, made in a folder from the source archive."""
    words = [sys.executable, "-c", HATCH, "build", "-t", "sdist", "-d", folder]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, archive)
    return next(folder.glob("*.whl"))
