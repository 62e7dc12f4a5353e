"""The wheel: what is inside, and that it works where the source is not."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.checkpoint_files import digest

import samplug

SOURCE = Path(__file__).parents[2] / "samplug"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(wheel, pip, tmp_path_factory):
    """A folder into which the wheel is installed, to be put on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", folder, wheel)
    return folder


def python(installed, script, **environment):
    """Run a script that sees the installed wheel in place of this source."""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
    )


def test_the_wheel_holds_the_package_its_licence_and_the_hook_beside_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"samplug-{samplug.__version__}.dist-info"
    assert {"samplug_yolo.py", "samplug/py.typed", "samplug/cli/main.py", f"{info}/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"samplug", "samplug_yolo.py", info}
    assert not any("__pycache__" in name for name in names)
    sources = {path.relative_to(SOURCE.parent).as_posix() for path in SOURCE.rglob("*.py")}
    assert sources - {"samplug/yolo_hook.py"} <= names  # that one is samplug_yolo.py


def test_the_wheel_can_teach_a_program_of_its_own(installed):
    script = "import samplug; samplug.register(); from ultralytics.cfg import entrypoint; entrypoint('yolo sam help')"
    done = python(installed, script)
    assert done.returncode == 0, done.stderr
    assert "yolo sam predict" in done.stdout


def test_the_wheel_brings_the_bundled_model_that_its_card_describes(installed):
    weights = installed / "samplug" / "weights"
    card = json.loads((weights / "samplug-nano.json").read_text())
    assert digest(weights / "samplug-nano.pt") == card["sha256"]
    assert (weights / "samplug-nano.pt").stat().st_size < 20e6


def test_the_metadata_name_the_commands_and_what_is_needed(installed):
    (found,) = importlib.metadata.distributions(name="samplug", path=[str(installed)])
    points = {(point.group, point.name, point.value) for point in found.entry_points}
    assert points == {
        ("console_scripts", "samplug", "samplug.cli.main:main"),
        ("torch.backends", "samplug", "samplug_yolo:hook"),
    }
    assert found.metadata["License-Expression"] == "AGPL-3.0-or-later"
    needed = {line.split(">")[0].split("<")[0] for line in found.requires if "extra ==" not in line}
    assert needed == {"torch", "torchvision", "ultralytics", "numpy", "opencv-python"}


def test_the_installed_package_runs_its_model_without_the_source(installed):
    script = (
        "import samplug, numpy\n"
        "result = samplug.SAM().predict(numpy.zeros((64, 64, 3), 'uint8'), points=[[30, 30]], verbose=False)[0]\n"
        "print(samplug.__file__, tuple(result.masks.data.shape))"
    )
    done = python(installed, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{installed}/samplug/__init__.py (1, 64, 64)"


def test_torch_imports_when_the_package_behind_the_hook_is_gone(installed, tmp_path):
    (tmp_path / "samplug_yolo.py").write_bytes((installed / "samplug_yolo.py").read_bytes())
    (tmp_path / "samplug").mkdir()
    (tmp_path / "samplug" / "__init__.py").write_text("raise RuntimeError('gone')")
    script = (
        "import sys; sys.argv[0] = 'yolo'; import torch\n"
        "from ultralytics.cfg import entrypoint; entrypoint('yolo version')"
    )
    done = python(tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert "samplug cannot be imported" in done.stderr
