"""A drawn data set, a small network, and runs of two short epochs."""

import pytest
import torch
from support.checkpoint_files import TOY_VIT
from support.datasets import write_drawn
from support.networks import one_core  # noqa: F401  autouse

from samplug import SAM
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.train.fit.trainer import SAMTrainer


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory):
    return write_drawn(tmp_path_factory.mktemp("drawn"), train=3, val=1, side=64)


def shortest(data, folder):
    """Arguments of the shortest run there is."""
    return {
        "data": str(data),
        "epochs": 2,
        "batch": 2,
        "objects": 2,
        "imgsz": 64,
        "corrections": 1,
        "anchor": False,
        "plots": False,
        "verbose": False,
        "features": "off",
        "workers": 0,
        "device": "cpu",
        "save_dir": str(folder),
    }


@pytest.fixture
def options(drawn_set, tmp_path):
    return shortest(drawn_set, tmp_path / "run")


@pytest.fixture(scope="session")
def finished(nano_file, drawn_set, tmp_path_factory):
    """A model after a run with plots and an anchor, and the run's report."""
    torch.set_num_threads(1)
    model = SAM(nano_file)
    how = {"plots": True, "lr0": 1e-3, "anchor": str(drawn_set), "batch": 2}
    return model, model.train(**{**shortest(drawn_set, tmp_path_factory.mktemp("finished") / "run"), **how})


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory):
    """A SAM of two narrow blocks, whose random weights answer to prompts."""
    path = tmp_path_factory.mktemp("toy") / "toy.pt"
    save_model(path, randomise(build(TOY_VIT)), TOY_VIT, dtype=torch.float32)
    return path


@pytest.fixture
def trainer(toy_file, options):
    """Makes a trainer of that network."""

    def make(callbacks=None, **changes):
        return SAMTrainer(load_model(toy_file), {**options, **changes}, str(toy_file), callbacks)

    return make


@pytest.fixture
def scenes_trainer(nano_file, options):
    """Makes a trainer of a network like the bundled one on drawn scenes."""

    def make(callbacks=None, **changes):
        return SAMTrainer(load_model(nano_file), {**options, "data": "scenes", **changes}, str(nano_file), callbacks)

    return make
