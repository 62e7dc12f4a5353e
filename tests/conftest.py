"""What every test stands on: Ultralytics offline and away from the user's settings, seeded draws, a small network."""

import os
import tempfile

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="samplug-settings-"))
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "true")

import cv2
import numpy as np
import pytest
import torch

pytest.register_assert_rewrite("checkpoint_files")  # it asserts: a failure shows what was compared


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def nano_file(tmp_path_factory):
    """A checkpoint of the bundled model's shape whose random weights answer to prompts."""
    from samplug.benchmark.weights import randomise
    from samplug.checkpoints import save_model
    from samplug.variants import build

    path = tmp_path_factory.mktemp("weights") / "drawn.pt"
    config = {"variant": "samplug-nano"}
    save_model(path, randomise(build(config)), config, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def network(nano_file):
    """That checkpoint, loaded."""
    from samplug.checkpoints import load_model

    return load_model(nano_file)


@pytest.fixture
def encodings(network):
    """How many pictures each run of the encoder had."""
    seen = []
    hook = network.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


@pytest.fixture(scope="session")
def pictures():
    """Three drawn pictures of different sizes and shapes, BGR."""
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


def draw(height, width, seed):
    """A noisy gradient with a few ellipses on it."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 160, width, dtype=np.float32)[None, :, None] * rng.uniform(0.4, 1, 3)
    picture = (ramp + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    for _ in range(5):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(8, width // 4)), int(rng.integers(8, height // 4))
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.integers(0, 255, 3).tolist(), -1)
    return picture


def logits_at_picture(logits, view):
    """(N, a, b) logits as (N, H, W) float32 at the picture's size: what `resize_to_picture` cuts at its threshold."""
    from samplug.masks import enlarge, taps_of

    resized = torch.empty((len(logits), *view.picture), device=logits.device)
    rows, columns = taps_of(logits, view)
    for mask, target in zip(logits, resized, strict=True):
        for first, values in enlarge(mask, rows, columns):
            target[first : first + len(values)] = values
    return resized
