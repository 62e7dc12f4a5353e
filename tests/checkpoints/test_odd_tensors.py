"""Weights in dtypes, places and headers that few files have."""

import json

import pytest
import torch
from support.checkpoint_files import TOY_VIT, described, refused, saved, tensors, toy, wrapped  # noqa: F401

from samplug.checkpoints.load import load_model

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

NAME = "prompt_encoder.no_mask_embed.weight"  # a tensor of the toy's, 1x32
FLOAT8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


def in_dtype(tensors, dtype):
    return {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}


@pytest.mark.parametrize("name", [*FLOAT8, "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_every_float_are_loaded_as_float32(tmp_path, tensors, name, suffix):
    stored = in_dtype(tensors, getattr(torch, name))
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        file = pytest.importorskip("safetensors.torch")
        try:
            file.save_file(stored, path, metadata={"config": json.dumps(TOY_VIT)})
        except (KeyError, ValueError) as error:
            pytest.skip(f"safetensors does not write it: {error}")
    else:
        described(path, stored)
    for key, value in load_model(path).state_dict().items():
        assert torch.equal(value, stored[key].float()) and value.dtype == torch.float32


@pytest.mark.parametrize("name", FLOAT8)
def test_weights_of_float8_that_are_not_finite_are_named(tmp_path, tensors, name):
    broken = torch.full((1, 32), float("nan")).to(getattr(torch, name))
    refused(described(tmp_path / "a.pt", {**tensors, NAME: broken}), f"1 tensors hold NaN or infinity: {NAME}")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_values_or_sizes_are_refused(tmp_path, tensors):
    refused(described(tmp_path / "a.pt", {**tensors, NAME: torch.zeros(1, 32, device="meta")}), "without values")
    nested = torch.nested.nested_tensor([torch.zeros(2)], layout=torch.strided)
    refused(described(tmp_path / "a.pt", {**tensors, NAME: nested}), "1 missing")


@pytest.mark.parametrize("size", [0x3C20, 0x3C09, 0x13C20, 0x3C0A])
def test_a_header_whose_length_reads_like_markup_is_a_header(tmp_path, tensors, size):
    file = pytest.importorskip("safetensors.torch")
    path = tmp_path / "a.safetensors"
    file.save_file(tensors, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"config": json.dumps(TOY_VIT)}
    text = json.dumps(header).encode()
    if len(text) > size:
        size += 0x10000 * -(-(len(text) - size) // 0x10000)
    path.write_bytes(size.to_bytes(8, "little") + text.ljust(size) + content[8 + length :])
    assert load_model(path).variant == "toy"


@pytest.mark.parametrize("depth", [1, 3, 7])
def test_wrappers_may_hold_wrappers(tmp_path, tensors, depth):
    content = {**tensors}
    for _ in range(depth):
        content = {"model": content}
    assert load_model(saved(tmp_path / "a.pt", {**content, "config": TOY_VIT})).variant == "toy"


@pytest.mark.parametrize("keys", [("model",), ("model", "ema"), ("state_dict", "model", "ema")])
def test_a_wrapper_that_contains_itself_has_no_tensors(tmp_path, keys):
    content = inner = {}
    for key in keys[:-1]:
        inner[key] = {}
        inner = inner[key]
    inner[keys[-1]] = content
    refused(saved(tmp_path / "a.pt", content), "holds no tensors by name")
