"""Processes that annotate: they may die, hang, be interrupted, and the records are the same."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import samplug
from samplug.annotate.engines import finishing_on_interrupt, pool
from samplug.annotate.engines.cluster import actors_on
from samplug.annotate.settings import Settings
from samplug.errors import CheckpointError, JobError

# A prompter that a process imports, and that ends it by the size of the image it gets.
DEADLY = """
import os, signal, time
from pathlib import Path
HERE = Path(__file__).parent
def boxes(image):
    height = image.shape[0]
    mark = HERE / f"{height}.seen"
    if height == 64 and not mark.exists():  # once
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if height == 68 and (HERE / "poison").exists():  # always
        os.kill(os.getpid(), signal.SIGKILL)
    if height == 72 and (HERE / "hang").exists():
        (HERE / "hang").unlink()
        time.sleep(60)
    return [[5, 5, 30, 30]] * (height % 3)
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """That prompter, and the folder where it looks for what it does."""
    home = tmp_path / "prompter"
    home.mkdir()
    (home / "deadly_prompter.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(home))
    sys.modules.pop("deadly_prompter", None)
    import deadly_prompter

    yield deadly_prompter.boxes, home
    sys.modules.pop("deadly_prompter", None)


def without_death(job, deadly):
    """The records of a job in which nothing dies."""
    boxes, home = deadly
    (home / "64.seen").touch()
    done = job("calm", prompter=boxes)
    (home / "64.seen").unlink()
    return done


def test_a_killed_process_is_replaced_and_the_records_are_the_same(job, contents, deadly, capture_log):
    whole = without_death(job, deadly)
    done = job("killed", prompter=deadly[0], workers=1)
    assert done.progress == (4, 4) and not done.failures and contents(done) == contents(whole)
    assert sum("died with exit code -9" in line for line in capture_log) == 1
    assert not list((done.out / "journal").iterdir())
    status = json.loads((done.out / "status.json").read_text())
    assert (status["done"], status["total"]) == (7, 7)


@pytest.mark.slow
def test_several_processes_poison_and_one_that_hangs(job, contents, deadly, capture_log):
    whole = {record.source: record for record in without_death(job, deadly).records()}
    (deadly[1] / "poison").touch()
    (deadly[1] / "hang").touch()
    done = job("deadly", prompter=deadly[0], workers=2, timeout=8)
    assert [failure.source for failure in done.failures] == ["image2.png"]
    assert "quarantined" in done.failures[0].reason
    assert all(record == whole[record.source] for record in done.records() if not record.error)
    assert sum("has done nothing for 8 s" in line for line in capture_log) == 1
    assert sum("died with exit code" in line for line in capture_log) == 4  # once, twice, and the one that hung
    assert json.loads((done.out / "failures.jsonl").read_text())["source"] == "image2.png"


@pytest.mark.slow
def test_what_is_wrong_with_the_job_ends_it_with_the_same_error(job, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="broken.pt"):
        job(model=str(tmp_path / "broken.pt"), workers=2)


@pytest.mark.slow
def test_processes_that_die_at_their_start_end_the_job(job, monkeypatch):
    from samplug.annotate.engines import process

    monkeypatch.setattr(process, "BEGIN", "raise SystemExit(3)")
    with pytest.raises(JobError, match="the last exit code is 3"):
        job(workers=1)


def test_a_function_of_the_program_itself_is_asked_in_this_process(job, capture_log):
    done = job(prompter=lambda image: [[5, 5, 30, 30]], workers=2)
    assert done.progress == (4, 4) and any("object of this program" in line for line in capture_log)


@pytest.mark.parametrize(
    ("given", "shards", "size"),
    [
        ({}, 1, 0),  # one shard: nothing is lost with it
        ({"device": "0,1,2,3"}, 9, 4),
        ({"device": "0,1,2,3"}, 3, 3),
        ({"device": "0,1", "workers": 5}, 9, 5),
        ({"device": "cpu", "workers": 3}, 1, 1),
        ({"workers": 0}, 9, 0),
        ({"workers": "2..6"}, 9, 6),
    ],
)
def test_how_many_processes_there_are(given, shards, size):
    assert pool.pool_size(Settings(**given), shards) == size


SMALL, GPUS = {"CPU": 2.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "given", "shards", "actors"),
    [
        ([{"CPU": 16.0}], {}, 99, (1, 4, 0, 4)),
        ([SMALL] * 8, {}, 99, (1, 8, 0, 2)),  # no node has four cores
        ([SMALL] * 8, {"workers": 1}, 99, (1, 1, 0, 2)),
        ([SMALL] * 2, {"workers": "2..4"}, 99, (2, 4, 0, 1)),
        ([{"CPU": 1.0}], {"workers": 4}, 99, (4, 4, 0, 1)),
        ([{"CPU": 64.0}, GPUS], {}, 99, (1, 2, 1, 4)),  # the cores of the node that has the GPUs
        ([{"CPU": 64.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 2.0}], {}, 99, (1, 3, 1, 2)),
        ([GPUS], {"device": "cpu"}, 99, (1, 2, 0, 4)),
        ([GPUS] * 3, {"workers": "4..32"}, 5, (4, 5, 1, 4)),
        ([{"memory": 1e9}], {}, 99, (1, 1, 0, 1)),  # a head that will get nodes
    ],
)
def test_an_actor_asks_for_no_more_than_a_node_has(nodes, given, shards, actors):
    assert actors_on(nodes, Settings(engine="ray", **given), shards) == actors


def test_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(pool, "usable_cores", lambda: 16)
    assert pool.pool_size(Settings(device="cpu"), 100) == 4
    assert pool.devices_of(Settings(device="cuda:1")) == ["1"] and pool.devices_of(Settings(device="cpu")) == ["cpu"]


@pytest.mark.parametrize("workers", ["many", "3..2", "..", "2.."])
def test_a_wrong_number_of_processes_is_refused(workers):
    with pytest.raises(ValueError, match="workers="):
        Settings(workers=workers)


def test_the_first_interrupt_is_asked_for_and_the_second_interrupts():
    with pytest.raises(KeyboardInterrupt), finishing_on_interrupt(False) as is_stopping:
        assert not is_stopping()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
        assert is_stopping()
    reached = []
    with pytest.raises(KeyboardInterrupt), finishing_on_interrupt(False):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
        reached.append(True)
    assert not reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_job_finishes_its_shard_and_goes_on_later(job, contents, monkeypatch):
    whole = job("whole")
    from samplug.annotate.progress import Progress

    tick = Progress.tick
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "tick", lambda *given: (os.kill(os.getpid(), signal.SIGINT), tick(*given)))
        with pytest.raises(KeyboardInterrupt):
            job("stopped")
    first = list((whole.out.with_name("stopped") / "records").rglob("*.gz"))
    assert len(first) == 1 and not (whole.out.with_name("stopped") / "lock").exists()
    assert contents(job("stopped")) == contents(whole)


# Interrupts the program that runs a job, as a terminal does, when its prompter is asked.
INTERRUPTED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import interrupting_prompter
import samplug
samplug.annotate(sys.argv[2], interrupting_prompter.boxes, sys.argv[3], model=sys.argv[4], imgsz=64, shard=2, batch=2,
                 workers=1, verbose=False)
"""
INTERRUPTING = """
import os, signal, time
def boxes(image):
    if image.shape[0] == 60:
        for _ in range(int(os.environ["TIMES"])):
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(0.5)
        if os.environ["TIMES"] == "2":
            time.sleep(60)
    return [[5, 5, 30, 30]]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("times", "done"), [(1, 1), (2, 0)])
def test_ctrl_c_once_finishes_what_is_annotated_and_twice_stops(folder, nano_file, tmp_path, times, done):
    (tmp_path / "interrupting_prompter.py").write_text(INTERRUPTING)
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(folder), str(out), str(nano_file)]
    environment = {**os.environ, "TIMES": str(times), "PYTHONPATH": os.pathsep.join(sys.path)}
    start = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode != 0 and "KeyboardInterrupt" in ended.stderr and time.monotonic() - start < 50
    assert f"annotate out={out} goes on" in ended.stdout + ended.stderr
    assert len(list((out / "records").rglob("*.gz"))) == done and not (out / "lock").exists()
    journals = [path.read_text() for path in (out / "journal").iterdir()]
    assert all(text.endswith('["stop"]\n') for text in journals) and len(journals) == (times == 2)


# Runs a job in two processes, and is killed itself once a shard is done.
ORPHANED = """
import os, signal, sys, threading, time
from pathlib import Path
import samplug
def kill():
    while not list(Path(sys.argv[3]).glob("records/??/*.gz")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill, daemon=True).start()
samplug.annotate(sys.argv[1], sys.argv[2], sys.argv[3], model=sys.argv[4], imgsz=64, shard=1, batch=2, workers=2,
                 verbose=False)
"""


@pytest.mark.slow
def test_a_killed_program_leaves_no_process_and_is_gone_on_with(job, contents, folder, nano_file, tmp_path):
    whole = job("whole", shard=1)
    out = tmp_path / "orphaned"
    command = [sys.executable, "-c", ORPHANED, str(folder), str(tmp_path / "boxes.json"), str(out), str(nano_file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)  # waits until the pipes close
    assert killed.returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in (out / "records").rglob("*.gz")}
    assert 1 <= len(finished) < 7
    assert contents(job("orphaned", shard=1, workers=2)) == contents(whole)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in finished.items())


@pytest.mark.slow
def test_two_programs_on_one_folder(folder, nano_file, tmp_path):
    slow = "import time\ndef boxes(image):\n    time.sleep(1)\n    return [[5, 5, 30, 30]]\n"
    (tmp_path / "slow_prompter.py").write_text(slow)
    out = tmp_path / "out"
    program = INTERRUPTED.replace("interrupting_prompter", "slow_prompter").replace("workers=1", "workers=0")
    command = [sys.executable, "-c", program, str(tmp_path), str(folder), str(out), str(nano_file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as first:
        while not (out / "lock").exists():
            time.sleep(0.01)
        with pytest.raises(JobError, match=f"Process {first.pid} .* works on"):
            annotate_again(folder, out, nano_file, tmp_path)
        assert first.wait() == 0
    assert not (out / "lock").exists()


def annotate_again(folder, out, nano_file, tmp_path):
    """The same job in this program."""
    sys.path.insert(0, str(tmp_path))
    try:
        prompter = importlib.import_module("slow_prompter").boxes
        given = {"model": str(nano_file), "imgsz": 64, "shard": 2, "batch": 2, "workers": 0, "verbose": False}
        samplug.annotate(str(folder), prompter, str(out), **given)
    finally:
        sys.path.remove(str(tmp_path))
