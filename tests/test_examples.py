"""Every example runs as it stands, from an empty folder, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector with random weights, to find something anywhere."""
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("detector") / "drawn.pt"
    YOLO("yolo11n.yaml").save(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_from_an_empty_folder(example, tmp_path, detector):
    from ultralytics.utils import ASSETS

    words = [detector, str(ASSETS / "bus.jpg"), "0.0001"] if example.stem == "yolo_boxes" else []
    run = subprocess.run(
        [sys.executable, str(example), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example):
    assert len(example.read_text().splitlines()) <= 40
