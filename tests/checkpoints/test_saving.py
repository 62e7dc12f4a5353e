"""Saving networks: whole, described and finite, or not at all."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import json
import os
from dataclasses import asdict

import pytest
import torch
from support.checkpoint_files import NANO, TOY_VIT, nano, needs_the_package_of, same, toy  # noqa: F401

from samplug.checkpoints.config import build
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.load import load_model, save_model
from samplug.errors import CheckpointError


@pytest.mark.parametrize("name", ["mine.pt", "mine.safetensors"])
def test_a_saved_network_comes_back_from_its_file_alone(tmp_path, name):
    needs_the_package_of(name)
    model = build(TOY_VIT)
    save_model(tmp_path / name, model, TOY_VIT, dtype=torch.float32, card={"seen": 10})
    loaded = load_model(tmp_path / name)
    assert loaded.variant == "toy"
    assert same(loaded, model)
    assert os.listdir(tmp_path) == [name]


def test_a_saved_file_holds_plain_tensors_in_half_precision_and_its_whole_description(tmp_path, nano):
    save_model(tmp_path / "a.pt", nano, NANO, card={"pictures": 3})
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert {tensor.dtype for tensor in content["model"].values()} == {torch.float16}
    assert content["card"] == {"pictures": 3}
    row = json.loads(json.dumps(asdict(VARIANTS["samplug-nano"])))
    assert content["config"] == {"architecture": "sam2"} | row
    assert (tmp_path / "a.pt").stat().st_size < 11e6


def test_a_network_is_not_saved_under_a_config_that_is_not_its_own(tmp_path, nano):
    with pytest.raises(CheckpointError, match="do not fit 'samplug-nano'"):
        save_model(tmp_path / "a.pt", nano, {**NANO, "memory_layers": 3})
    assert not os.listdir(tmp_path)


def test_weights_too_large_for_the_file_are_not_saved(tmp_path):
    model = build(TOY_VIT)
    model.mask_decoder.iou_token.weight.data[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN or infinity: mask_decoder.iou_token.weight"):
        save_model(tmp_path / "a.pt", model, TOY_VIT)
    save_model(tmp_path / "a.pt", model, TOY_VIT, dtype=torch.float32)


def test_a_save_that_breaks_off_leaves_the_file_that_was_there(tmp_path, toy, monkeypatch):
    def full_disk(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    save_model(tmp_path / "a.pt", toy, TOY_VIT)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "a.pt", toy, TOY_VIT)
    assert load_model(tmp_path / "a.pt").variant == "toy"
    assert os.listdir(tmp_path) == ["a.pt"]
