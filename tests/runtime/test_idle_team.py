"""Threads that only sleep: one more than the cores, nobody's settings changed, briefly awake."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from samplug.resources import usable_cores
from samplug.runtime.idle_team import PERIOD, WAIT_SETTINGS, Crowding, IdleTeam
from samplug.runtime.threads import use_threads

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is torch's on Linux")

AWAKE = """
import time, torch
from samplug.runtime.idle_team import IdleTeam
torch.set_num_threads(2)
numbers = torch.zeros(1 << 20)
def awake():  # seconds that threads compute after the last loop has ended
    taken = []
    for _ in range(30):
        numbers.add_(1)
        before = time.process_time()
        time.sleep(0.03)
        taken.append(time.process_time() - before)
    return max(taken)
alone = awake()
IdleTeam().start()
print(alone, awake())
"""


@pytest.fixture
def team(monkeypatch):
    for name in WAIT_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.zeros(1 << 20).add_(1)  # the threads that compute are there
    team = IdleTeam()
    yield team
    team.stop()
    torch.set_num_threads(before)


def test_computing_and_sleeping_threads_are_one_more_than_the_cores(team):
    before = set(TASKS.iterdir())
    team.start()
    team.start()  # it is there
    asleep = len(set(TASKS.iterdir()) - before)  # others may end meanwhile
    assert asleep + torch.get_num_threads() >= usable_cores() + 1 and asleep >= 2


def test_a_team_changes_no_number_of_threads(team):
    seen, count = [], usable_cores() + 2  # more than a team of two, which is enough beside so many
    torch.set_num_threads(count)
    team.start()
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [count] and torch.get_num_threads() == count


def test_a_team_ends_when_it_is_stopped(team):
    before = set(threading.enumerate())
    team.start()
    assert len(set(threading.enumerate()) - before) == 1
    team.stop()
    assert set(threading.enumerate()) == before
    team.start()
    assert len(set(threading.enumerate()) - before) == 1


@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_who_decided_how_threads_wait_is_left_alone(team, name, monkeypatch):
    monkeypatch.setenv(name, "active")
    before = set(threading.enumerate())
    team.start()
    assert set(threading.enumerate()) == before


def test_one_thread_needs_no_team(team):
    before = set(threading.enumerate())
    torch.set_num_threads(1)
    team.start()
    assert set(threading.enumerate()) == before


def test_results_are_the_same_bits_with_a_team(team):
    numbers, kernel = torch.randn(1, 16, 64, 64), torch.randn(16, 16, 3, 3)
    alone = torch.conv2d(numbers, kernel)
    team.start()
    assert torch.equal(torch.conv2d(numbers, kernel), alone)


@pytest.fixture
def counted(tmp_path):
    """A judge of what a file says that two threads ran and waited, in ms since the last call, and how many run."""
    judge, total = Crowding(tmp_path / "task", tmp_path / "loadavg"), [0, 0]

    def says(ran=0, waited=0, running=1):
        total[:] = total[0] + ran * 10**6, total[1] + waited * 10**6
        for name in ("1", "2"):
            (tmp_path / "task" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "task" / name / "schedstat").write_text(f"{total[0]} {total[1]} 7\n")
        (tmp_path / "loadavg").write_text(f"0.50 0.50 0.50 {running}/99 1234\n")
        return judge.judge(threads=2, cores=2)

    return says


def test_before_anything_is_counted_the_threads_that_run_decide(counted, tmp_path):
    assert counted(running=1) is False
    fresh = Crowding(tmp_path / "task", tmp_path / "loadavg")
    (tmp_path / "loadavg").write_text("0.50 0.50 0.50 2/99 1234\n")
    assert fresh.judge(threads=2, cores=2) is True  # ours and another, and we are about to be two


@pytest.mark.parametrize(
    ("ran", "waited", "verdict"),
    [(1000, 0, False), (1000, 15, False), (1000, 60, None), (1000, 200, True), (10, 5, None)],
)
def test_threads_that_wait_for_a_core_are_crowded(counted, ran, waited, verdict):
    counted()
    assert counted(ran, waited) is verdict


def test_a_judgement_is_made_once_in_a_while(team, monkeypatch):
    judged = []
    monkeypatch.setattr(team, "_crowding", SimpleNamespace(judge=lambda *_: judged.append(1)))
    for _ in range(3):
        team.adapt()
    assert judged == [1]
    team.next_look = 0.0
    team.adapt()
    assert judged == [1, 1]


def test_a_system_that_counts_nothing_has_no_verdict(tmp_path):
    assert Crowding(tmp_path / "absent", tmp_path / "absent").judge(2, 2) is None


@pytest.mark.parametrize("crowded", [True, False, None])
def test_a_run_has_the_team_where_others_want_the_cores(team, monkeypatch, crowded):
    from samplug.runtime import threads

    monkeypatch.setattr(threads, "IDLE_TEAM", team)
    before = set(threading.enumerate())
    for verdict in (False, True, crowded):
        monkeypatch.setattr(team, "_crowding", SimpleNamespace(judge=lambda *_, verdict=verdict: verdict))
        team.next_look = 0.0
        with use_threads(2):
            there = len(set(threading.enumerate()) - before)
    assert there == (crowded is not False)  # not to know changes nothing


@pytest.mark.slow
def test_busy_processes_are_noticed():
    judge, numbers = Crowding(), torch.zeros(1 << 16)

    def judged():  # until it knows
        for _ in range(40):
            end = time.monotonic() + PERIOD + 0.05
            while time.monotonic() < end:
                numbers.add_(1)
            verdict = judge.judge(torch.get_num_threads(), usable_cores())
            if verdict is not None:
                return verdict
        return None

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * usable_cores())]
    try:
        assert [judged() for _ in range(3)][1:] == [True, True]
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="one core has no threads that wait for others")
def test_threads_wait_awake_for_a_moment_beside_a_team():
    plain = {name: value for name, value in os.environ.items() if name not in (*WAIT_SETTINGS, "OMP_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", AWAKE], capture_output=True, text=True, env=plain, check=True)
    alone, beside = map(float, run.stdout.split())
    assert beside < alone / 2, (alone, beside)
