"""The README keeps its word: its code runs as it stands, it stays short, what it points at exists."""

import re
import shlex
from pathlib import Path

import cv2
import pytest
from support.images import draw
from support.videos import film, write_video

from samplug.cli import main
from samplug.cli.help import TOPICS
from samplug.cli.modes import MODES
from samplug.cli.parse import merge

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)\n```", README, re.DOTALL) for kind in ("python", "bash")}
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in BLOCKS["bash"]
    for line in block.splitlines()
    if line.startswith(("yolo sam ", "samplug "))
]
RUN_AT_ONCE = ("predict", "track", "annotate")


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """A folder with every file the README names: the bundled weights under the names of released ones."""
    from ultralytics import YOLO

    from samplug.checkpoints.load import bundled_path

    folder = tmp_path_factory.mktemp("readme")
    for name in ("sam2.1_t.pt", "sam2.1_b.pt"):
        (folder / name).write_bytes(bundled_path().read_bytes())
    YOLO("yolo11n.yaml").save(folder / "yolo11n.pt")
    (folder / "images").mkdir()
    for name, shape in {"bus.jpg": (1080, 810), "shelf.jpg": (96, 128), "desk.jpg": (96, 128)}.items():
        cv2.imwrite(str(folder / name), draw(*shape, 1))
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        cv2.imwrite(str(folder / "images" / name), draw(96, 128, seed))
    write_video(folder / "clip.mp4", film())
    (folder / "prompts.json").write_text('{"a.jpg": {"points": [[50, 60]]}, "b.jpg": {"bboxes": [[10, 20, 90, 80]]}}')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS["python"])))
def test_a_python_block_runs_as_it_stands(number, at_home, monkeypatch):
    monkeypatch.chdir(at_home)
    exec(compile(BLOCKS["python"][number], f"README block {number}", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[2 - c.startswith("samplug")] in RUN_AT_ONCE])
def test_a_command_runs_as_it_stands(command, at_home, monkeypatch):
    monkeypatch.chdir(at_home)
    main.samplug(merge(shlex.split(command.removeprefix("yolo sam").removeprefix("samplug"))))


def test_every_mode_is_shown():
    written = {word for command in COMMANDS for word in command.split()} | set(re.findall(r"`samplug (\w+)`", README))
    assert written >= set(MODES)


def test_it_stays_short():
    assert len(README.splitlines()) <= 230


def test_what_it_points_at_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links), links
    topics = re.findall(r"`(?:yolo sam help|…) ([a-z-]+)`", README)
    assert set(topics) == set(TOPICS)


def test_each_difference_names_a_test_that_exists():
    named = re.findall(r"`(test_\w+)`", TOPICS["differences"].read_text(encoding="utf-8"))
    written = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 30 and set(named) <= written, set(named) - written
