"""A life with the wheel: a fresh environment, its two commands, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import samplug

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="links packages and scripts as Unix has them"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment that sees the packages which are installed here, but for this one, and has their `yolo`.

    `--system-site-packages` would be those of the interpreter, which may have none when this is an environment too.
    """
    made = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    (packages,) = made.glob("lib/python*/site-packages")
    linked = made / "present"
    linked.mkdir()
    for item in (
        item for folder in map(Path, sys.path) if folder.name.endswith("-packages") for item in folder.iterdir()
    ):
        if not item.name.startswith(("samplug", "pip")) and item.suffix != ".pth" and not (linked / item.name).exists():
            (linked / item.name).symlink_to(item)
    (packages / "present.pth").write_text(f"{linked}\n")
    script = Path(sys.executable).with_name("yolo").read_text().split("\n", 1)[1]
    (made / "bin" / "yolo").write_text(f"#!{made}/bin/python\n{script}")
    (made / "bin" / "yolo").chmod(0o755)
    return made


@pytest.fixture
def installed(environment, wheel, pip):
    """The same with the wheel in it."""
    pip("install", "--no-deps", wheel, python=environment / "bin" / "python")
    yield environment
    pip("uninstall", "--yes", "samplug", python=environment / "bin" / "python")


def run(environment, folder, program, *words):
    """Run a command of the environment in a folder."""
    ours = {"YOLO_CONFIG_DIR": str(folder / "settings"), "PATH": f"{environment}/bin:{os.environ['PATH']}"}
    there = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | ours
    command = [environment / "bin" / program, *words]
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True, timeout=300)


def files_of(environment):
    """What has the package's name, anywhere in the environment."""
    found = (path for path in environment.rglob("*samplug*") if "present" not in path.relative_to(environment).parts)
    return sorted(path.relative_to(environment).as_posix() for path in found)


@pytest.mark.parametrize("program", [["samplug"], ["yolo", "sam"]], ids=" ".join)
def test_both_commands_segment_and_save_with_the_model_in_the_wheel(installed, tmp_path, images, program):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    words = ["predict", "source=a.png", "points=[[60, 80], [200, 120]]", "save_txt", f"project={tmp_path}", "name=out"]
    done = run(installed, tmp_path, *program, *words)
    assert done.returncode == 0, done.stderr
    assert "a.png" in done.stdout and "Results saved to" in done.stdout
    assert cv2.imread(str(tmp_path / "out" / "a.jpg")).shape == (240, 320, 3)
    assert len((tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()) == 2


def test_the_environments_own_copy_runs_and_finds_nothing_wrong_with_itself(installed, tmp_path):
    where = run(installed, tmp_path, "python", "-c", "import samplug; print(samplug.__file__, samplug.__version__)")
    assert where.stdout.split()[0].startswith(str(installed)) and where.stdout.split()[1] == samplug.__version__
    report = run(installed, tmp_path, "samplug", "checks")
    assert report.returncode == 0, report.stdout
    assert "samplug-nano.pt" in report.stdout and f"{installed}/bin/yolo knows sam" in report.stdout


def test_uninstalled_it_leaves_nothing_and_yolo_as_it_was(environment, wheel, pip, tmp_path):
    lines = (["version"], ["sam", "help"], ["detect", "predict", "sourcee=x"])
    run(environment, tmp_path, "yolo", "version")  # the first one says that it makes its settings
    before = files_of(environment), [run(environment, tmp_path, "yolo", *words) for words in lines]
    pip("install", "--no-deps", wheel, python=environment / "bin" / "python")
    assert files_of(environment) and run(environment, tmp_path, "yolo", "sam", "help").returncode == 0
    pip("uninstall", "--yes", "samplug", python=environment / "bin" / "python")
    after = files_of(environment), [run(environment, tmp_path, "yolo", *words) for words in lines]
    assert before[0] == after[0] == []
    for stock, left in zip(before[1], after[1], strict=True):
        assert (left.returncode, left.stdout) == (stock.returncode, stock.stdout)
        assert "samplug" not in left.stderr
    assert after[1][0].returncode == 0 and "is not a valid YOLO argument" in after[1][1].stderr
