"""Checkpoints: any name and any wrapper load, and nothing but an exact, sound and harmless file does."""

import json
import os
import pickle
import re
import warnings
import zipfile
from dataclasses import asdict

import pytest
import torch
from torch import nn

from samplug import checkpoints, tensor_files
from samplug.checkpoints import (
    BUNDLED,
    VARIANTS,
    CheckpointError,
    adopt,
    build,
    bundled_path,
    config_of,
    load_model,
    save_model,
)
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.variants import AS_RELEASED, row_of

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
NAME = "prompt_encoder.no_mask_embed.weight"  # a tensor of the toy's, 1x32
PARAMETERS = {  # millions
    "sam_b": 93.7,
    "sam_l": 312.3,
    "sam_h": 641.1,
    "mobile_sam": 10.1,
    "sam2.1_t": 38.96,
    "sam2.1_s": 46.06,
    "sam2.1_b": 80.85,
    "sam2.1_l": 224.45,
    "samplug-nano": 5.35,
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


def meta(variant):
    with torch.device("meta"):
        return build({"variant": variant})


def saved(path, content):
    torch.save(content, path)
    return path


def described(path, tensors):
    """A file of the toy's tensors, with the config that no table has."""
    return saved(path, {"model": tensors, "config": TOY_VIT})


def same(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


def refused(path, *words):
    """The error of loading a file, which must hold all of these words."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"Cannot load {path}. ")
    for word in words:
        assert word in message
    return message


# which network


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_told_by_its_tensors(variant):
    assert config_of(meta(variant).state_dict()) == {"variant": variant}


@pytest.mark.parametrize(("variant", "millions"), PARAMETERS.items())
def test_every_variant_has_as_many_parameters_as_the_released_one(variant, millions):
    digits = 2 if "sam2" in variant or "nano" in variant else 1
    assert round(sum(p.numel() for p in meta(variant).parameters()) / 1e6, digits) == millions


@pytest.mark.parametrize("size", "tsbl")
def test_release_2_1_adds_a_pointer_time_code_and_an_embedding_of_absence(size):
    old, new = meta(f"sam2_{size}").state_dict(), meta(f"sam2.1_{size}").state_dict()
    assert set(new) - set(old) == {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
    assert set(old) < set(new)


def test_a_vit_that_was_tuned_for_another_input_size_is_told_by_its_positions():
    with torch.device("meta"):
        model = build({"variant": "sam_b", "image_size": 256})
    assert config_of(model.state_dict()) == {"variant": "sam_b", "image_size": 256}


def test_a_trunk_of_no_known_size_is_refused_with_what_was_found():
    state = {
        "image_encoder.trunk.patch_embed.proj.weight": torch.empty(48, 3, 7, 7),
        "image_encoder.trunk.blocks.0.norm1.weight": torch.empty(48),
    }
    with pytest.raises(CheckpointError, match="48 wide with 1 blocks; known are 32 wide with 10, 96 wide with 12"):
        config_of(state)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("vision_encoder.layers.0.weight", "Transformers"), ("detector.backbone.x", "SAM 3"), ("model.0.conv", "YOLO")],
)
def test_files_of_other_networks_are_named(name, hint):
    with pytest.raises(CheckpointError, match=hint):
        config_of({name: torch.zeros(1)})


# configs


def test_a_config_is_a_variant_with_the_values_it_changes():
    model = build({"variant": "samplug-nano", "num_maskmem": 3})
    assert model.num_maskmem == 3
    assert model.variant == "samplug-nano"


def test_a_network_of_ones_own_is_described_in_full():
    model = build(TOY_VIT)
    assert isinstance(model, SAMModel)
    assert model.variant == "toy"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "needs a 'variant' of sam_b"),
        ({"variant": "sam_x"}, "variant='sam_x'"),
        ({"variant": ["sam_b"]}, "needs a 'variant'"),
        ({"variant": "mine", "architecture": "resnet"}, "architecture='resnet'"),
        ({"variant": "mine", "architecture": "sam_vit", "depth": 2}, "lacks ['embed_dim', 'num_heads'"),
        ({"variant": "sam_b", "colour": 1}, "must not have ['colour']"),
        ({"variant": "sam_b", "depth": "12"}, "depth='12' should be int"),
        ({"variant": "sam_b", "depth": True}, "depth=True should be int"),
        ({"variant": "sam_b", "embed_dim": 10**9}, "at most 8192"),
        ({"variant": "sam_b", "mlp_ratio": float("nan")}, "mlp_ratio=nan"),
        ({"variant": "sam2.1_t", "stages": [1, 2.5]}, "stages=(1, 2.5) should be tuple"),
        ({"variant": "sam2.1_t", "sam2_1": 1}, "should be bool"),
    ],
)
def test_a_config_that_describes_nothing_is_refused(config, words):
    with pytest.raises(CheckpointError, match=re.escape(words)):
        build(config)


# every layout of file


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


def wrapped(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


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
    read = tensor_files.read(saved(tmp_path / "a.pt", LAYOUTS[layout](tensors))).tensors
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
    state = {name: tensor.half() for name, tensor in state.items() if kept or name not in checkpoints.UNUSED}
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
    with checkpoints._NoDraws():
        values = torch.full((3, 3), 7.0)
        assert nn.init.kaiming_uniform_(values) is values
    assert (values == 7).all()
    with checkpoints._NoDraws():  # what memory held may lie outside: a truncated normal must not be drawn for ever
        nn.init.trunc_normal_(values)
    assert values.abs().max() <= 2
    assert same(load_model(described(tmp_path / "a.pt", tensors)), toy)


# saving


def needs_the_package_of(words):
    """Skip what is about a format whose package, an extra, is not installed."""
    if "safetensors" in words:
        pytest.importorskip("safetensors")


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
    def full_disk(content, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    save_model(tmp_path / "a.pt", toy, TOY_VIT)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "a.pt", toy, TOY_VIT)
    assert load_model(tmp_path / "a.pt").variant == "toy"
    assert os.listdir(tmp_path) == ["a.pt"]


# what does not load


def test_every_difference_is_listed(tmp_path, tensors):
    changed = dict(tensors)
    del changed["mask_decoder.iou_token.weight"]
    changed["extra.weight"] = torch.zeros(2)
    changed[NAME] = torch.zeros(1, 7)
    message = refused(
        described(tmp_path / "a.pt", changed),
        "1 missing: mask_decoder.iou_token.weight.",
        "1 unexpected: extra.weight.",
        "1 of another shape or kind: prompt_encoder.no_mask_embed.weight (float 1x7; the network's is float 1x32).",
        "nothing was loaded",
    )
    assert len(message) < 500


def test_long_lists_are_cut_and_counted(tmp_path, tensors):
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask_decoder.transformer.")}
    gone = len(tensors) - len(kept)
    message = refused(described(tmp_path / "a.pt", kept), f"{gone} missing: ", f" and {gone - 10} more")
    assert message.count("mask_decoder.transformer.") == 10


def test_quantised_and_sparse_tensors_are_refused(tmp_path, tensors):
    changed = {**tensors, NAME: torch.zeros(1, 32, dtype=torch.int8)}
    refused(described(tmp_path / "a.pt", changed), f"{NAME} (int8 1x32; the network's is float 1x32)")
    changed = {**tensors, NAME: torch.zeros(1, 32).to_sparse()}
    warnings.simplefilter("ignore")  # PyTorch's own, about sparse tensors
    refused(described(tmp_path / "a.pt", changed), f"{NAME} (float 1x32 sparse_coo; the network's is float 1x32)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, tensors, value):
    broken = tensors[NAME].clone()
    broken[0, 5] = value
    refused(described(tmp_path / "a.pt", {**tensors, NAME: broken}), f"1 tensors hold NaN or infinity: {NAME}")


def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(tmp_path, tensors):
    vast = torch.zeros(1).expand(10**6, 10**6)
    refused(described(tmp_path / "a.pt", {**tensors, NAME: vast}), "more than the file has")


def test_two_networks_in_one_file_are_not_chosen_between(tmp_path, tensors):
    both = wrapped("student.", tensors) | wrapped("teacher.", tensors)
    refused(saved(tmp_path / "a.pt", both), "holds 2 networks, under ['student.', 'teacher.']")


@pytest.mark.parametrize("content", [{}, [], 3, None, {"model": {}}, {"epoch": 3}, {"model": {"model": 1}}])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    refused(saved(tmp_path / "a.pt", content), "holds no tensors by name", "Accepted is a state_dict")


def test_a_file_that_is_not_there_is_told(tmp_path):
    refused(tmp_path / "a.pt", "There is no such file.")


def test_a_folder_is_told(tmp_path):
    refused(tmp_path, "It is a folder")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "It is empty"),
        (b"\n <!DOCTYPE html><html>Not Found", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04 half a download", "cut short"),
        (b"some words that are no checkpoint", "PyTorch cannot read it"),
        (b"\x80\x02}q\x00.", "PyTorch cannot read it"),
        (bytes([99, 0, 0, 0, 0, 0, 0, 0]) + b'{"a":', "damaged .safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path, head, words):
    needs_the_package_of(words)
    (tmp_path / "a.pt").write_bytes(head)
    refused(tmp_path / "a.pt", words)


def test_a_file_that_was_cut_off_is_refused(tmp_path, tensors):
    path = described(tmp_path / "a.pt", tensors)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, "cut short")


def test_a_flipped_bit_among_the_weights_is_noticed(tmp_path, tensors):
    path = described(tmp_path / "a.pt", tensors)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    refused(path, "the checksum of its entry", "Delete it and get it again")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, tensors, zipped):
    content = {"model": tensors, "epoch": Trap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "a.pt", "wants to run code (io.open)")
    assert not (tmp_path / "sprung").exists()


def test_a_bare_pickle_with_code_is_refused_and_never_run(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refused(tmp_path / "a.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_whole_module_in_a_file_is_refused_with_what_to_do(tmp_path, toy):
    refused(saved(tmp_path / "a.pt", {"model": toy}), "samplug.nn", "save model.state_dict() instead")


def mutations(whole, count):
    """Copies of a file's bytes: flipped, cut, spliced, overwritten; seeded."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        kind, at, length = (int(torch.randint(n, (), generator=generator)) for n in (4, len(whole), 200))
        data = bytearray(whole)
        if kind == 0:
            data[at] ^= 1 << length % 8
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        else:
            data[at : at + length] = bytes(torch.randint(256, (length,), generator=generator).tolist())
        yield bytes(data)


@pytest.mark.parametrize("layout", ["zip", "old", "safetensors"])
def test_a_damaged_file_is_refused_or_loads_and_nothing_else(tmp_path, toy, layout, mutants=15):
    needs_the_package_of(layout)
    suffix = ".safetensors" if layout == "safetensors" else ".pt"
    path = tmp_path / f"a{suffix}"
    save_model(path, toy, TOY_VIT)
    if layout == "old":
        content = torch.load(path, weights_only=True)
        torch.save(content, path, _use_new_zipfile_serialization=False)
    for mutant in mutations(path.read_bytes(), mutants):
        path.write_bytes(mutant)
        try:
            load_model(path)
        except CheckpointError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["zip", "old", "safetensors"])
def test_a_thousand_damaged_files_are_refused_or_load_and_nothing_else(tmp_path, toy, layout):
    test_a_damaged_file_is_refused_or_loads_and_nothing_else(tmp_path, toy, layout, mutants=334)


def test_archives_that_are_not_of_torch_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "a.pt", "PyTorch cannot read it")


# warnings


def test_an_old_torch_gets_one_warning_that_its_reader_is_no_sandbox(tmp_path, monkeypatch, tensors):
    path = saved(tmp_path / "a.pt", tensors)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    tensor_files._warn_where_pickles_are_unsafe.cache_clear()
    with pytest.warns(UserWarning, match=r"before 2\.10 that is no sandbox"):
        tensor_files.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor_files.read(path)


# names


def test_the_bundled_model_is_found_by_its_name(monkeypatch, tmp_path, toy):
    monkeypatch.chdir(tmp_path)
    assert checkpoints._find(BUNDLED) == checkpoints._find("samplug-nano") == bundled_path()
    save_model(BUNDLED, toy, TOY_VIT)
    assert checkpoints._find("samplug-nano").resolve() == tmp_path / BUNDLED, "a file of the user's own comes first"


@pytest.fixture
def downloader(monkeypatch):
    """Ultralytics' downloader, replaced by one that notes what it is asked for."""
    from ultralytics.utils import downloads

    asked = []
    monkeypatch.setattr(downloads, "attempt_download_asset", lambda file: asked.append(str(file)) or f"found/{file}")
    return asked


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("sam_h", "samplug-nano")])
def test_names_that_ultralytics_publishes_are_fetched_by_it_when_absent(monkeypatch, tmp_path, downloader, variant):
    monkeypatch.chdir(tmp_path)
    for name in (variant, f"{variant}.pt"):
        assert str(checkpoints._find(name)) == f"found/{variant}.pt"
    assert downloader == [f"{variant}.pt"] * 2


def test_nothing_is_fetched_for_a_file_that_is_there(monkeypatch, tmp_path, toy, downloader):
    monkeypatch.chdir(tmp_path)
    save_model("sam_b.pt", toy, TOY_VIT)
    assert load_model("sam_b").variant == "toy"
    assert not downloader


def test_a_variant_that_nobody_publishes_there_is_told(monkeypatch, tmp_path, downloader):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no file sam_h.pt, and Ultralytics does not publish one"):
        load_model("sam_h.pt")
    assert not downloader


def test_a_failed_download_says_what_to_do_instead(monkeypatch, tmp_path):
    from ultralytics.utils import downloads

    def offline(file):
        raise ConnectionError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "attempt_download_asset", offline)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(no route to host\).* or use 'samplug-nano.pt'"):
        load_model("sam2.1_t.pt")


# Ultralytics' own modules


def test_one_of_our_networks_is_adopted_as_it_is(nano):
    assert adopt(nano) is nano


@pytest.mark.parametrize(
    ("variant", "kind"), [("mobile_sam", SAMModel), pytest.param("sam2_t", SAM2Model, marks=pytest.mark.slow)]
)
def test_an_ultralytics_module_is_taken_over_also_in_half_precision(variant, kind):
    from ultralytics.models.sam import build as ultralytics

    theirs = getattr(ultralytics, f"build_{variant}")().half()
    ours = adopt(theirs)
    assert isinstance(ours, kind)
    assert ours.variant == variant
    state, own = theirs.state_dict(), ours.state_dict()
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in own.items())
    assert set(state) - set(own) <= set(checkpoints.UNUSED)


@pytest.mark.parametrize("other", [nn.Linear(2, 2), nn.Sequential()])
def test_another_module_is_refused_with_what_is_accepted(other):
    with pytest.raises(TypeError, match=r"torch.nn.modules.* is no SAM: give samplug.nn.SAMModel or SAM2Model"):
        adopt(other)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "samplug-nano"])
def test_tensors_of_every_ultralytics_build_are_told_and_fit(variant, tmp_path):
    from ultralytics.models.sam import build as theirs

    name = {"sam_b": "sam_vit_b", "sam_l": "sam_vit_l", "sam_h": "sam_vit_h"}.get(variant, variant)
    module = getattr(theirs, f"build_{name.replace('sam2.1', 'sam2')}")()
    state = {name: tensor.half() for name, tensor in module.state_dict().items()}
    if "2.1" in variant:  # Ultralytics builds these from a file's name only
        new = meta(variant).state_dict()
        state |= {name: torch.zeros(new[name].shape) for name in set(new) - set(state)}
    loaded = load_model(saved(tmp_path / "a.pt", {"model": state}))
    assert loaded.variant == variant
    for fact in ("window_size", "num_heads"):  # TinyViT's show in its tensors, these do not
        if variant != "mobile_sam":
            assert untold(loaded, fact) == untold(module, fact)
    for option in (name for name in AS_RELEASED if hasattr(module, name) and hasattr(loaded, name)):
        assert getattr(loaded, option) == getattr(module, option), option


def untold(model, fact):
    """What the blocks of an encoder have, in their order."""
    return [getattr(part, fact) for part in model.image_encoder.modules() if hasattr(part, fact)]
