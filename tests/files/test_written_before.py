"""Files that an earlier samplug wrote: an embedding and a memory bank of the bundled model, and a checkpoint."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from samplug.checkpoints.load import bundled_path, load_model
from samplug.files.embedding import Embedding
from samplug.files.memory_bank import load_bank
from samplug.transforms import ImageTransform

FILES = Path(__file__).parent / "written_before"
IDS = (7, -3)


@pytest.fixture(scope="module")
def model():
    return load_model(bundled_path())


@pytest.fixture
def image():
    """The image that was embedded and prompted: a square before a gradient."""
    y, x = np.mgrid[:48, :64]
    image = np.stack([x * 3, y * 5, x + y], axis=2).astype(np.uint8)
    image[12:36, 20:44] = 40, 60, 220
    return image


def stored(name):
    with np.load(FILES / name) as file:
        return {key: torch.from_numpy(array) for key, array in file.items() if key != "header"}


def test_an_embedding_loads_and_still_belongs_to_the_bundled_model(model, image):
    embedding = Embedding.load(FILES / "embedding.npz")
    embedding.check(model, image, ImageTransform((48, 64), (64, 64), "letterbox"))
    maps = stored("embedding.npz")
    assert embedding.variant == "samplug-nano" and embedding.features.image.shape == (1, 128, 4, 4)
    assert torch.equal(embedding.features.image, maps["image"])
    assert all(torch.equal(level, maps[f"fine_{i}"]) for i, level in enumerate(embedding.features.fine))


def test_a_memory_bank_loads_and_its_objects_are_as_they_were(model):
    bank, memories = load_bank(FILES / "memory_bank.npz", model), stored("memory_bank.npz")
    assert bank.slots == [*IDS, None] and bank.ids == IDS and bank.classes[7] == 1 and bank.names == {1: "box"}
    assert [(entry.name, entry.ids, entry.grid) for entry in bank] == [("image0.jpg", (i,), (4, 4)) for i in IDS]
    assert [entry.presence for entry in bank] == [(16.025909423828125,), (10.002782821655273,)]
    assert all(torch.equal(entry.memories, memories[f"memories_{i}"]) for i, entry in enumerate(bank))


def test_a_checkpoint_loads_by_its_config_with_every_weight(tmp_path):
    (tmp_path / "a.pt").write_bytes(gzip.decompress((FILES / "checkpoint.pt.gz").read_bytes()))
    loaded = load_model(tmp_path / "a.pt")
    assert loaded.variant == "toy" and loaded.image_encoder.img_size == (32, 32)
    for i, tensor in enumerate(loaded.state_dict().values()):
        assert torch.equal(tensor.flatten(), (torch.arange(tensor.numel()) + i) % 7 / 8)
