"""The wheel of this source, made once as a release's is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HATCH = "from hatchling.cli import hatchling; hatchling()"


@pytest.fixture(scope="session")
def pip():
    """Runs pip in an environment, by default this one."""

    def run(*words, python=sys.executable):
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The source archive."""
    folder = tmp_path_factory.mktemp("sdist")
    words = [sys.executable, "-c", HATCH, "build", "-t", "sdist", "-d", folder]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(archive, pip, tmp_path_factory):
    """The wheel, made from the source archive."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, archive)
    return next(folder.glob("*.whl"))
