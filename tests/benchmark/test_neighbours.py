"""Busy processes beside a benchmark, and the load of others."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from samplug.benchmark import neighbours
from samplug.benchmark.context import Context
from samplug.benchmark.report import Report
from samplug.benchmark.run import report_load
from samplug.benchmark.settings import Settings
from samplug.benchmark.timing import Progress

linux = pytest.mark.skipif(not neighbours.STAT.exists(), reason="/proc is Linux's")


def children():
    """Our child processes: (session, whether they run) by number."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(rest[1]) == os.getpid():
            found[int(stat.parent.name)] = int(rest[3])
    return found


@linux
def test_neighbours_are_busy_in_sessions_of_their_own_and_end():
    before = children()
    with neighbours.neighbours(2):
        busy = {pid: session for pid, session in children().items() if pid not in before}
        assert len(busy) == 2 and len({*busy.values(), os.getsid(0)}) == 3
    assert not busy.keys() & children().keys()


@linux
def test_neighbours_end_when_the_work_beside_them_fails():
    with pytest.raises(RuntimeError, match="mine"), neighbours.neighbours(1):
        busy = children()
        raise RuntimeError("mine")
    assert not busy.keys() & children().keys()


def test_a_neighbour_that_cannot_begin_is_reported(monkeypatch):
    monkeypatch.setattr(neighbours, "BUSY", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="exit code 3"), neighbours.neighbours(1):
        pass


def test_foreign_load_is_what_all_computed_less_our_own(tmp_path, monkeypatch):
    stat, ticks = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    own, clock = SimpleNamespace(ru_utime=1.0, ru_stime=0.5), SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(neighbours, "STAT", stat)
    monkeypatch.setattr(neighbours, "time", clock)
    monkeypatch.setattr("resource.getrusage", lambda who: own)
    stat.write_text(f"cpu  {5 * ticks} 0 0 99 99 0 0 0\n")
    load = neighbours.ForeignLoad(start=90.0)
    own.ru_utime = 3.0  # 2 s more of this process, and of its children
    stat.write_text(f"cpu  {15 * ticks} {5 * ticks} {ticks} 999 999 0 {4 * ticks} 0\n")  # 20 s more: waiting is none
    assert load.cores() == pytest.approx((20 - 4) / 10)
    stat.unlink()
    assert load.cores() is None


@pytest.mark.parametrize(("foreign", "warns"), [(1.05, False), (2.5, True), (None, False)])
def test_a_machine_that_is_not_quiet_is_reported(foreign, warns, capsys):
    settings = Settings.read({"neighbour": 1})
    context = Context(settings, None, {}, Report({"machine": {}}), Progress(1.0))
    report_load(context, foreign)
    assert ("Not a quiet machine" in capsys.readouterr().out) == warns
    assert context.report.about["machine"]["foreign_cores"] == (None if foreign is None else pytest.approx(foreign - 1))
