"""Images and videos on the web: bounded whatever a server does, each server's own, and nothing is left behind."""

import gc
import socket
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.videos import BOX, alike, film, follow, write_video

from samplug import SAM
from samplug.errors import SourceError
from samplug.sources.base_loader import is_file_address, suffix
from samplug.sources.image_loader import image_loader_of
from samplug.sources.video_loader import video_loader_of

OPTIONS = {"imgsz": 128, "verbose": False, "save": False}
NAMES = ["a.png", "a.avi"]


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Where videos are stored while they are read; the working directory is another folder, and stays empty."""
    for name in ("here", "downloads"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "downloads"))
    yield tmp_path / "downloads"
    gc.collect()
    assert [*(tmp_path / "here").iterdir(), *(tmp_path / "downloads").glob("samplug-*")] == []


@pytest.fixture
def server(tmp_path):
    """Serves files: each call gives the address of another folder, on a port of its own."""
    running = []

    def serve(frames):
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        write_video(folder / "a.avi", frames)
        cv2.imwrite(str(folder / "a.png"), frames[0])
        running.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield serve
    for each in running:
        each.shutdown()
        each.server_close()


@contextmanager
def answering(parts, pause):
    """The address of a server that sends parts with a pause after each, the last one again and again."""

    def answer(client):
        with client, suppress(OSError):
            client.recv(1 << 16)
            for part in parts:
                client.sendall(part)
            while not stopped.wait(pause):
                client.sendall(parts[-1])

    def serve():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=listening.accept()[:1], daemon=True).start()

    stopped, listening = threading.Event(), socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stopped.set()
        listening.close()


HEADER = b"HTTP/1.1 200 OK\r\n\r\n"
BAD = {
    "a header byte by byte": ([b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"], 0.02, "has sent nothing for 0.3 s"),
    "nothing": ([b""], 9, "has sent nothing for 0.3 s"),
    "nothing after the header": ([HEADER, b""], 9, "has sent nothing for 0.3 s"),
    "a body byte by byte": ([HEADER, b"x"], 0.02, "takes more than 1 s|sends less than 1024 kB in 1 s"),
    "too much": ([HEADER, bytes(1 << 16)], 0.0, "sends more than 2 MB"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("run", ["predict", "track"])
def test_a_server_is_left_whatever_it_does(nano_file, downloads, monkeypatch, run, name, case):
    parts, pause, reason = BAD[case]
    limits = {"SILENT_SECONDS": 0.3, "DOWNLOAD_SECONDS": 1, "VIDEO_SECONDS": 1}
    for limit, value in (limits | {"DOWNLOAD_BYTES": 2 << 20, "VIDEO_BYTES": 2 << 20}).items():
        monkeypatch.setattr(f"samplug.sources.download.{limit}", value)
    started = time.monotonic()
    with answering(parts, pause) as address, pytest.raises(SourceError, match=reason):
        getattr(SAM(nano_file), run)(f"{address}/{name}", points=[[5, 5]], on_error="raise", **OPTIONS)
    assert time.monotonic() - started < 10


def test_a_video_that_takes_long_is_read_as_long_as_it_goes_on(downloads, monkeypatch, tmp_path):
    data = write_video(tmp_path / "a.avi", film()[:3]).read_bytes()
    monkeypatch.setattr("samplug.sources.download.VIDEO_SECONDS", 0.5)
    monkeypatch.setattr("samplug.sources.download.VIDEO_STEP", 1)

    class Slow(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for start in range(0, len(data), 1 + len(data) // 8):
                self.wfile.write(data[start : start + 1 + len(data) // 8])
                time.sleep(0.1)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    loader = video_loader_of(f"http://127.0.0.1:{running.server_port}/a.avi")
    assert len(list(loader)) == 3
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("kind", ["an address", "a list"])
def test_a_video_is_the_one_that_its_own_server_has(network, server, downloads, kind):
    for frames in (film()[:3], film()[3:6]):
        address = f"{server(frames)}/a.avi"
        source = address if kind == "an address" else [address]
        results = []
        for result in follow(network, source, bboxes=[BOX]):
            results.append(result)
            assert len([*downloads.glob("samplug-*/*")]) == 1
        assert [result.path for result in results] == [address] * 3
        assert alike(results, follow(network, frames, bboxes=[BOX]))
        assert not [*downloads.glob("samplug-*")]


def test_every_frame_alone_and_an_image_among_frames_are_read_from_the_web_too(nano_file, server, downloads, tmp_path):
    frames, model = film()[:3], SAM(nano_file)
    address = server(frames)
    options = {**OPTIONS, "save": True, "project": str(tmp_path / "runs"), "points": [[50, 40]]}
    results = model.predict(f"{address}/a.avi?key=x/y.z", track=False, **options)
    assert all(np.array_equal(result.orig_img, frame) for result, frame in zip(results, frames, strict=True))
    assert {path.stem for path in Path(results[0].save_dir).iterdir()} == {"a"}  # not after the query
    (result,) = model.track(f"{address}/a.png", points=[[50, 40]], **OPTIONS)
    assert np.array_equal(result.orig_img, frames[0])


def test_an_earlier_frame_of_a_video_on_the_web_can_be_prompted(network, server, downloads):
    address = f"{server(film()[:3])}/a.avi"
    run = follow(network, address, bboxes=[BOX])
    predictor = run.gi_frame.f_locals["self"]
    for result in run:
        if result.frame == 2:
            predictor.add_new_prompts(9, bboxes=BOX, frame_idx=0)
            assert predictor.results[0].obj_ids == (0, 9)


@pytest.mark.parametrize("loader_of", [video_loader_of, lambda source: image_loader_of(source, None, 1, 1)])
def test_a_file_that_is_not_there_is_named(nano_file, server, downloads, loader_of):
    address = server(film()[:1])
    for name in ("b.avi", "b.png"):
        with pytest.raises(SourceError, match=f"{name} cannot be read: 404"):
            SAM(nano_file).predict(f"{address}/{name}", points=[[5, 5]], on_error="raise", **OPTIONS)


def test_streams_stay_with_ultralytics():
    for address in (
        "http://h/stream",
        "https://youtu.be/abc",
        "rtsp://h/a.mp4",
        "http://camera.mov",
        "http://h/a.m3u8",
    ):
        assert not is_file_address(address) and video_loader_of(address) == address
    assert is_file_address("HTTPS://h/b/A.MP4?x=1#t=3") and suffix("http://h/a.png?b=c.mp4") == "png"
