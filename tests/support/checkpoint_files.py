"""Networks to keep in files, the files, whether they are refused, and digests of files."""

import hashlib
from pathlib import Path

import pytest
import torch

from samplug.checkpoints.config import build, row_of
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.load import load_model
from samplug.errors import CheckpointError

NANO = {"variant": "samplug-nano"}
TOY_VIT = {
    "variant": "toy",
    "architecture": "sam_vit",
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": (1,),
    "image_size": 64,
    "width": 32,
}


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(0)
    return build(NANO).eval()


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    return build(TOY_VIT).eval()


@pytest.fixture
def known_toy(toy, monkeypatch):
    """The toy as one of the released networks: a small one to be told by its tensors alone."""
    monkeypatch.setitem(VARIANTS, "toy", row_of(TOY_VIT))
    return toy


@pytest.fixture(scope="module")
def tensors(toy):
    return toy.state_dict()


def saved(path, content):
    torch.save(content, path)
    return path


def described(path, tensors):
    """A file of the toy's tensors, with the config that no table has."""
    return saved(path, {"model": tensors, "config": TOY_VIT})


def same(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


def wrapped(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def refused(path, *words):
    """The error of loading a file, which must hold all of these words."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"Cannot load {path}. ")
    for word in words:
        assert word in message
    return message


def needs_the_package_of(words):
    """Skip what is about a format whose package, an extra, is not installed."""
    if "safetensors" in words:
        pytest.importorskip("safetensors")


def digest(path: Path) -> str:
    """The SHA-256 of a file. As bytes, pytest looks for minutes for where two that differ do so."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
