"""Every example runs as it stands, from an empty folder, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
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


@pytest.mark.slow
def test_fixations_in_a_file_become_clicks_in_a_video(tmp_path):
    from support.videos import film, write_video

    write_video(tmp_path / "film.avi", film())
    rows = ["start_ms,duration_ms,x,y", "0,80,50,40", "90,20,51,41", "120,60,100,65", "190,60,101,66"]
    (tmp_path / "gaze.csv").write_text("\n".join(rows))
    command = [sys.executable, str(FOLDER / "gaze.py"), "film.avi", "gaze.csv"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = [line.split(" is on object")[0] for line in run.stdout.splitlines() if " is on object" in line]
    assert lines == [
        "frame 1: (50, 40)",
        "frame 2: (51, 41)",
        "frame 3: (100, 65)",
        "frame 5: (101, 66)",
    ]
    assert len(list(tmp_path.glob("gaze_*.jpg"))) == 4
