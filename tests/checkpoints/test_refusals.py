"""Nothing but an exact, sound and harmless file loads; the others are refused with a reason."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import pickle
import warnings
import zipfile

import pytest
import torch
from support.checkpoint_files import TOY_VIT, described, needs_the_package_of, refused, saved, tensors, toy, wrapped  # noqa: F401

from samplug.checkpoints import reader
from samplug.checkpoints.load import load_model, save_model
from samplug.errors import CheckpointError

NAME = "prompt_encoder.no_mask_embed.weight"  # a tensor of the toy's, 1x32


def test_every_difference_is_listed(tmp_path, tensors):
    changed = dict(tensors)
    del changed["mask_decoder.iou_token.weight"]
    changed["extra.weight"] = torch.zeros(2)
    changed[NAME] = torch.zeros(1, 7)
    message = refused(
        described(tmp_path / "a.pt", changed),
        "1 missing: mask_decoder.iou_token.weight.",
        "1 unexpected: extra.weight.",
        "1 of another shape or dtype: prompt_encoder.no_mask_embed.weight (float 1x7, expected float 1x32).",
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
    refused(described(tmp_path / "a.pt", changed), f"{NAME} (int8 1x32, expected float 1x32)")
    changed = {**tensors, NAME: torch.zeros(1, 32).to_sparse()}
    warnings.simplefilter("ignore")  # PyTorch's own, about sparse tensors
    refused(described(tmp_path / "a.pt", changed), f"{NAME} (float 1x32 sparse_coo, expected float 1x32)")


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
    refused(saved(tmp_path / "a.pt", content), "holds no tensors by name", "Expected a state_dict")


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
    refused(path, "the checksum of its entry", "Put a whole copy in its place")


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


def test_an_old_torch_gets_one_warning_that_its_reader_is_no_sandbox(tmp_path, monkeypatch, tensors):
    path = saved(tmp_path / "a.pt", tensors)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    reader._warn_of_unsafe_pickles.cache_clear()
    with pytest.warns(UserWarning, match=r"before 2\.10 is not a sandbox"):
        reader.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.read(path)
