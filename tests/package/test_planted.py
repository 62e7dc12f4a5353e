"""The tests notice mistakes: each known one is planted, see plant_mistakes.py."""

import warnings
from pathlib import Path

import pytest
from plant_mistakes import DEFECTS, GREEN, LATE, ROOT, STUCK_AT_FIRST, check, main, standing
from planted.defect import find, locate_test


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_each_defect_still_finds_its_text(defect):
    assert find(ROOT / "samplug", defect.file).read_text(encoding="utf-8").count(defect.old) == 1
    assert defect.old != defect.new and locate_test(ROOT / "tests", defect.tests)


def test_defects_have_names_of_their_own():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)


@pytest.mark.slow
@pytest.mark.filterwarnings(f"default:{STUCK_AT_FIRST}")
def test_each_planted_defect_turns_the_tests_red(capsys):
    status, output = main(), capsys.readouterr().out
    assert status == 0, output.rpartition("\n\n")[2]
    for line in output.splitlines():
        if line.startswith(STUCK_AT_FIRST):
            warnings.warn(line, stacklevel=1)  # in the summary of the tests, though all went well


def test_a_run_without_an_end_says_where_it_stands_and_is_repeated_once(monkeypatch, capsys):
    folder = Path("/copy")
    lines = [f"{folder}/tests/test_a.py::test_one PASSED", f"{folder}/tests/test_a.py::test_two ", "Thread 1:"]
    lines += [f'  File "{folder}/samplug/camera.py", line 3 in read', '  File "/lib/pluggy.py", line 1 in call']
    where = standing(lines, folder)
    assert where == 'tests/test_a.py::test_two; File "samplug/camera.py", line 3 in read'
    answers = [(LATE, where), (GREEN, "")]
    monkeypatch.setattr("plant_mistakes.run", lambda *_: answers.pop(0))
    assert check(["test_a.py"]) == (GREEN, "") and not answers
    assert capsys.readouterr().out.startswith(f"{STUCK_AT_FIRST} tests/test_a.py::test_two")
