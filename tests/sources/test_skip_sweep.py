"""`on_error="skip"` over every kind of input: what is bad is left out by name, and everything else is done."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import BOX, film, predictor_of, write_video

from samplug import SAM, SAM2Predictor
from samplug.errors import SourceError


def noise(height=40, width=60):
    return cv2.resize(np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8), (width, height))


def cut_image():
    """A PIL image whose file ends in the middle of its pixels."""
    data = cv2.imencode(".png", noise(200, 300))[1].tobytes()
    from io import BytesIO

    return Image.open(BytesIO(data[: len(data) // 2]))


FILES = {
    "empty.jpg": b"",
    "page.png": b"<!doctype html><html>404</html>",
    "cut.png": cv2.imencode(".png", noise(200, 300))[1].tobytes()[:900],
    "cut.jpg": cv2.imencode(".jpg", noise(200, 300))[1].tobytes()[:400],
    "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n{ } loop\n",
    "noise.webp": bytes(range(256)) * 20,
    "noise.tif": b"II*\0" + bytes(range(256)),
    "noise.gif": b"GIF89a" + bytes(range(60)),
    "noise.avi": b"RIFF" + bytes(range(256)) * 4,
    "empty.mp4": b"",
    "zero.mov": bytes(4096),
}
OBJECTS = {
    "NaN": lambda: np.full((40, 60, 3), np.nan, np.float32),
    "infinity": lambda: np.full((40, 60, 3), np.inf, np.float32),
    "no pixels": lambda: np.zeros((0, 60, 3), np.uint8),
    "text": lambda: np.full((40, 60, 3), "x"),
    "objects": lambda: np.full((40, 60, 3), None),
    "complex": lambda: np.full((40, 60, 3), 1j),
    "four sides": lambda: np.zeros((2, 2, 40, 60, 3), np.uint8),
    "a range of its own": lambda: np.full((40, 60, 3), 5e6, np.float32),
    "a cut PIL image": cut_image,
}
PROMPTS = {
    "outside": {"points": [[500, 5]]},
    "three numbers": {"bboxes": [[1, 2, 3]]},
    "NaN": {"points": [[float("nan"), 5]]},
    "text": {"points": "here"},
    "labels": {"points": [[5, 5]], "labels": [7]},
    "no such mask": {"masks": "nowhere.png"},
    "an empty mask file": {"masks": "zero.png"},
    "a cut array": {"masks": "cut.npy"},
    "a giant array": {"masks": "giant.npy"},
    "run lengths": {"masks": [{"size": [40, 60], "counts": [1]}]},
    "a polygon of two corners": {"masks": [[[1.0, 1.0], [9.0, 9.0]]]},
    "an unknown key": {"point": [[5, 5]]},
    "counts": {"points": [[5, 5], [6, 6]], "bboxes": [[1, 1, 9, 9]]},
    "no such JSON": "nowhere.json",
    "deep JSON": "deep.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good images and a good clip beside files of every bad kind."""
    folder = tmp_path_factory.mktemp("sweep")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    for name in ("a.png", "z.png"):
        cv2.imwrite(str(folder / name), noise())
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.npy").write_bytes(b"\x93NUMPY\x01\0")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    (folder / "giant.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    (folder / "deep.json").write_text("[" * 100_000)
    return folder


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


def run(model, source, **said):
    results = model.predict(source, **{"imgsz": 64, "verbose": False, "on_error": "skip", "points": [[5, 5]], **said})
    return results, model.predictor.errors.all


@pytest.mark.parametrize("name", [*FILES, "nowhere.jpg", "nowhere.mp4", "http://127.0.0.1:1/x.jpg"])
@pytest.mark.parametrize("door", ["list", "list file"])
def test_a_bad_file_among_good_ones_is_left_out(model, folder, tmp_path, name, door):
    if "://" in name and door == "list file":
        pytest.skip("Ultralytics' lists name files alone")
    bad = name if "://" in name else str(folder / name)
    source = [str(folder / "a.png"), bad, str(folder / "z.png")]
    if door == "list file":
        (tmp_path / "names.txt").write_text("\n".join(source))
        source = str(tmp_path / "names.txt")
    results, skipped = run(model, source)
    assert [result.path[-5:] for result in results] == ["a.png", "z.png"]
    assert len(skipped) == 1 and name.rpartition("/")[2] in skipped[0].name and skipped[0].reason
    with pytest.raises((OSError, ValueError)):
        run(model, source, on_error="raise")


def test_bad_files_of_a_folder_are_left_out(model, folder):
    results, skipped = run(model, str(folder))
    assert [result.path[-5:] for result in results] == ["a.png", "z.png"]
    assert {each.name.rpartition("/")[2] for each in skipped} == {*FILES, "zero.png"}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_bad_image_in_memory_among_good_ones_is_left_out(model, kind, batch):
    good, other = noise(), noise(50, 40)
    results, skipped = run(model, [good, OBJECTS[kind](), other], **({} if batch is None else {"batch": batch}))
    assert [result.orig_shape for result in results] == [(40, 60), (50, 40)] and len(skipped) == 1
    with pytest.raises((OSError, TypeError, ValueError)):
        run(model, [good, OBJECTS[kind](), other], on_error="raise")


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_whose_prompts_are_bad_is_left_out(model, folder, monkeypatch, kind, batch):
    monkeypatch.chdir(folder)
    right = {"points": [[5, 5]]}
    said = {"points": None, "prompts": [right, PROMPTS[kind], right], "batch": batch}
    results, skipped = run(model, [noise(), noise(), noise(50, 40)], **said)
    assert [result.orig_shape for result in results] == [(40, 60), (50, 40)] and len(skipped) == 1


def test_prompts_by_file_that_are_bad_cost_their_own_image_alone(model, folder, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"a.png": {"points": [[5, 5]]}, "z.png": {"points": [[500, 5]]}}))
    source = [str(folder / name) for name in ("a.png", "z.png")]
    results, skipped = run(model, source, points=None, prompts=str(tmp_path / "p.json"))
    assert [result.path[-5:] for result in results] == ["a.png"] and skipped[0].name.endswith("z.png")


@pytest.mark.parametrize("name", ["noise.avi", "empty.mp4", "zero.mov", "nowhere.avi"])
def test_a_bad_video_among_good_ones_is_left_out(network, folder, tmp_path, name):
    clips = [str(write_video(tmp_path / f"{each}.avi", film()[:2])) for each in "az"]
    worker = predictor_of(network)
    results = list(worker(source=[clips[0], str(folder / name), clips[1]], stream=True, bboxes=[BOX], on_error="skip"))
    assert [result.path for result in results] == [clips[0]] * 2 + [clips[1]] * 2
    assert [each.name.rpartition("/")[2] for each in worker.errors.all] == [name]


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_bad_frame_among_good_ones_is_left_out(network, kind):
    worker, frames = predictor_of(network), film()[:3]
    for source in ([frames[0], OBJECTS[kind](), frames[2]], iter([frames[0], OBJECTS[kind](), frames[2]])):
        results = list(worker(source=source, stream=True, bboxes=[BOX], on_error="skip"))
        assert [result.frame for result in results] == [0, 2] and len(worker.errors.all) == 1


@pytest.mark.parametrize(
    "prompts", [{"points": [[500, 5]]}, {"bboxes": [[1, 2, 3]]}, {"masks": "nowhere.png"}, {"point": [[1, 1]]}], ids=str
)
def test_a_video_whose_prompts_are_bad_is_left_out(network, tmp_path, prompts):
    clips = [str(write_video(tmp_path / f"{name}.avi", film()[:2])) for name in "abc"]
    worker = predictor_of(network)
    said = {"prompts": [{"bboxes": [BOX]}, prompts, {"bboxes": [BOX]}], "on_error": "skip"}
    results = list(worker(source=clips, stream=True, **said))
    assert [result.path for result in results] == [clips[0]] * 2 + [clips[2]] * 2
    assert [each.name for each in worker.errors.all] == [clips[1]]


def test_a_tensor_is_one_input_which_ends_the_run(network):
    worker = SAM2Predictor(overrides={"imgsz": 64, "verbose": False, "save": False})
    worker.setup_model(network, verbose=False)
    with pytest.raises(ValueError, match="NaN|finite"):
        worker(torch.zeros(1, 3, 64, 64) * float("nan"), points=[[5, 5]], on_error="skip")


@pytest.fixture
def server(tmp_path):
    """Serves folders by name: each call gives the address of a file in another one, on a port of its own."""
    running = []

    def serve(image=None):
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        if image is not None:
            cv2.imwrite(str(folder / "same.png"), image)
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        running.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/same.png"

    yield serve
    for each in running:
        each.shutdown()
        each.server_close()


def test_an_address_is_the_image_that_its_own_server_has(model, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {*tmp_path.iterdir()}
    for image in (noise(), noise(50, 40)):
        address = server(image)
        (result,), _ = run(model, address)
        assert result.path == address and np.array_equal(result.orig_img, image)
    assert {path.name for path in {*tmp_path.iterdir()} - files} == {"server0", "server1"}  # nothing is kept here
    with pytest.raises(SourceError, match="cannot be read: 404"):
        run(model, server(), on_error="raise")
    with pytest.raises(SourceError, match=r"http://127.0.0.1:1/x.png cannot be read"):
        run(model, "http://127.0.0.1:1/x.png", on_error="raise")
