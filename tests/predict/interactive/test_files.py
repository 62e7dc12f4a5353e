"""What was shown, in files: saved and loaded bit for bit, or refused."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.checkpoint_files import digest
from support.videos import BOXES, alike, predictor, ready, taught  # noqa: F401

from samplug import SAM2DynamicInteractivePredictor
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.errors import MemoryBankError
from samplug.files.memory_bank import BANK_FORMAT
from samplug.files.npz import write_npz


def test_a_saved_memory_comes_back_bit_for_bit(network, images, tmp_path):
    before = ready(network)
    before(images[0], bboxes=BOXES, obj_ids=[7, -3], cls=[1, 2], names={1: "cup", 2: "pen"}, update_memory=True)
    before(images[1], points=[[30, 30]], obj_ids=[2**40], update_memory=True)
    before.remove_object(-3)
    before.save_memory(tmp_path / "cup.npz")
    after = ready(network)
    after.load_memory(tmp_path / "cup.npz")
    assert alike(before(images[2]), after(images[2])) and os.listdir(tmp_path) == ["cup.npz"]
    assert after.obj_id_to_idx == {7: 0, 2**40: 2} and after.memory_bank.names == {1: "cup", 2: "pen"}
    assert [(each.name, each.presence) for each in after.memory_bank] == [
        (each.name, each.presence) for each in before.memory_bank
    ]


def test_a_memory_can_be_loaded_first_of_all(taught, nano_file, images, tmp_path):
    taught.save_memory(tmp_path / "a.bank")
    fresh = SAM2DynamicInteractivePredictor(overrides={"model": str(nano_file), "imgsz": 128, "verbose": False})
    fresh.load_memory(tmp_path / "a.bank")
    fresh.options |= {"logits": True, "keep_lost": True}
    assert alike(fresh(images[1]), taught(images[1]))


def test_an_empty_memory_is_saved_too(predictor, tmp_path):
    predictor.save_memory(tmp_path / "a.npz")
    predictor.load_memory(tmp_path / "a.npz")
    assert len(predictor.memory_bank) == 0 and predictor.memory_bank.slots == [None] * 3


def refused(predictor, path, words):
    before = predictor.memory_bank
    with pytest.raises(MemoryBankError, match=words) as caught:
        predictor.load_memory(path)
    assert str(caught.value).startswith(f"Cannot load the memory bank {path}. ")
    assert predictor.memory_bank is before


def test_the_memory_of_another_network_is_refused_by_name(taught, tmp_path):
    taught.save_memory(tmp_path / "a.npz")
    other = ready(randomise(build({"variant": "samplug-nano"}), seed=1))
    refused(other, tmp_path / "a.npz", "another network: samplug-nano with the fingerprint")


def test_what_is_no_memory_bank_is_refused(taught, images, tmp_path):
    refused(taught, tmp_path / "a.npz", "There is no such file")
    for content in (b"", b"words" * 100, pickle.dumps([1])):
        (tmp_path / "a.npz").write_bytes(content)
        refused(taught, tmp_path / "a.npz", "was not written by SAM2DynamicInteractivePredictor.save_memory")
    taught.embed(images[0]).save(tmp_path / "b.npz")
    refused(taught, tmp_path / "b.npz", f"Its format is 'samplug embedding 1'. Expected '{BANK_FORMAT}'")


def rewritten(memory, model, path, tensors=None, **changes):
    """A file of this memory with other words in its header."""
    from samplug.files.embedding import model_fingerprint

    header = {
        "format": BANK_FORMAT,
        "model": model_fingerprint(model),
        "slots": memory.slots,
        "classes": [],
        "names": [],
        "lessons": [[each.name, each.ids, each.presence, each.grid] for each in memory],
    }
    tensors = {f"memories_{i}": each.memories for i, each in enumerate(memory)} if tensors is None else tensors
    write_npz(path, header | changes, tensors)


def test_a_file_that_contradicts_itself_is_refused(taught, tmp_path):
    memory, path = taught.memory_bank, tmp_path / "a.npz"
    rewritten(memory, taught.model, path)
    taught.load_memory(path)
    memories = memory[0].memories
    for change in (
        {"slots": [7]},
        {"slots": [7, -3, 7]},
        {"slots": 3},
        {"slots": ["x"]},
        {"classes": [[1]]},
        {"names": 5},
        {"lessons": [["a", [7, 7], [1, 1], [8, 8]]]},
        {"lessons": [["a", [7, -3], [1, 1], [4, 8]]]},
        {"lessons": [["a", [7, -3], [1, 1], [-8, -8]]]},
        {"lessons": [["a", [7, -3], [1], [8, 8]]]},
        {"lessons": [["a", [7]]]},
        {"lessons": [["a", [], [], [8, 8]]]},
        {"tensors": {}},
        {"tensors": {"memories_0": memories[:1]}},
        {"tensors": {"memories_0": memories[..., :3]}},
        {"tensors": {"memories_0": memories * torch.nan}},
    ):
        rewritten(memory, taught.model, path, **change)
        refused(taught, path, "It is damaged")


def test_a_file_that_was_cut_off_or_changed_is_refused_or_loads_and_nothing_else(taught, tmp_path):
    path = tmp_path / "a.npz"
    taught.save_memory(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    refused(taught, path, "cut short")
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    refused(taught, path, "checksum")
    generator = np.random.default_rng(3)
    for _ in range(50):
        at, length = generator.integers(len(whole)), generator.integers(1, 100)
        path.write_bytes(whole[:at] + generator.bytes(length) + whole[at + length :])
        try:
            taught.load_memory(path)
        except MemoryBankError:
            continue


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_old_file(taught, network, tmp_path):
    path = tmp_path / "a.npz"
    taught.save_memory(path)
    before = digest(path)
    code = (
        "import os, signal, sys, numpy, torch\n"
        "from samplug.files.npz import write_npz\n"
        "def half(file, **arrays):\n"
        "    file.write(b'PK half of it'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "numpy.savez = half\n"
        "write_npz(sys.argv[1], {'format': 'x'}, {'a': torch.zeros(9)})\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    assert run.returncode == -signal.SIGKILL and digest(path) == before and len(os.listdir(tmp_path)) == 2
    taught.load_memory(path)
