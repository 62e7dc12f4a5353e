"""What every test stands on: Ultralytics offline and away from the user's settings, seeded draws, a small network."""

import os
import tempfile

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="samplug-settings-"))
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "true")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each, torch's threads too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

pytest.register_assert_rewrite("support")  # its helpers assert: a failure shows what was compared

import torch
from support.images import draw


def pytest_configure(config):
    """Hide GPUs from all tests but those that ask for one: the others are of a CPU."""
    if "gpu" not in (config.option.markexpr or "") and os.environ.get("SAMPLUG_TEST_DEVICE", "cpu") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def nano_file(tmp_path_factory):
    """A checkpoint of the bundled model's shape whose random weights answer to prompts."""
    from samplug.benchmark.weights import randomise
    from samplug.checkpoints.config import build
    from samplug.checkpoints.load import save_model

    path = tmp_path_factory.mktemp("weights") / "drawn.pt"
    config = {"variant": "samplug-nano"}
    save_model(path, randomise(build(config)), config, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def network(nano_file):
    """That checkpoint, loaded."""
    from samplug.checkpoints.load import load_model

    return load_model(nano_file)


@pytest.fixture
def encodings(network):
    """How many images each run of the encoder had."""
    seen = []
    hook = network.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


@pytest.fixture(scope="session")
def images():
    """Three drawn images of different sizes and shapes, BGR."""
    return [draw(240, 320, 1), draw(200, 150, 2), draw(97, 256, 3)]


@pytest.fixture
def capture_log():
    """The lines that Ultralytics' logger writes during a test."""
    import logging

    from ultralytics.utils import LOGGER

    lines = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(record.getMessage())
    LOGGER.addHandler(handler)
    yield lines
    LOGGER.removeHandler(handler)


@pytest.fixture
def float64(monkeypatch):
    """All that is written for float32 is computed in float64: rounding decides on no sign, and gradients are exact."""
    default = torch.get_default_dtype()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    for name in ("float", "float32"):
        monkeypatch.setattr(torch, name, torch.float64)
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr("samplug.nn.ops.linear.prefers_onednn", lambda: False)  # it has no float64
    yield
    torch.set_default_dtype(default)
