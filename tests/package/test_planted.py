"""The tests notice mistakes: each known one is planted, see plant_mistakes.py."""

import pytest
from plant_mistakes import DEFECTS, ROOT, main
from planted.defect import find, locate_test


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_each_defect_still_finds_its_text(defect):
    assert find(ROOT / "samplug", defect.file).read_text(encoding="utf-8").count(defect.old) == 1
    assert defect.old != defect.new and locate_test(ROOT / "tests", defect.tests)


def test_defects_have_names_of_their_own():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)


@pytest.mark.slow
def test_each_planted_defect_turns_the_tests_red(capsys):
    status = main()
    assert status == 0, capsys.readouterr().out
