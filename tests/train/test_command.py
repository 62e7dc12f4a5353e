"""`python -m samplug.train`: drawn data, from nothing, and a file to ship; options of older releases."""

import json
import shlex
import signal

import pytest
import torch
from support.checkpoint_files import same
from support.networks import one_core  # noqa: F401  autouse

from samplug import SAM
from samplug.checkpoints.load import bundled_path, load_model
from samplug.train import __main__ as command
from samplug.train.__main__ import translated
from samplug.train.fit.learner import Learner
from samplug.train.settings import TrainSettings

TINY = ["epochs=1", "steps=2", "imgsz=64", "batch=1", "objects=1"]
TINY += ["workers=0", "device=cpu", "plots=False", "verbose=False"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("samplug.train.data.sets.VAL_IMAGES", 2)
    return tmp_path


def test_the_command_trains_and_writes_the_file_and_a_card_with_itself_in_it(in_an_empty_folder):
    command.main([*TINY, "seed=4"])
    folder = in_an_empty_folder / "runs" / "nano"
    card = json.loads((folder / "samplug-nano.json").read_text())
    assert card["command"] == shlex.join(["python", "-m", "samplug.train", *TINY, "seed=4"])
    assert card == {"sha256": card["sha256"], **torch.load(folder / "samplug-nano.pt", weights_only=True)["card"]}
    assert 0 <= card["after"]["box"] <= 1 and card["data"] == "scenes" and not card["kept"]
    shipped, best = SAM(folder / "samplug-nano.pt").model, load_model(folder / "weights" / "best.pt")
    assert shipped.variant == "samplug-nano" and not same(best, load_model(bundled_path()))
    assert same(shipped, best.half().float())


def test_a_run_begins_with_the_weights_of_another(in_an_empty_folder):
    command.main([*TINY, "lr0=1e-12", "val=False", "save=False", "model=samplug-nano.pt", "save_dir=second"])
    bundled, best = load_model(bundled_path()), load_model(in_an_empty_folder / "second" / "weights" / "best.pt")
    for name, tensor in bundled.state_dict().items():
        torch.testing.assert_close(tensor, best.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_by_its_file_and_is_shipped_beside_it(in_an_empty_folder, monkeypatch):
    learn = Learner.step

    def cut(*how):
        signal.raise_signal(signal.SIGINT)
        return learn(*how)

    monkeypatch.setattr(Learner, "step", cut)
    with pytest.raises(SystemExit, match="130"):
        command.main([*TINY, "save_dir=third", "val=False"])
    monkeypatch.setattr(Learner, "step", learn)
    assert not (in_an_empty_folder / "third" / "samplug-nano.pt").exists()
    command.main(["resume=third/weights/last.pt", "device=cpu"])
    assert SAM(in_an_empty_folder / "third" / "samplug-nano.pt").model.variant == "samplug-nano"


def recipes():
    """The commands in the card of the bundled network, without the remarks behind them."""
    card = json.loads(bundled_path().with_suffix(".json").read_text())
    commands = [card["command"], *(each for each in card["earlier legs"] if each.startswith("python"))]
    return [shlex.split(each.partition(" (")[0])[3:] for each in commands]


@pytest.mark.slow
def test_the_recipe_of_the_bundled_network_still_runs(in_an_empty_folder):
    """With its own options, on a smaller budget, and on what is here."""
    recipe = recipes()[0]
    for name, value in {"init": bundled_path(), "device": "cpu", "workers": 0, "size": 64, "largest": 96}.items():
        recipe[recipe.index(f"--{name}") + 1] = str(value)
    recipe[recipe.index("--pictures") + 1 : recipe.index("--pictures") + 2] = ["4", "--steps", "3"]
    recipe[recipe.index("--clips-at-once") + 1] = "1"
    del recipe[recipe.index("1579") - 1 : recipe.index("1579") + 1]
    command.main([*recipe, "plots=False", "verbose=False", "val=False"])
    assert SAM(in_an_empty_folder / "g3" / "samplug-nano.pt").model.variant == "samplug-nano"


def test_options_of_older_releases_mean_what_they_meant():
    given = dict(word.split("=", 1) for word in translated(recipes()[0]))
    settings = {"save_dir": "g3", "model": "g2/samplug-nano.pt", "objects": "6", "corrections": "3", "clips": "0.6"}
    settings |= {"imgsz": "224", "batch": "94", "lr0": "0.0007", "ema": "0.997", "cooldown": "0.8", "seed": "13"}
    settings |= {"level": "[0.85, 0.85]", "amp": "bf16", "weight_decay": "0.03", "workers": "15", "time": "None"}
    assert given.items() >= settings.items()
    assert int(given["epochs"]) * int(given["steps"]) == pytest.approx(1579, abs=10)
    assert float(given["warmup_epochs"]) * int(given["steps"]) == pytest.approx(30, abs=1)
    assert float(given["multi_scale"]) * 224 == pytest.approx(32)
    assert float(given["encoder_rate"]) * 7e-4 == pytest.approx(5e-4)
    known = {*TrainSettings.defaults(), "model"}
    assert set(given) <= known


@pytest.mark.parametrize(
    "option, message",
    [
        ("--balance=0.5", r"--balance=0\.5 cannot be chosen any more\. Expected 0\.3, or no --balance"),
        ("--clips-at-once=3", r"--clips_at_once=3 cannot be chosen any more\. Expected 2"),
        ("--say-every=5", "'say_every' is not an argument"),
        ("--size=wide", r"--size=wide\. Expected a number"),
        ("dry=maybe", "dry='maybe'"),
    ],
)
def test_what_cannot_be_chosen_any_more_is_refused_by_name(option, message):
    with pytest.raises(SystemExit, match=message):
        command.main([option])


def test_help_has_a_line_for_every_argument(capsys):
    command.main(["--help"])
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in ("steps", "level", "clips", "multi_scale", "pretrained"))
