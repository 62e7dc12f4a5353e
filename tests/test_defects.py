"""The tests notice mistakes: each known one is planted, see defects.py."""

import pytest
from defects import DEFECTS, ROOT, main


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_each_defect_still_finds_its_text(defect):
    assert (ROOT / "samplug" / defect.file).read_text(encoding="utf-8").count(defect.old) == 1
    assert defect.old != defect.new


def test_defects_have_names_of_their_own():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)


@pytest.mark.slow
def test_each_planted_defect_turns_the_tests_red(capsys):
    status = main()
    assert status == 0, capsys.readouterr().out
