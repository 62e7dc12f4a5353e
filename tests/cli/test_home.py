"""A home that cannot be written: a container's, a service's. Nothing of ours needs it."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux"),
]
DROP_CAPABILITY, OVERRIDE_PERMISSIONS = 24, 1  # PR_CAPBSET_DROP and CAP_DAC_OVERRIDE
PROGRAMS = {
    "samplug": ["-c", "from samplug.cli.main import main; main()"],
    "yolo sam": [
        "-c",
        "import samplug; samplug.register(); from ultralytics.cfg import entrypoint; entrypoint()",
        "sam",
    ],
}


def heed_permissions():
    """Make root heed the permissions of files, as everybody else has to: for the program that comes next."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(DROP_CAPABILITY, OVERRIDE_PERMISSIONS, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot give up a capability")


@pytest.fixture
def home(tmp_path):
    """A home in which nothing can be made."""
    made = tmp_path / "home"
    made.mkdir(mode=0o555)
    yield made
    made.chmod(0o755)


def run(home, *words, settings="settings"):
    """Run Python at home; `settings`: where in it Ultralytics keeps its own, None if nobody says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "XDG_", "MPL"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), "YOLO_OFFLINE": "true"}
    environment |= {} if settings is None else {"YOLO_CONFIG_DIR": str(home / settings)}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, timeout=300, cwd=home, env=environment, preexec_fn=heed_permissions,
    )  # fmt: skip


def test_such_a_home_refuses_even_root(home):
    done = run(home, "-c", "import pathlib; (pathlib.Path.home() / 'a').touch()")
    assert done.returncode == 1 and "PermissionError" in done.stderr


@pytest.mark.parametrize("settings", ["settings", None])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_shell_segments_and_saves_where_it_is_told_to(home, tmp_path, images, program, settings):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    words = ["predict", f"source={tmp_path}/a.png", "points=[[60, 80]]", "imgsz=64", "save_txt"]
    words += [f"project={tmp_path}", "name=out"]
    done = run(home, *PROGRAMS[program], *words, settings=settings)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert cv2.imread(str(tmp_path / "out" / "a.jpg")).shape == (240, 320, 3)
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() and not list(home.iterdir())


def test_the_report_names_what_cannot_be_written(home):
    done = run(home, *PROGRAMS["samplug"], "checks")
    assert done.returncode == 1 and not done.stderr
    assert f"settings folder  {home}/settings cannot be written" in done.stdout
    assert f"current folder   {home} cannot be written" in done.stdout
