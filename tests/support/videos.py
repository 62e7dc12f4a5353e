"""Films for the tests of videos, and what it takes to follow objects through them and to compare."""

import http.server
import os
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.images import draw
from ultralytics.data.loaders import LoadStreams, SourceTypes

from samplug import SAM2DynamicInteractivePredictor
from samplug.predict.video.predictor import SAM2VideoPredictor

BOX, OTHER = [30, 20, 70, 60], [80, 40, 120, 90]


def film():
    """Eight frames of a scene that moves, (96, 128, 3)."""
    return [np.roll(draw(96, 128, 1), (2 * i, 3 * i), (0, 1)) for i in range(8)]


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def predictor_of(network, _callbacks=None, **overrides):
    overrides = {"imgsz": 128, "verbose": False, "save": False, **overrides}
    made = SAM2VideoPredictor(overrides=overrides, _callbacks=_callbacks)
    made.setup_model(network, verbose=False)
    made.non_overlap_masks = False
    made.options["logits"] = True
    return made


def follow(network, source, overrides=None, **said):
    return predictor_of(network, **(overrides or {}))(source=source, stream=True, **said)


def rows(result):
    """Each object's logits."""
    return dict(zip(result.obj_ids, result.logits, strict=True))


def alike(results, others):
    """Whether results hold the same ids, logits, masks and boxes, bit by bit."""
    pairs = list(zip(list(results), list(others), strict=True))
    return all(
        a.obj_ids == b.obj_ids
        and torch.equal(a.logits, b.logits)
        and torch.equal(a.masks.data, b.masks.data)
        and torch.equal(a.boxes.data, b.boxes.data)
        for a, b in pairs
    )


def close(results, others):
    """Whether results hold the same ids and logits, but for the order in which sums are taken."""
    pairs = list(zip(list(results), list(others), strict=True))
    return all(a.obj_ids == b.obj_ids and torch.allclose(a.logits, b.logits, atol=1e-3) for a, b in pairs)


@contextmanager
def camera(images, pause=0.0):
    """The address of a camera that shows images one after the other, with a pause in seconds: MJPEG over HTTP."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with suppress(ConnectionError):  # who looked has gone
                for image in images:
                    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    self.wfile.write(head + jpeg + b"\r\n")
                    time.sleep(pause)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stream"
    finally:
        server.shutdown()
        server.server_close()


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Cameras(LoadStreams):
    """Streams from lists of frames, as Ultralytics hands them out."""

    def __init__(self, *films):
        self.films, self.bs, self.count, self.mode = films, len(films), -1, "stream"
        self.sources = [f"camera{i}" for i in range(self.bs)]
        self.fps, self.frames = [30] * self.bs, [0] * self.bs
        self.source_type = SourceTypes(stream=True)
        self.threads, self.caps = [], []

    def __next__(self):
        self.count += 1
        if self.count >= len(self.films[0]):
            raise StopIteration
        return self.sources, [film[self.count] for film in self.films], [""] * self.bs


BOXES = [[20, 30, 120, 140], [100, 60, 300, 200]]


def ready(network, max_obj_num=3, **overrides):
    overrides = {"imgsz": 128, "verbose": False, "save": False, **overrides}
    made = SAM2DynamicInteractivePredictor(overrides=overrides, max_obj_num=max_obj_num)
    made.setup_model(network, verbose=False)
    made.options |= {"logits": True, "keep_lost": True}
    return made


@pytest.fixture
def predictor(network):
    return ready(network)


@pytest.fixture
def taught(predictor, images):
    """Two objects, shown on the first image."""
    predictor(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    return predictor
