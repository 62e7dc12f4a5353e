"""`help`, `help TOPIC`: the arguments, or a page of evidence."""

import pytest

from samplug.cli.modes import run_sam
from samplug.errors import UsageError


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["help", "speed"], "# Speed"),
        (["help"], "samplug "),
        (["help", "predict"], "samplug "),
        (["predict", "help"], "samplug "),
    ],
)
def test_help_shows_a_topic_or_the_arguments(words, begins, capsys):
    run_sam(words, "yolo sam")
    assert capsys.readouterr().out.startswith(begins)


def test_a_topic_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean speed?"):
        run_sam(["help", "spede"], "yolo sam")
