"""An interrupted run goes on as if it had not been: the same bytes. What cannot go on says why."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.checkpoint_files import digest
from support.datasets import write_drawn

from samplug.errors import JobError
from samplug.train.fit.state import RunState


def interrupt_at(step):
    return {"on_train_batch_end": [lambda run: run.progress.step == step and signal.raise_signal(signal.SIGINT)]}


SCENES = {"data": "scenes", "steps": 2, "pretrained": False, "learn": "all", "val": False, "clips": 0.5, "frames": 2}


@pytest.mark.parametrize(
    "how, step",
    [
        pytest.param({}, 1, id="decoder 1"),
        pytest.param({}, 2, id="decoder 2"),
        pytest.param({"learn": "all"}, 3, id="all 3"),
        pytest.param({"keep": 0.3}, 2, id="rehearsed 2"),
        pytest.param({**SCENES, "epochs": 1}, 1, id="scenes 1"),
        pytest.param(SCENES, 3, id="scenes 3", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bytes(trainer, scenes_trainer, tmp_path, how, step):
    trainer, how = scenes_trainer if "data" in how else trainer, {"lr0": 1e-3, "exist_ok": True, **how}
    whole = trainer(save_dir=str(tmp_path / "whole"), **how)
    whole.train()
    cut = trainer(interrupt_at(step), **how)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert RunState.load(cut.last).progress.step == step
    again = trainer(**how)
    again.train()
    assert digest(again.best) == digest(whole.best)
    assert [{**row, "time": 0} for row in again.progress.rows] == [{**row, "time": 0} for row in whole.progress.rows]


def test_a_signal_while_measuring_is_no_loss_either(trainer, tmp_path):
    trainer(save_dir=str(tmp_path / "whole")).train()
    cut = trainer({"on_val_start": [lambda run: signal.raise_signal(signal.SIGTERM)]}, exist_ok=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cut.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    again = trainer(resume=str(cut.last))
    again.train()
    assert digest(again.best) == digest(tmp_path / "whole" / "weights" / "best.pt")


def test_a_run_is_resumed_by_its_file_with_nothing_else(trainer, toy_file, tmp_path):
    from samplug import SAM

    cut = trainer(interrupt_at(1))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    report = SAM(cut.last).train(resume=True, verbose=False)
    assert report.epochs == 2 and report.save_dir == tmp_path / "run"
    with pytest.raises(JobError, match="has ended after epoch 2"):
        SAM(cut.last).train(resume=True)


def test_the_same_name_begins_anew_unless_it_may_be_used_again(trainer):
    first, second = (trainer(save_dir=None, project="runs", name="a", epochs=1).save_dir for _ in range(2))
    assert first == second  # nothing was written yet


def refused(make, message, **how):
    with pytest.raises(JobError, match=message):
        make(**how)


def test_what_cannot_be_resumed_says_why(trainer, tmp_path, toy_file):
    refused(trainer, "no such file", resume=str(tmp_path / "gone" / "last.pt"))
    refused(trainer, "holds no training, only weights", resume=str(toy_file))
    (tmp_path / "cut.pt").write_bytes(b"PK half")
    refused(trainer, "damaged", resume=str(tmp_path / "cut.pt"))
    refused(trainer, "there is no run in", resume=True, save_dir=None, project=str(tmp_path / "none"))
    cut = trainer(interrupt_at(1))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    refused(trainer, "other settings: epochs=2 there, 5 here", resume=str(cut.last), epochs=5)
    other = write_drawn(tmp_path / "changed", train=4)
    refused(trainer, "other settings: data=", resume=str(cut.last), data=str(other))


def test_a_run_does_not_go_on_with_other_data(trainer, tmp_path):
    data = write_drawn(tmp_path / "data", train=3, val=1, side=64)
    cut = trainer(interrupt_at(1), data=str(data))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    write_drawn(tmp_path / "data", train=4, val=1, side=64, seed=1)
    with pytest.raises(JobError, match="has changed since the run"):
        trainer(resume=str(cut.last), data=str(data)).train()


def test_a_run_does_not_go_on_with_other_labels_and_one_of_an_earlier_release_goes_on(trainer, tmp_path):
    given = {"data": str(write_drawn(tmp_path / "data", train=3, val=1, side=64)), "exist_ok": True}
    cut = trainer(interrupt_at(1), **given)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    labels = {file: file.read_text() for file in (tmp_path / "data" / "labels").rglob("*.txt")}
    for file in labels:
        file.write_text("0 0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8\n")
    with pytest.raises(JobError, match="has changed since the run"):
        trainer(**given).train()
    for file, text in labels.items():
        file.write_text(text)
    content = torch.load(cut.last, weights_only=True)
    identity = content["training"]["identity"]
    identity["data"] = identity["data"].partition("-")[0]  # as earlier releases wrote it
    torch.save(content, cut.last)
    again = trainer(**given)
    again.train()
    assert again.progress.complete


def test_a_full_disk_ends_a_run_with_the_files_name_and_the_state_before_stays(trainer, monkeypatch):
    run = trainer()
    save, count = torch.save, []

    def full(content, file):
        count.append(1)
        if len(count) > 3:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left.*\.pt"):
        run.train()
    monkeypatch.undo()
    RunState.load(run.last)
    assert not [path for path in run.wdir.iterdir() if path.name.startswith(".")]


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from samplug import SAM
from samplug.train.fit import trainer
trainer.SAVE_INTERVAL = 0.0
SAM(sys.argv[1]).train(data=sys.argv[2], save_dir=sys.argv[3], exist_ok=True, epochs=3, batch=1, objects=2, imgsz=64,
    anchor=False, plots=False, verbose=False, workers=0, device="cpu", lr0=1e-3, features="off",
    **json.loads(sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {**SCENES, "steps": 4}], ids=["files", "scenes"])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(nano_file, drawn_set, tmp_path, more):
    data = more.get("data", str(drawn_set))
    options = json.dumps({name: value for name, value in more.items() if name != "data"})

    def command(folder):
        return [sys.executable, "-c", SCRIPT, str(nano_file), data, str(tmp_path / folder), options]

    began = time.monotonic()
    subprocess.run(command("whole"), check=True, capture_output=True)
    length, kills = time.monotonic() - began, 0
    for share in (0.35, 0.5, 0.6, 0.7, 0.8, 0.9):
        child = subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(share * length)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
        if kills == 4:
            break
    subprocess.run(command("cut"), check=True, capture_output=True)
    assert kills
    whole, cut = (digest(tmp_path / folder / "weights" / "best.pt") for folder in ("whole", "cut"))
    assert cut == whole
