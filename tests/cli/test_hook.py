"""The `yolo` command with samplug installed: it knows `sam`, and all else is as Ultralytics made it."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoint_files import digest

try:
    from samplug import yolo_hook
except ImportError:  # a wheel has it beside the package alone
    import samplug_yolo as yolo_hook

SCRIPTS = Path(sys.executable).parent
STAND_IN = """
import samplug_yolo
samplug_yolo.hook()
from ultralytics.cfg import {name}
{name}("{line}")
"""


def yolo(*words, **environment):
    command = [str(SCRIPTS / "yolo"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0", **environment}
    )


@pytest.fixture
def program(tmp_path):
    """Writes and runs a program that finds a stand-in for Ultralytics, which costs a hundredth of the real one."""
    packages, host = tmp_path / "packages", tmp_path / "packages" / "ultralytics"
    host.mkdir(parents=True)
    (host / "__init__.py").touch()
    shutil.copy(yolo_hook.__file__, packages / "samplug_yolo.py")

    def run(
        name="yolo", cfg='def entrypoint(debug=""): print("stock", debug)', line="yolo sam help", options=(), **env
    ):
        (host / "cfg.py").write_text(cfg)
        function = "entrypoint" if "entrypoint" in cfg else "start"
        (tmp_path / name).write_text(STAND_IN.format(name=function, line=line))
        command = [sys.executable, *options, str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": str(packages), **env}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.host
def test_the_yolo_command_knows_sam():
    done = yolo("sam", "help")
    assert done.returncode == 0, done.stderr
    assert "yolo sam predict source=bus.jpg" in done.stdout


@pytest.mark.slow
def test_yolo_help_is_the_stock_text_and_then_ours():
    stock, ours = yolo("help", SAMPLUG_YOLO="0"), yolo("help")
    assert stock.returncode == ours.returncode == 0
    texts = [done.stdout[done.stdout.index("Arguments received") :].rstrip() for done in (stock, ours)]
    assert texts[1].startswith(texts[0])
    assert "yolo sam" not in stock.stdout and "yolo sam" in ours.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["version"], ["detect", "predict", "sourcee=x"], ["detect", "predict", "source", "=", "sam"]]
)
def test_other_yolo_commands_answer_as_without_us(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stock, ours = yolo(*words, SAMPLUG_YOLO="0"), yolo(*words)
    assert (ours.returncode, ours.stdout) == (stock.returncode, stock.stdout)
    assert ours.stderr.splitlines()[-1:] == stock.stderr.splitlines()[-1:]


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["SAMPLUG_YOLO", "TORCH_DEVICE_BACKEND_AUTOLOAD"])
def test_either_switch_gives_the_stock_command_back(switch):
    done = yolo("sam", "help", **{switch: "0"})
    assert done.returncode != 0 and "is not a valid YOLO argument" in done.stderr


@pytest.mark.slow
def test_a_wrong_word_after_yolo_sam_is_one_line_and_a_status():
    done = yolo("predict", "task", "=", "sam", "pointz=[[1, 2]]")
    assert done.returncode == 1
    assert done.stderr.strip() == "yolo sam: 'pointz' is not an argument. Similar arguments: points."


@pytest.mark.parametrize("name", ["yolo", "ultralytics", "yolo.exe"])
def test_a_program_of_the_host_is_taught(program, name):
    assert program(name).stdout.startswith("samplug ")


@pytest.mark.parametrize("name", ["yolo.py", "yolov5", "my-yolo", "samplug", "train.py"])
def test_any_other_program_is_left_alone(program, name):
    assert program(name).stdout == "stock yolo sam help\n"


def test_stock_commands_reach_the_stock_function(program):
    assert program(line="yolo detect predict source=sam").stdout == "stock yolo detect predict source=sam\n"


def test_switched_off_it_does_nothing(program):
    assert program(SAMPLUG_YOLO="0").stdout == "stock yolo sam help\n"


def test_without_the_package_the_stock_command_runs_after_one_line(program):
    done = program(options=["-S"])  # no site-packages: samplug is gone, its hook still there
    assert done.stdout == "stock yolo sam help\n"
    assert done.stderr.count("\n") == 1 and "samplug cannot be imported" in done.stderr


def test_a_host_whose_entry_point_has_moved_still_imports(program):
    assert program(cfg='def start(debug=""): print("moved", debug)').stdout == "moved yolo sam help\n"


@pytest.mark.parametrize("argv", [[], [""], ["-c"], [None], None])
def test_the_hook_never_raises_and_leaves_the_import_system_alone(argv, monkeypatch):
    before = list(sys.meta_path)
    monkeypatch.setattr(sys, "argv", argv)
    yolo_hook.hook()
    assert sys.meta_path == before


def test_the_watcher_leaves_as_soon_as_it_has_been_asked(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/yolo"])
    yolo_hook.hook()
    watcher = sys.meta_path[0]
    assert watcher.find_spec("json") is None and watcher in sys.meta_path
    assert watcher.find_spec("ultralytics.cfg", ["nowhere"]) is None and watcher not in sys.meta_path


def test_the_hook_needs_the_standard_library_only():
    tree = ast.parse(Path(yolo_hook.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert imported and imported <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.ImportFrom) for node in tree.body)


def test_the_installed_hook_is_this_one():
    spec = importlib.util.find_spec("samplug_yolo")
    assert spec is not None, "install the package: pip install -e ."
    installed = Path(spec.origin)
    assert digest(installed) == digest(Path(yolo_hook.__file__)), "install again: pip install -e ."


@pytest.mark.host
def test_register_teaches_this_program_once(monkeypatch, capsys):
    import ultralytics.cfg

    from samplug.cli.main import register

    monkeypatch.setattr(ultralytics.cfg, "entrypoint", ultralytics.cfg.entrypoint)
    register()
    wrapped = ultralytics.cfg.entrypoint
    register()
    assert ultralytics.cfg.entrypoint is wrapped
    wrapped("yolo sam help")
    assert "yolo sam predict" in capsys.readouterr().out
