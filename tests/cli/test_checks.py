"""`samplug checks`: what it finds, and that what is wrong comes with what to do."""

import hashlib
import json
import subprocess
import sys

import pytest

from samplug.cli import checks
from samplug.cli.checks import Finding


def only(findings):
    (finding,) = findings
    return finding


def test_the_report_says_so_when_all_is_well(monkeypatch, capsys):
    monkeypatch.setattr(checks, "bundled_weights", lambda: iter([Finding("samplug-nano.pt", "fine")]))
    monkeypatch.setattr(checks, "yolo_command", lambda: iter([Finding("yolo sam", "knows sam")]))
    assert checks.run_checks() == 0
    report = capsys.readouterr().out
    for subject in ("torch ", "torchvision", "ultralytics", "numpy", "opencv-python", "cpu", "threads", "All is well"):
        assert subject in report


def test_one_thing_wrong_is_counted_and_comes_with_a_remedy(monkeypatch, capsys):
    for name in ("versions", "predictors", "devices", "bundled_weights", "folders"):
        monkeypatch.setattr(checks, name, lambda: iter([]))
    monkeypatch.setattr(checks, "yolo_command", lambda: iter([Finding("yolo sam", "is off", "turn it on")]))
    assert checks.run_checks() == 1
    assert capsys.readouterr().out.endswith(
        "wrong  yolo sam         is off\n" + " " * 26 + "-> turn it on\n\n1 wrong.\n"
    )


def test_a_check_that_breaks_is_a_finding():
    def strange_thing():
        raise RuntimeError("no")
        yield

    finding = only(checks.run_check(strange_thing))
    assert finding.subject == "strange thing" and "RuntimeError: no" in finding.state and finding.remedy


@pytest.mark.parametrize(
    ("line", "name", "least"),
    [
        ("torch>=2.5", "torch", "2.5"),
        ("ultralytics<9,>=8.3.200", "ultralytics", "8.3.200"),
        ("numpy", "numpy", "0"),
        ("sam2==1.1.0 ; extra == 'parity'", "sam2", "0"),
    ],
)
def test_requirements_are_read_from_the_metadata(line, name, least):
    assert checks.required(line) == (name, least)


def test_an_old_or_absent_package_is_named_with_the_command_that_installs_it():
    assert checks.version("numpy", "99.1").remedy == 'pip install "numpy>=99.1"'
    assert checks.version("numpy", "1.26").remedy == ""
    assert checks.version("no-such-thing", "1").remedy == 'pip install "no-such-thing>=1"'


def test_versions_are_compared_as_numbers():
    assert checks.numbers("8.3.200") > checks.numbers("8.3.99")
    assert checks.numbers("2.15.0+cu130") == (2, 15, 0)


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """A bundled model whose card is right."""
    path = tmp_path / "nano.pt"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest()}))
    monkeypatch.setattr("samplug.checkpoints.load.bundled_path", lambda: path)
    return path


def test_the_bundled_model_is_compared_with_its_card(bundle):
    assert only(checks.bundled_weights()).remedy == ""
    bundle.write_bytes(b"other")
    assert only(checks.bundled_weights()).remedy
    bundle.unlink()
    assert "missing" in only(checks.bundled_weights()).state


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    assert checks.writable("x", tmp_path / "not" / "yet", "move").remedy == ""
    (tmp_path / "file").touch()
    assert checks.writable("x", tmp_path / "file", "move").remedy == "move"


def test_the_remedy_names_the_switch_that_is_off(monkeypatch):
    assert "pip install" in checks.hook_remedy()
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    assert "unset TORCH_DEVICE_BACKEND_AUTOLOAD" in checks.hook_remedy()


@pytest.mark.slow
def test_the_command_asks_yolo_itself(monkeypatch):
    assert "knows sam" in only(checks.yolo_command()).state
    monkeypatch.setenv("SAMPLUG_YOLO", "0")
    finding = only(checks.yolo_command())
    assert "does not know sam" in finding.state and "unset SAMPLUG_YOLO" in finding.remedy


@pytest.mark.slow
def test_the_whole_report_on_this_installation():
    done = subprocess.run(
        [sys.executable, "-c", "from samplug.cli.main import main; main()", "checks"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
