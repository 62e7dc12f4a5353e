"""Every layout of file loads: any name, wrapper, format and precision."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import pytest
import torch
from support.checkpoint_files import (  # noqa: F401
    NANO,
    TOY_VIT,
    described,
    known_toy,
    nano,
    refused,
    same,
    saved,
    tensors,
    toy,
    wrapped,
)
from torch import nn

from samplug.checkpoints import load, reader
from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.errors import CheckpointError


@pytest.mark.parametrize("name", ["sam_b.pt", "my weights.pth", "sam2.1_runs/last.pt", "x", "mobile_sam.safetensors"])
def test_names_of_files_and_folders_say_nothing_about_the_network(tmp_path, known_toy, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    loaded = load_model(saved(tmp_path / name, known_toy.state_dict()))
    assert loaded.variant == "toy"
    assert same(loaded, known_toy)


def test_the_bundled_models_sizes_need_no_config_beside_them(tmp_path, nano):
    loaded = load_model(saved(tmp_path / "a.pt", {"model": nano.state_dict()}))
    assert loaded.variant == "samplug-nano"
    assert same(loaded, nano)


LAYOUTS = {
    "bare": lambda t: t,
    "model": lambda t: {"model": t, "epoch": 3, "optimizer": {"lr": 0.1, "state": {0: torch.zeros(3)}}},
    "state_dict": lambda t: {"state_dict": t, "config": {"lr": 0.1}},
    "ema before model": lambda t: {"model": {"image_encoder.x": torch.zeros(1)}, "ema": t},
    "no ema": lambda t: {"model": t, "ema": None},
    "nested": lambda t: {"model": {"state_dict": t}},
    "data parallel": lambda t: wrapped("module.", t),
    "lightning": lambda t: {"state_dict": wrapped("model.", t)},
    "compiled": lambda t: wrapped("_orig_mod.", t),
    "compiled encoder": lambda t: {n.replace("image_encoder.", "image_encoder._orig_mod."): v for n, v in t.items()},
    "averaged": lambda t: {"n_averaged": torch.tensor(7)} | wrapped("module.", t),
    "parameters": lambda t: {name: nn.Parameter(v, requires_grad=v.is_floating_point()) for name, v in t.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_wrapper_and_prefix_is_taken_off(tmp_path, tensors, layout):
    read = reader.read(saved(tmp_path / "a.pt", LAYOUTS[layout](tensors))).tensors
    assert read.pop("n_averaged", 7) == 7
    assert list(read) == list(tensors)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_files_from_before_the_zip_format_load(tmp_path, known_toy):
    torch.save(known_toy.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_model(tmp_path / "old.pth"), known_toy)


def test_safetensors_load_whatever_they_are_called(tmp_path, known_toy):
    torch_format = pytest.importorskip("safetensors.torch")
    for name in ("a.safetensors", "a.pt"):
        torch_format.save_file(wrapped("module.", known_toy.state_dict()), tmp_path / name)
        assert same(load_model(tmp_path / name), known_toy)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(bytes([8, 0, 0, 0, 0, 0, 0, 0]) + b"{}      ")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    refused(tmp_path / "a.safetensors", "pip install samplug[safetensors]")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_of_any_precision_gives_a_float32_network(tmp_path, tensors, dtype):
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    state = load_model(described(tmp_path / "a.pt", stored)).state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], stored[name].float()) for name in stored)


@pytest.mark.parametrize("kept", [True, False])
def test_the_classifier_in_a_mobile_sam_file_is_not_needed(tmp_path, kept):
    state = build({"variant": "mobile_sam"}).state_dict()
    state = {name: tensor.half() for name, tensor in state.items() if kept or name not in load.UNUSED}
    state["image_encoder.patch_embed.seq.0.bn.num_batches_tracked"].fill_(float("inf"))  # a counter, in half precision
    loaded = load_model(saved(tmp_path / "a.pt", {"model": state})).state_dict()
    floats = [name for name in state if loaded[name].is_floating_point()]
    assert all(torch.equal(loaded[name], state[name].float()) for name in floats)
    assert all(not loaded[name].any() for name in set(loaded) - set(state))


def test_a_config_in_the_file_wins_over_what_the_tensors_look_like(tmp_path, nano):
    path = saved(tmp_path / "a.pt", {"model": nano.state_dict(), "config": {**NANO, "max_obj_ptrs_in_encoder": 4}})
    assert load_model(path).max_obj_ptrs_in_encoder == 4


def test_a_variant_that_is_asked_for_wins_over_both(tmp_path, toy):
    save_model(tmp_path / "a.pt", toy, TOY_VIT)
    with pytest.raises(CheckpointError, match=r"do not fit 'samplug-nano'.* missing: .* unexpected: "):
        load_model(tmp_path / "a.pt", variant="samplug-nano")


def test_a_loaded_network_is_ready_to_predict_and_stands_apart_from_its_file(tmp_path, toy, tensors):
    path = described(tmp_path / "a.pt", tensors)
    loaded = load_model(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert same(loaded, toy)
    assert not any(module.training for module in loaded.modules())
    assert not any(buffer.is_meta for buffer in loaded.buffers())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_loaded_network_has_the_buffers_that_are_in_no_file(tmp_path, nano):
    save_model(tmp_path / "a.pt", nano, NANO)
    loaded = dict(load_model(tmp_path / "a.pt").named_buffers())
    stored = nano.state_dict()
    own = {name: buffer for name, buffer in nano.named_buffers() if name not in stored}
    assert "pixel_mean" in own
    assert all(torch.equal(buffer, loaded[name]) for name, buffer in own.items())


def test_no_weights_are_drawn_for_a_network_that_is_filled_from_a_file(tmp_path, toy, tensors):
    with load._SkipInit():
        values = torch.full((3, 3), 7.0)
        assert nn.init.kaiming_uniform_(values) is values
    assert (values == 7).all()
    with load._SkipInit():  # what memory held may lie outside: a truncated normal must not be drawn for ever
        nn.init.trunc_normal_(values)
    assert values.abs().max() <= 2
    assert same(load_model(described(tmp_path / "a.pt", tensors)), toy)
