"""Checkpoints that somebody tampered with: a thousand mutants, never code, a crash, a blow-up or an unclear error."""

import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model, save_model
from samplug.errors import CheckpointError

TINY = {
    "variant": "tiny",
    "architecture": "sam_vit",
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 1,
    "global_attn_indexes": (0,),
    "image_size": 32,
    "width": 32,
}
ROOM = 3 << 30  # bytes of address space above what the process has already: far less than some mutants ask for
GROWTH = 200 << 20  # bytes of memory that no mutant may cost


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


# What can be done to a file's tensors ---------------------------------------------------------------------------------


def missing(tensors, draw):
    del tensors[draw.choice(list(tensors))]


def renamed(tensors, draw):
    name = draw.choice(list(tensors))
    tensors[draw.choice(["", "x." + name, name[1:], name.upper(), name + "\0", "é" * 99])] = tensors.pop(name)


def reshaped(tensors, draw):
    name = draw.choice(list(tensors))
    tensor = tensors[name]
    forms = [
        tensor.flatten(),
        tensor[None],
        tensor.reshape(-1, 1),
        tensor[:0],
        tensor.mT if tensor.dim() > 1 else tensor[:1],
    ]
    tensors[name] = draw.choice(forms)


def of_another_kind(tensors, draw):
    name = draw.choice(list(tensors))
    kind = draw.choice(
        [torch.int8, torch.bool, torch.complex64, torch.float64, torch.bfloat16, torch.uint8, torch.int64]
    )
    with warnings.catch_warnings(action="ignore"):  # complex numbers lose a part
        tensors[name] = tensors[name].to(kind)


def not_finite(tensors, draw):
    tensor = tensors[draw.choice([name for name, tensor in tensors.items() if tensor.numel()])]
    tensor.view(-1)[draw.randrange(tensor.numel())] = draw.choice([float("nan"), float("inf"), float("-inf")])


def aliased(tensors, draw):
    one, other = draw.sample(list(tensors), 2)
    tensors[one] = tensors[other]


def overlapping(tensors, draw):
    name = draw.choice(list(tensors))
    strides = draw.choice([(0,) * tensors[name].dim(), (1,) * tensors[name].dim()])
    tensors[name] = torch.zeros(4096).as_strided(tensors[name].shape, strides)


def enormous(tensors, draw):
    name = draw.choice(list(tensors))
    tensors[name] = torch.zeros(1).expand(draw.choice([2**31, 2**40]))


def sparse(tensors, draw):
    name = draw.choice(list(tensors))
    tensors[name] = torch.sparse_coo_tensor(
        torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (2**40,), check_invariants=True
    )


def config(tensors, draw):
    """A description that lies: as JSON, where a config is."""
    lies = {"embed_dim": 8192, "depth": 8192, "image_size": 8192, "width": -1, "num_heads": 0, "window_size": 10**30}
    name = draw.choice(list(lies))
    return TINY | {name: draw.choice([lies[name], None, "x", [1], 1e300, 0])}


TENSOR_MUTATIONS = (
    missing,
    renamed,
    reshaped,
    of_another_kind,
    not_finite,
    aliased,
    overlapping,
    enormous,
    sparse,
    config,
)


def with_tensors_changed(tensors, draw, suffix, folder):
    """The file's bytes after one to three changes to what it holds, and what these were."""
    tensors, described = {name: tensor.clone() for name, tensor in tensors.items()}, TINY
    done = draw.choices(TENSOR_MUTATIONS, k=draw.choice([1, 1, 2, 3]))
    for change in done:
        described = change(tensors, draw) or described
    if suffix == ".safetensors":
        from safetensors.torch import save

        plain = {
            name: tensor.to_dense() if tensor.is_sparse and tensor.numel() < 9**9 else tensor
            for name, tensor in tensors.items()
        }
        plain = {name: tensor.contiguous().clone() for name, tensor in plain.items() if tensor.numel() < 9**9}
        return save(plain, {"config": json.dumps(described)}), done[0].__name__
    content = {"model": tensors, "config": described}
    if draw.random() < 0.15:
        content[draw.choice(["epoch", "config", "model"])] = Trap(folder / "sprung")
        done = [Trap]
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=suffix == ".pt")
    return file.getvalue(), done[0].__name__


# What can be done to its bytes ----------------------------------------------------------------------------------------


def flipped(data, draw):
    for _ in range(draw.choice([1, 1, 8, 64])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def flipped_at_the_head(data, draw):
    for _ in range(draw.choice([1, 4])):
        data[draw.randrange(min(600, len(data)))] = draw.randrange(256)


def flipped_at_the_end(data, draw):
    for _ in range(draw.choice([1, 4])):
        data[-1 - draw.randrange(min(2000, len(data)))] = draw.randrange(256)


def cut(data, draw):
    del data[draw.randrange(len(data)) :]


def taken_out(data, draw):
    at = draw.randrange(len(data))
    del data[at : at + draw.randrange(1, 300)]


def put_in(data, draw):
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.randrange(1, 300))


def numbers_made_huge(data, draw):
    """Declared sizes: the header's length of safetensors, and digits or lengths anywhere."""
    at = draw.choice([0, draw.randrange(len(data) - 8)])
    data[at : at + 8] = struct.pack("<Q", draw.choice([2**63 - 1, 2**40, 2**31, len(data) * 2]))


def digits_changed(data, draw):
    places = [i for i in range(min(20_000, len(data))) if 48 <= data[i] < 58]
    for place in draw.sample(places, min(len(places), draw.choice([1, 3]))):
        data[place] = draw.choice(b"0123456789")


BYTE_MUTATIONS = (
    flipped,
    flipped_at_the_head,
    flipped_at_the_end,
    cut,
    taken_out,
    put_in,
    numbers_made_huge,
    digits_changed,
)


def with_bytes_changed(whole, draw):
    data, change = bytearray(whole), draw.choice(BYTE_MUTATIONS)
    change(data, draw)
    return bytes(data), change.__name__


def repacked(whole, draw):
    """The zip archive made anew with sound checksums round a pickle whose bytes were changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            data = bytearray(old.read(entry))
            if entry.filename.endswith(("data.pkl", "byteorder", "version")):
                draw.choice((flipped, taken_out, put_in, cut, digits_changed))(data, draw) if len(data) > 9 else None
            new.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), bytes(data))
    return file.getvalue(), "repacked"


def mutants(folder, count, seed):
    """(bytes, suffix, what was done), seeded."""
    model = build(TINY)
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    whole = {}
    for suffix in (".pt", ".old", ".safetensors"):
        whole[suffix] = sound(model, folder, suffix)
    for i in range(count):
        draw = random.Random(f"{seed}-{i}")
        suffix = draw.choice(list(whole))
        way = draw.random()
        if way < 0.4:
            yield *with_tensors_changed(tensors, draw, suffix, folder), suffix
        elif way < 0.6 and suffix == ".pt":
            yield *repacked(whole[suffix], draw), suffix
        else:
            yield *with_bytes_changed(whole[suffix], draw), suffix


def sound(model, folder, suffix):
    path = folder / f"sound{suffix}"
    if suffix == ".old":
        content = {"model": model.state_dict(), "config": TINY}
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        save_model(path, model, TINY)
    return path.read_bytes()


# The run --------------------------------------------------------------------------------------------------------------


def attack(folder, count, seed):
    """Load mutants in this process; return how each ended: the counts of (suffix, mutation, outcome)."""
    outcomes = Counter()
    for data, mutation, suffix in mutants(folder, count, seed):
        path = folder / f"mutant{suffix.replace('.old', '.pt')}"
        path.write_bytes(data)
        try:
            network = load_model(path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) < 4000, error
            outcomes[suffix, mutation, "refused"] += 1
        else:
            assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
            outcomes[suffix, mutation, "loaded"] += 1
        assert not (folder / "sprung").exists(), f"{mutation} of a {suffix} ran code"
    return outcomes


def peak():
    """The most bytes this process held; ru_maxrss begins with what its parent held, so Linux is asked elsewhere."""
    if sys.platform.startswith("linux"):
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def attack_with_little_room(folder, count, seed):
    """The same as a program, in bounded memory; the outcomes go to standard output."""
    torch.set_num_threads(1)
    attack(folder, 5, seed + 1000)  # what loading costs in any case
    if sys.platform.startswith("linux"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    before = peak()
    outcomes = attack(folder, count, seed)
    print(json.dumps({"growth": peak() - before, "outcomes": [[*key, value] for key, value in outcomes.items()]}))


def run(folder, count, seed=0):
    pytest.importorskip("safetensors")
    script = f"""
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path[:0] = [str(folder) for folder in Path({str(__file__)!r}).parents[:3]]
from test_fuzz import attack_with_little_room
attack_with_little_room(Path({str(folder)!r}), {count}, {seed})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_mutants_of_every_kind_are_refused_or_load_and_nothing_else(tmp_path):
    pytest.importorskip("safetensors")
    outcomes = attack(tmp_path, 30, seed=1)
    assert outcomes.total() == 30 and sum(n for key, n in outcomes.items() if key[2] == "refused") > 15


@pytest.mark.slow
def test_a_thousand_mutants_run_no_code_crash_nothing_and_cost_no_memory(tmp_path, capsys):
    found = run(tmp_path, 1200)
    table = Counter({(suffix, mutation, end): count for suffix, mutation, end, count in found["outcomes"]})
    with capsys.disabled():
        print(f"\n{table.total()} mutants, {found['growth'] / 2**20:.0f} MB more at the peak")
        by_kind = Counter({(suffix, end): 0 for suffix, _, end in table})
        for (suffix, _, end), count in table.items():
            by_kind[suffix, end] += count
        for (suffix, end), count in sorted(by_kind.items()):
            print(f"{suffix:<14}{end:<10}{count:>6}")
    assert table.total() == 1200 and found["growth"] < GROWTH
    assert not any(end == "loaded" for _, mutation, end in table if mutation in MUST_FAIL)


MUST_FAIL = ("missing", "renamed", "enormous", "sparse", "Trap", "cut")


def test_a_pickle_with_code_in_place_of_a_name_a_tensor_or_a_config_is_refused(tmp_path):
    tensors = build(TINY).state_dict()
    for content in ({"model": Trap(tmp_path / "sprung")}, {"model": tensors, "config": Trap(tmp_path / "sprung")}):
        for zipped in (True, False):
            torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
            with pytest.raises(CheckpointError, match="wants to run code"):
                load_model(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"model": Trap(tmp_path / "sprung")}))
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "b.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("config", [{"depth": 8192}, {"embed_dim": 8192}, {"width": 8192}, {"image_size": 8192}])
def test_a_description_that_asks_for_a_huge_network_takes_no_memory(tmp_path, config):
    model = build(TINY)
    torch.save({"model": model.state_dict(), "config": TINY | config}, tmp_path / "a.pt")
    before = peak()
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "a.pt")
    assert peak() - before < GROWTH
