"""The campaign: shares of the time, steps that fail or hang, what is written after each step, and all of it, small."""

import json
import sys

import pytest

from samplug.benchmark import campaign
from samplug.benchmark.campaign import Step


def step(name, code, weight=1.0, read=None):
    return Step(name, "bench", weight, ("-c", code), {}, read)


@pytest.fixture
def quick(monkeypatch):
    """No time to say goodbye, and none without which a step is not begun."""
    monkeypatch.setattr(campaign, "GRACE", 0.1)
    monkeypatch.setattr(campaign, "LEAST", 0.0)


@pytest.mark.parametrize(
    ("code", "state", "result"),
    [
        ("print('1 passed'); print('2 passed')", "done", "2 passed"),
        ("import sys; sys.exit('no such device')", "exit code 1", "no such device"),
        ("", "done", ""),
    ],
)
def test_a_step_tells_how_it_ended_and_the_last_line_that_it_printed(tmp_path, code, state, result):
    outcome = step("one", code).run(60, tmp_path / "one.log", "cpu")
    assert (outcome["name"], outcome["state"], outcome["result"]) == ("one", state, result)


def test_a_step_gets_its_arguments_and_the_device_of_the_tests(tmp_path):
    code = "import os, sys; print(*sys.argv[1:], os.environ['SAMPLUG_TEST_DEVICE'])"
    given = Step("one", "bench", 1, ("-c", code, "benchmark"), {"imgsz": 64, "save": False})
    assert given.run(60, tmp_path / "one.log", "cuda")["result"] == "benchmark imgsz=64 save=False cuda"


def test_what_cannot_be_read_leaves_the_last_line(tmp_path):
    outcome = step("one", "print('out of memory')", read=(tmp_path / "missing.json").read_text)
    assert outcome.run(60, tmp_path / "one.log", "cpu")["result"] == "out of memory"


def test_a_step_that_hangs_is_ended_with_the_processes_that_it_started(tmp_path, quick):
    code = (
        f"import subprocess, time; subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(999)']).wait()"
    )
    outcome = step("one", code).run(0.5, tmp_path / "one.log", "cpu")
    assert outcome["state"] == "out of time after 0 s" and outcome["seconds"] < 60


def test_a_step_without_time_is_not_begun(tmp_path):
    outcome = step("one", "1 / 0").run(0.0, tmp_path / "one.log", "cpu")
    assert outcome["state"] == "no time was left" and not list(tmp_path.iterdir())


@pytest.fixture
def small(monkeypatch):
    """Runs a campaign of these steps."""

    def run(folder, *steps, seconds=600):
        monkeypatch.setattr(campaign, "steps", lambda *_: list(steps))
        campaign.main(["--device", "cpu", "--seconds", str(seconds), "--out", str(folder)])
        return json.loads((folder / "campaign.json").read_text()), (folder / "campaign.md").read_text()

    return run


def test_all_that_is_known_is_written_after_every_step(tmp_path, small):
    look = f"import json; print(len(json.load(open({str(tmp_path / 'run/campaign.json')!r}))['steps']))"
    content, summary = small(tmp_path / "run", step("one", "1 / 0"), step("two", look), step("three", look))
    assert [each["result"] for each in content["steps"]] == ["ZeroDivisionError: division by zero", "1", "2"]
    assert "| one | exit code 1 |" in summary and "| three | done |" in summary
    assert content["heading"] == summary.splitlines()[0].removeprefix("# ")


def test_tables_stand_below_the_list_of_steps(tmp_path, small):
    table = {"table": "encoder  1 ms\ndecoder  2 ms\n", "rows": []}
    content, summary = small(tmp_path / "run", step("one", "", read=lambda: table), step("two", "print(1)"))
    assert content["steps"][0]["result"] == table
    assert "| two | done |" in summary.partition("## one")[0] and "decoder  2 ms" in summary.partition("## one")[2]


def test_time_that_a_step_leaves_goes_to_those_after_it(tmp_path, small, monkeypatch):
    limits = []
    outcome = {"name": "one", "state": "done", "seconds": 0.0, "result": ""}
    monkeypatch.setattr(Step, "run", lambda self, limit, *_: limits.append(limit) or outcome)
    small(tmp_path / "run", step("one", "", 1), step("two", "", 2), step("three", "", 1), seconds=10_010)
    assert limits == pytest.approx([2500, 6667, 10_000], rel=0.01)


def test_only_the_groups_that_are_asked_for_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "steps", lambda *_: [Step(name, name, 1, ("-c", ""), {}) for name in campaign.GROUPS])
    campaign.main(["--device", "cpu", "--only", "parity,train", "--out", str(tmp_path / "run")])
    assert capsys.readouterr().out.split() == ["parity:", "done", "train:", "done"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_campaign_has_steps_of_every_group(tmp_path, device):
    planned = campaign.steps("sam2.1_t", device, 1024, tmp_path)
    assert {each.group for each in planned} == set(campaign.GROUPS)
    assert len({each.name for each in planned}) == len(planned)


@pytest.mark.slow
def test_a_campaign_tries_itself_out_on_a_cpu(tmp_path, monkeypatch):
    """One step of each program: the others of the benchmark have other arguments, which it is tested with elsewhere."""
    names, steps = ("tests", "float32", "profile_video", "annotate", "train"), campaign.steps
    monkeypatch.setattr(campaign, "steps", lambda *given: [each for each in steps(*given) if each.name in names])
    campaign.main(["--device", "cpu", "--seconds", "3600", "--out", str(tmp_path / "run")])
    content = json.loads((tmp_path / "run/campaign.json").read_text())
    results = {each["name"]: each["result"] for each in content["steps"]}
    assert {each["state"] for each in content["steps"]} == {"done"}, results
    assert "passed" in results["tests"]
    assert "encoder" in results["float32"]["table"] and results["float32"]["rows"]
    assert "Self CPU" in results["profile_video"]
    assert json.loads(results["annotate"])["done"] == campaign.IMAGES and results["train"].endswith("images/s")
