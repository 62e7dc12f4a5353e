"""Training on several devices: the parts of a batch make the whole, two processes learn what one learns, one that dies
ends all."""

import csv
import json

import pytest
import torch
from support.checkpoint_files import digest, same
from support.datasets import settings
from support.networks import furthest, gradients, network
from support.train import processes

from samplug import SAM
from samplug.checkpoints.load import load_model
from samplug.errors import DataError, JobError
from samplug.train.data.sets import open_sets
from samplug.train.data.user_batches import UserBatches
from samplug.train.fit.learner import Learner
from samplug.train.losses.draws import ObjectDraws
from samplug.train.parallel.launch import name_of
from samplug.train.parallel.ranks import Ranks
from samplug.train.settings import TrainSettings

SIZE = (64, 64)


class Known(Ranks):
    """One of two processes that knows what the other one would say: a sum over both."""

    total = None

    def sums(self, values):
        return [self.total] if len(values) == 1 else list(map(float, values))

    def least(self, values):
        return values


@pytest.fixture
def three(drawn_set):
    """Three images, in batches of three, and of what two processes get of them."""
    chosen = settings(data=str(drawn_set), batch=3, objects=2, seed=4)
    sets = open_sets(chosen, SIZE, tracks=False)
    every = [Ranks(), Ranks(0, 2), Ranks(1, 2)]
    return [UserBatches(sets.train, chosen, SIZE, ranks=ranks)[2] for ranks in every]


def test_parts_of_a_batch_are_its_images_with_their_objects_and_prompts(three):
    whole, *parts = three
    assert [part.images.shape[1] for part in parts] == [2, 1]
    numbers = ObjectDraws.of([7], whole.image_index).uniform(3)
    for rank, part in enumerate(parts):
        own = whole.image_index % 2 == rank
        assert torch.equal(part.images, whole.images[:, rank::2]) and torch.equal(part.masks, whole.masks[:, own])
        assert torch.equal(ObjectDraws.of([7], part.image_index, first=rank, stride=2).uniform(3), numbers[own])


@pytest.mark.parametrize("learn", ["decoder", "all"])
def test_gradients_of_the_parts_are_those_of_the_whole(three, learn, float64):
    """Although one has more images and more objects than the other."""
    whole, *parts = three
    found, rows = [], []
    for batch, ranks in zip(three, [Ranks(), Known(0, 2), Known(1, 2)], strict=True):
        object.__setattr__(ranks, "total", len(whole.image_index))
        learner = Learner(network("SAM"), TrainSettings(data="a", learn=learn), False, ranks)
        rows.append(learner.accumulate([batch], 5))
        found.append(gradients(learner.model))
    expected, *others = found
    assert furthest({name: sum(each[name] for each in others) for name in expected}, expected)[1] < 1e-9
    assert rows[1]["loss"] + rows[2]["loss"] == pytest.approx(rows[0]["loss"])


@pytest.mark.parametrize(
    "device, names",
    [("0,1", ["0", "1"]), ([0, 2], ["0", "2"]), ("cuda:0,cuda:1", ["0", "1"]), ("(cpu, cpu)", ["cpu"] * 2)],
)
def test_devices_are_read_in_every_form(device, names):
    assert TrainSettings.read({"data": "a", "device": device}).devices == names


def test_what_other_processes_cannot_import_is_refused(trainer):
    assert name_of(processes.StopsOnce) == "support.train.processes:StopsOnce"
    with pytest.raises(JobError, match="import it by its name"):
        trainer({"on_train_end": [lambda run: None]}, device="cpu,cpu", batch=2).train()


def in_two(toy_file, options, **changes):
    """Train on two processes; the model and its report."""
    model = SAM(toy_file)
    model.add_callback("on_fit_epoch_end", processes.note_epoch)
    return model, model.train(**{**options, "device": "cpu,cpu", **changes})


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(toy_file, options, tmp_path):
    """Equal but for the order of sums, which AdamW makes larger near gradients of 0: measured are 4e-4 of the way."""
    how = {"learn": "all", "lr0": 1e-4, "batch": 3, "accumulate": 1, "keep": 0.3, "patience": 0}
    model, report = in_two(toy_file, options, **how)
    alone = SAM(toy_file)
    expected = alone.train(**{**options, **how, "save_dir": str(tmp_path / "alone")})
    assert report.after == pytest.approx(expected.after, abs=1e-3) and report.epochs == 2
    assert (tmp_path / "run" / "noted.txt").read_text() == "0 0\n0 1\n0 1\n"
    start = load_model(toy_file).state_dict()
    ours, theirs = (load_model(each.save_dir / "weights" / "last.pt").state_dict() for each in (report, expected))
    apart, moved = (sum((a[name] - b[name]).square().sum() for name in a) for a, b in ((ours, theirs), (theirs, start)))
    assert apart.sqrt() < 2e-3 * moved.sqrt()
    rows = [
        list(csv.DictReader((each.save_dir / "results.csv").read_text().splitlines())) for each in (report, expected)
    ]
    assert float(rows[0][2]["train/loss"]) == pytest.approx(float(rows[1][2]["train/loss"]), rel=1e-4)
    best = load_model(report.save_dir / "weights" / "best.pt")
    assert same(best, model.model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer_class, error, message",
    [
        (processes.FailsInTheSecond, DataError, "b.png is cut off"),
        (processes.DiesInTheSecond, RuntimeError, "killed for lack of memory"),
    ],
)
def test_a_process_that_ends_ends_all_with_its_message(toy_file, options, trainer_class, error, message):
    with pytest.raises(error, match=message):
        in_two(toy_file, options, trainer=trainer_class, epochs=9)


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_in_two_processes(toy_file, options, tmp_path):
    how = {"exist_ok": True, "trainer": processes.StopsOnce, "lr0": 1e-3}
    with pytest.raises(RuntimeError, match="A process of the training"):
        in_two(toy_file, options, **how)
    _, report = in_two(toy_file, options, **how)
    whole = in_two(toy_file, options, lr0=1e-3, save_dir=str(tmp_path / "whole"))[1]
    assert digest(report.save_dir / "weights" / "best.pt") == digest(whole.save_dir / "weights" / "best.pt")
    assert json.loads((report.save_dir / "report.json").read_text())["epochs"] == 2
