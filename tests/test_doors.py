"""Every door through which a file comes in refuses what attacks it: no code runs, nothing hangs, no memory is taken."""

# ruff: noqa: E501 (tables)

import functools
import io
import json
import os
import pickle
import signal
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.images import bomb

from samplug import SAM, Embedding, Predictor, SAM2DynamicInteractivePredictor, SAM2VideoPredictor
from samplug.benchmark.run import of_file
from samplug.benchmark.settings import Settings
from samplug.checkpoints.load import load_model
from samplug.data.open import open_data
from samplug.predict.detector import load_detector
from samplug.train.fit.state import RunState

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard asks Linux")
ABSENT = ("no file", "an address", "a name of 5000 letters", "a name with a zero in it")
QUIET = {"verbose": False, "save": False}
CLICK = {"points": [[40, 40]], "verbose": False}


# The files

SECONDS = 20
GIGABYTES = 4
DEPTH = 100_000
VAST = 400_000


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def saved(content, old=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def torch_zip(pickled):
    """A file of torch.save whose pickle is this one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def archive(**entries):
    """An .npz file of these bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in entries.items():
            made.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def array(values):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(values), allow_pickle=True)
    return buffer.getvalue()


def vast_array():
    """An .npy header that states far more than follows it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return buffer.getvalue() + bytes(16)


def safetensors(header, claimed=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (claimed or len(text)).to_bytes(8, "little") + text


def nested_lists():
    return b"\x80\x02" + b"]" * DEPTH + b"a" * (DEPTH - 1) + b"."


@functools.cache
def cycle():
    inner = {}
    inner["model"] = inner["config"] = inner["ema"] = inner
    return saved(inner)


@functools.cache
def laughs():
    """Tuples of tuples: a few bytes that print as 2^60 items."""
    value = ("ha",)
    for _ in range(60):
        value = (value, value)
    return saved({"model": {"x": torch.zeros(1)}, "config": {"variant": "x", "architecture": value, "depth": value}})


RLE = {"size": [VAST, VAST], "counts": [VAST * VAST]}
CONTENTS = {
    "bytes that are no file of any kind": lambda trap: b"some words that are no file of ours " * 30,
    "nothing": lambda trap: b"",
    "a web page": lambda trap: b"<!DOCTYPE html><html>Not found",
    "a pickle that runs code": lambda trap: pickle.dumps(trap),
    "a checkpoint that runs code": lambda trap: saved({"model": {"weight": torch.zeros(1), "epoch": trap}}),
    "an old checkpoint that runs code": lambda trap: saved({"model": trap}, old=True),
    "an array that runs code": lambda trap: array(np.array([trap], dtype=object)),
    "an archive that runs code": lambda trap: archive(header=array(np.array([trap], dtype=object)), image=b""),
    "PostScript": lambda trap: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n{ } loop\n%%EOF\n",
    "a checkpoint that contains itself": lambda trap: cycle(),
    "a checkpoint that grows when it is printed": lambda trap: laughs(),
    "a checkpoint nested too deeply": lambda trap: torch_zip(nested_lists()),
    "JSON nested too deeply": lambda trap: b"[" * DEPTH,
    "JSON objects nested too deeply": lambda trap: b'{"a":' * DEPTH,
    "a header nested too deeply": lambda trap: safetensors({"__metadata__": {"config": "[" * DEPTH}}),
    "an archive's header nested too deeply": lambda trap: archive(header=array("[" * DEPTH)),
    "a header longer than the file": lambda trap: safetensors(b"{}", claimed=2**50),
    "a tensor larger than the file": lambda trap: safetensors({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "a view larger than the file": lambda trap: saved({"model": {"x": torch.zeros(1).expand(VAST, VAST)}}),
    "an array larger than the file": lambda trap: vast_array(),
    "an archive's array larger than the file": lambda trap: archive(header=vast_array(), image=vast_array()),
    "an image larger than any memory": lambda trap: bomb(2**16, 2**16),
    "run lengths larger than any memory": lambda trap: json.dumps({"masks": [RLE]}).encode(),
    "numbers larger than any integer": lambda trap: b'{"masks": [{"size": [1e30, 2], "counts": [1' + b"0" * 400 + b"]}]}",
    "half an archive": lambda trap: saved({"model": {"x": torch.zeros(99)}})[:600],
    "YAML that runs code": lambda trap: f"!!python/object/apply:builtins.open ['{trap.path}', 'w']".encode(),
    "YAML with a program": lambda trap: f"path: .\ntrain: gone\nval: gone\nnames: [a]\ndownload: open('{trap.path}', 'w')".encode(),
}  # fmt: skip


def _folder(path):
    path.mkdir()
    return path


def _pipe(path):
    os.mkfifo(path)
    return path


PLACES = {
    "a folder": _folder,
    "a pipe nobody writes into": _pipe,
    "no file": lambda path: path,
    "a name of 5000 letters": lambda path: path.with_name("a" * 5000 + path.suffix),
    "a name with a zero in it": lambda path: path.with_name("a\0b" + path.suffix),
    "an address": lambda path: "http://127.0.0.1:9/gone" + path.suffix,
}
KINDS = [*CONTENTS, *PLACES]
AT_ONCE = [kind for kind in KINDS if "code" in kind or "program" in kind] + [
    "nothing",
    "a checkpoint that contains itself",
    "JSON nested too deeply",
    "an array larger than the file",
    "run lengths larger than any memory",
    "a folder",
    "a name of 5000 letters",
]


def hostile(kind, path, trap):
    """Make the file, or what stands in its place; returns what to give to the door."""
    if kind in PLACES:
        return PLACES[kind](path)
    path.write_bytes(CONTENTS[kind](trap))
    return path


@contextmanager
def guard(trap):
    """Fail if code ran, if it takes long, or if it takes much memory."""

    def too_long(*_):
        raise AssertionError(f"it takes more than {SECONDS} s")

    import resource  # not everywhere

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + (GIGABYTES << 30), before[0][1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before[0])
        signal.signal(signal.SIGALRM, before[1])
    assert not os.path.exists(trap.path), "code in the file ran"


# The doors


@pytest.fixture(scope="module")
def model():
    return SAM()


@pytest.fixture(scope="module")
def image(images):
    return images[0]


def predictor(kind=Predictor, **overrides):
    return kind(overrides={"model": "samplug-nano.pt", **QUIET, **overrides})


def see_all(data):
    """Every image of a data set and every frame of its videos."""
    return [list(each.frames) if hasattr(each, "frames") else each for each in (*data.images, *data.videos)]


def folder_with(mask):
    """A data set of one image, whose mask is this file."""
    folder = Path(mask).parent / "set"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((40, 40, 3), np.uint8))
    Path(mask).rename(folder / "masks" / "a.png")
    return folder


DOORS = {
    "SAM(file)": (".pt", lambda file, model, image: SAM(file)),
    "SAM(file.safetensors)": (".safetensors", lambda file, model, image: SAM(file)),
    "SAM.load": (".pt", lambda file, model, image: model.load(file)),
    "load_model": (".pth", lambda file, model, image: load_model(file)),
    "model= of a predictor": (".pt", lambda file, model, image: predictor(model=str(file)).setup_model()),
    "setup_model": (".pt", lambda file, model, image: predictor(SAM2VideoPredictor).setup_model(str(file))),
    "benchmark model=": (".pt", lambda file, model, image: of_file(Settings.read({"model": str(file)}))),
    "train resume=": (".pt", lambda file, model, image: RunState.load(Path(file))),
    "prompter=": (".pt", lambda file, model, image: load_detector(str(file))),
    "Embedding.load": (".npz", lambda file, model, image: Embedding.load(file)),
    "embedding=": (".npz", lambda file, model, image: model.predict(image, embedding=file, **CLICK)),
    "embedding= alone": (".npz", lambda file, model, image: model.predict(embedding=str(file), **CLICK)),
    "load_memory": (".npz", lambda file, model, image: predictor(SAM2DynamicInteractivePredictor).load_memory(file)),
    "prompts=": (".json", lambda file, model, image: model.predict(image, prompts=file, verbose=False)),
    "prompts= of a video": (".json", lambda file, model, image: model.track([image, image], prompts=str(file), verbose=False)),
    "masks=": (".png", lambda file, model, image: model.predict(image, masks=file, verbose=False)),
    "masks=.npy": (".npy", lambda file, model, image: model.predict(image, masks=str(file), verbose=False)),
    "source=": (".jpg", lambda file, model, image: model.predict(file, **CLICK)),
    "source=.tif": (".tif", lambda file, model, image: model.predict([str(file)], **CLICK)),
    "source=.mp4": (".mp4", lambda file, model, image: model.predict(str(file), **CLICK)),
    "set_image": (".png", lambda file, model, image: predictor().set_image(str(file))),
    "data=.json": (".json", lambda file, model, image: see_all(open_data(file))),
    "data=.yaml": (".yaml", lambda file, model, image: see_all(open_data(file))),
    "a mask of data=": (".png", lambda file, model, image: see_all(open_data(folder_with(file)))),
}  # fmt: skip


# Ultralytics looks for images and videos, and says itself where there are none.
CLEAR = dict.fromkeys((".jpg", ".tif", ".mp4", ".png"), (FileNotFoundError, ConnectionError))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow][kind in AT_ONCE :]) for kind in KINDS])
def test_a_hostile_file_is_refused_in_our_words_and_does_nothing(tmp_path, model, image, door, kind):
    suffix, enter = DOORS[door]
    if kind in ABSENT and door == "a mask of data=":
        pytest.skip("a mask is listed by its folder")
    trap = Trap(tmp_path / "sprung")
    file = hostile(kind, tmp_path / f"file{suffix}", trap)
    with guard(trap):
        try:
            enter(file, model, image)
        except Exception as error:
            ours = type(error).__module__ == "samplug.errors" or isinstance(error, CLEAR.get(suffix, ()))
            assert ours, repr(error)[:500]
            assert len(str(error)) < 20_000
            return
    raise AssertionError("it was taken")
