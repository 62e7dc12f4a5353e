"""A run from start to end: what it leaves, what the model knows then, which callbacks are called."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from support.checkpoint_files import same

from samplug import SAM
from samplug.checkpoints.load import load_model
from samplug.errors import DivergedError
from samplug.train.fit import evaluation
from samplug.train.lora import load_lora, merge_lora

BATCHES = ["on_train_batch_start", "on_train_batch_end"] * 2
EPOCH = ["on_train_epoch_start", *BATCHES, "on_train_epoch_end", "on_val_start", "on_val_end", "on_model_save"]
EPOCH += ["on_fit_epoch_end"]
EVENTS = ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start", *EPOCH, *EPOCH]
EVENTS += ["on_fit_epoch_end", "on_train_end", "teardown"]


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_the_files_that_ultralytics_users_know(finished):
    model, report = finished
    folder = report.save_dir
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {"args.yaml", "results.csv", "results.png", "report.json", "weights/last.pt", "weights/best.pt"}
    assert names >= {"train_batch0.jpg", "train_batch2.jpg", "val_worst_click.jpg", "val_worst_box.jpg"}
    assert yaml.safe_load((folder / "args.yaml").read_text())["lr0"] == 1e-3
    table = rows(folder)
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert table[0]["train/loss"] == "" and float(table[2]["train/loss"]) > 0
    assert all(0 <= float(row[f"metrics/{name}"]) <= 1 for row in table for name in ("click1", "click3", "box"))
    assert json.loads((folder / "report.json").read_text())["before"] == report.before
    assert report.results_dict["pictures/click1"] == report.after["click1"]
    assert model.predict(folder / "train_batch0.jpg", points=[[20, 20]], imgsz=64, verbose=False)


def test_a_card_says_what_a_file_is(finished, nano_file):
    _, report = finished
    card = torch.load(report.save_dir / "weights" / "best.pt", weights_only=True)["card"]
    assert card["task"] == "segment" and card["names"] == {"0": "shape"}
    assert card["base"]["file"] == str(nano_file) and card["settings"]["epochs"] == 2
    assert (card["before"], card["after"], card["kept"]) == (report.before, report.after, report.kept)


def test_an_anchor_is_measured_before_and_after(finished):
    """It is the data set itself here, so what is kept is what was learned."""
    _, report = finished
    assert (report.kept_before, report.kept) == (report.before, report.after)
    assert "kept: box" in str(report)


def test_the_table_says_by_what_an_epoch_is_the_best(finished):
    _, report = finished
    best = f"epoch {report.best_epoch} of 2 is the best" if report.best_epoch else "none of 2 epochs is better"
    first = str(report).splitlines()[0]
    assert first.startswith(best) and "by the mean of 1 click and box" in first
    unmeasured = replace(report, before={}, after={}, kept={}, kept_before={})
    assert str(unmeasured).startswith("2 epochs; nothing was measured")


def test_epoch_0_is_the_untouched_network_measured_as_val_measures(finished, nano_file, drawn_set, tmp_path):
    _, report = finished
    val = SAM(nano_file).val(
        drawn_set, imgsz=64, clicks=3, objects=evaluation.MOST_OBJECTS, batch=1, plots=False, verbose=False,
        save_dir=str(tmp_path / "val"), device="cpu",
    )  # fmt: skip
    assert report.before["click1"] == val.results_dict["pictures/click1"]
    assert report.before["box"] == val.results_dict["pictures/box"]


def test_afterwards_the_model_has_the_best_weights_and_until_then_its_own(trainer, toy_file):
    seen, untouched = [], load_model(toy_file)
    run = trainer({"on_train_epoch_end": [lambda run: seen.append(same(run.untouched, untouched))]}, lr0=1e-3)
    run.train()
    assert seen == [True, True]
    assert same(load_model(run.best), run.untouched)
    assert not run.untouched.training


@pytest.mark.host
def test_callbacks_come_in_the_order_of_ultralytics(trainer):
    seen = []
    trainer({event: [lambda _, event=event: seen.append(event)] for event in EVENTS}).train()
    assert seen == EVENTS


@pytest.mark.host
def test_a_trainer_has_every_attribute_that_integrations_read(trainer):
    """Attributes that an integration sets itself, or looks for before it reads them, are its own affair."""
    from ultralytics.utils import callbacks

    sources = [path.read_text() for path in Path(callbacks.__file__).parent.glob("*.py") if path.stem != "hub"]
    read = {name for source in sources for name in re.findall(r"\btrainer\.([a-z]\w*)", source)}
    own = r"\btrainer\.([a-z]\w*) = |attr\(trainer, \"(\w+)\""
    read -= {name for source in sources for found in re.findall(own, source) for name in found}
    run = trainer(epochs=1)
    run.train()
    assert {name for name in read if not hasattr(run, name)} <= {"platform", "hub_session"}
    assert {name for source in sources for name in re.findall(r"\btrainer\.args\.([a-z]\w*)", source)} <= set(
        vars(run.args)
    )
    assert dict(run.args)["epochs"] == 1
    assert list(run.label_loss_items(run.tloss, prefix="train")) == run.label_loss_items()


def test_patience_ends_a_run_and_the_best_epoch_is_kept(trainer, monkeypatch):
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.6])
    monkeypatch.setattr(
        "samplug.train.fit.trainer.evaluate", lambda *_: evaluation.Evaluation({"click1": next(scores), "box": 0.0})
    )
    run = trainer(epochs=9, patience=2)
    report = run.train()
    assert (report.epochs, report.best_epoch, report.after["click1"]) == (3, 1, 0.7)
    assert torch.load(run.best, weights_only=True)["card"]["epoch"] == 1


def test_where_no_epoch_is_better_the_untouched_network_is_kept(trainer, toy_file, monkeypatch):
    scores = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(
        "samplug.train.fit.trainer.evaluate", lambda *_: evaluation.Evaluation({"click1": next(scores), "box": 0.0})
    )
    run = trainer(lr0=1e-2)
    assert "none of 2 epochs is better" in str(run.train())
    assert same(run.untouched, load_model(toy_file))


def test_a_loss_that_is_no_number_ends_the_run_and_the_good_weights_stay(trainer, toy_file):
    def spoil(run):
        if run.progress.step == 3:
            next(parameter for parameter in run.model.parameters() if parameter.requires_grad).data.fill_(math.nan)

    run = trainer({"on_train_batch_start": [spoil]}, lr0=1e-3)
    with pytest.raises(DivergedError, match=r"step 4 is not finite.*lower lr0.*best\.pt"):
        run.train()
    assert torch.isfinite(load_model(run.best).mask_decoder.mask_tokens.weight).all()
    assert same(run.untouched, load_model(toy_file))


def test_a_dry_run_says_what_would_learn_and_leaves_nothing(trainer, tmp_path, toy_file, capture_log):
    run = trainer(dry=True, batch="auto")
    cost = run.train()
    assert not (tmp_path / "run").exists()
    assert same(run.untouched, load_model(toy_file))
    (line,) = [line for line in capture_log if "learns:" in line]
    assert "million parameters" in line and "GB" in line and "s a step" in line
    assert cost.saved > 0 and run.settings.batch == 3  # all that there are


def test_low_rank_updates_are_folded_into_the_weights_and_kept_as_a_file_of_their_own(trainer, toy_file):
    run = trainer(learn="all", lora=2, lr0=1e-2, epochs=1, val=False)
    report = run.train()
    base, tuned = load_model(toy_file), load_model(run.best)
    name = "image_encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(base.state_dict()[name], tuned.state_dict()[name])
    load_lora(report.files["samplug merge"], base)
    merge_lora(base)
    for name, tensor in base.state_dict().items():
        torch.testing.assert_close(tensor, tuned.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_accumulated_batches_take_one_step(trainer):
    run = trainer(batch=1, accumulate=2, epochs=1)
    run.train()
    steps = {float(state["step"]) for state in run.optimizer.state.values()}
    assert max(steps) == 2 and run.progress.step == 3


def test_a_network_that_tracks_is_also_measured_on_clips_before_and_after():
    """Images change the decoder that videos use too."""
    still, tracking = (evaluation.open_anchor("scenes", tracks) for tracks in (False, True))
    assert len(still.videos) == 0 < len(tracking.videos)
    assert len(still.images) == len(tracking.images) > 0
