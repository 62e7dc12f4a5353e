"""Commands where standard streams are closed or know few letters, where signals come, where names are long."""

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from support.images import draw

from samplug.cli.main import HungUp, Terminated, exit_codes
from samplug.cli.parse import read_value
from samplug.errors import UsageError
from samplug.files.atomic import NAME_BYTES, atomic_write

COMMAND = [sys.executable, "-c", "from samplug.cli.main import main; main()"]


def shell(line, folder, **environment):
    """Run a line in which SAMPLUG stands for the program."""
    program = f"'{sys.executable}' -c 'from samplug.cli.main import main; main()'"
    return subprocess.run(
        ["bash", "-c", line.replace("SAMPLUG", program)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_help_is_printed_in_every_encoding(tmp_path, encoding):
    done = shell("SAMPLUG help", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and not done.stderr and b"points_stride" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/null"])
def test_help_ends_well_with_streams_closed(tmp_path, closed):
    assert shell(f"SAMPLUG help {closed}", tmp_path).returncode == 0
    assert shell(f"SAMPLUG predict point=3 {closed}", tmp_path).returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_an_image_is_segmented_with_streams_closed_and_in_every_encoding(tmp_path, nano_file, closed, encoding):
    cv2.imwrite(str(tmp_path / "a.png"), draw(96, 128, 1))
    words = f"model={nano_file} source=a.png points='[[40,30]]' project={tmp_path} name=out imgsz=128"
    done = shell(f"SAMPLUG predict {words} {closed}", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Logging error" not in done.stderr and b"Traceback" not in done.stderr
    assert (tmp_path / "out/a.jpg").exists()


def take_signals():
    """Take signals as a program in a terminal does, also where the tests run in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_video_with_what_was_written(tmp_path, nano_file, name, code):
    for i in range(600):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.roll(draw(96, 128, 1), i, 1))
    words = [f"model={nano_file}", f"source={tmp_path}", "bboxes=[[30,20,70,60]]", "imgsz=128"]
    process = subprocess.Popen(
        [*COMMAND, "track", *words, f"project={tmp_path / 'runs'}", "name=out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=take_signals,
    )
    for line in process.stdout:
        if "20/600" in line:
            process.send_signal(getattr(signal, name))
            break
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert "Traceback" not in output and "What was done until here is saved" in output
    (video,) = (tmp_path / "runs/out").iterdir()
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) >= 20


@pytest.mark.parametrize(("kind", "code"), [(Terminated, 143), (HungUp, 129), (KeyboardInterrupt, 130)])
def test_signals_are_told_apart_by_the_exit_code(kind, code):
    with pytest.raises(SystemExit) as ended, exit_codes("samplug"):
        raise kind
    assert ended.value.code == code


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_codes("samplug"):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigterm_reaches_the_run_as_an_interrupt():
    with pytest.raises(SystemExit) as ended, exit_codes("samplug"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert ended.value.code == 143


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "."])
def test_a_value_is_read_from_files_alone(path):
    with pytest.raises(UsageError, match="is a folder or a device"):
        read_value("points", f"@{path}")


def test_a_value_that_is_nested_without_end_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="nested too deeply|not JSON"):
        read_value("points", f"@{tmp_path / 'deep.json'}")


@pytest.mark.parametrize("length", [240, 245, 246, 250, 254, 255])
@pytest.mark.parametrize("letter", ["x", "ö"])
def test_files_with_the_longest_names_are_written(tmp_path, length, letter):
    stem = letter * ((length - 4) // len(letter.encode()))
    path = tmp_path / f"{stem:x<{length - 4 - len(stem.encode()) + len(stem)}}.jpg"
    assert len(path.name.encode()) == length <= NAME_BYTES
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp"])
@pytest.mark.parametrize("kept", [{"save": True}, {"save_txt": True}, {"save_crop": True}])
def test_results_of_the_longest_names_are_saved(tmp_path, network, suffix, kept):
    from samplug import SAM2Predictor

    cv2.imwrite(str(tmp_path / f"a{suffix}"), draw(96, 128, 1))
    source = tmp_path / ("x" * (NAME_BYTES - len(suffix)) + suffix)
    os.replace(tmp_path / f"a{suffix}", source)
    overrides = {"imgsz": 128, "verbose": False, "project": str(tmp_path), "name": "out", **kept}
    predictor = SAM2Predictor(overrides=overrides)
    predictor.setup_model(network, verbose=False)
    assert len(predictor(str(source), bboxes=[[30, 20, 70, 60]] * 3, cls=[0, 0, 0], names=["a"])[0]) == 3
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
