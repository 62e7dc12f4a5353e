"""Pipes in place of files: refused at once, as reading one waits for whoever writes into it."""

import os
import threading
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

from samplug import SAM
from samplug.errors import CheckpointError, SourceError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
IMAGE = np.full((96, 128, 3), 100, np.uint8)
CLICK = {"points": [[5, 5]], "imgsz": 128, "verbose": False, "save": False}


@pytest.fixture
def pipe(tmp_path):
    """Makes a pipe into which somebody keeps writing nothing, so that a reader of it would not wait for ever."""

    def feed(path):
        while not stopped.wait(0.01):
            with suppress(OSError):  # nobody reads
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    def make(name):
        path = tmp_path / name
        os.mkfifo(path)
        feeding.append(threading.Thread(target=feed, args=(path,), daemon=True))
        feeding[-1].start()
        return str(path)

    stopped, feeding = threading.Event(), []
    yield make
    stopped.set()
    for thread in feeding:
        thread.join()


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "clip.mp4", "image.png"])
def test_a_pipe_as_source_is_refused(nano_file, pipe, name):
    source = pipe(name)
    for run in (SAM(nano_file).predict, partial(SAM(nano_file).predict, track=False)):
        with pytest.raises(SourceError, match=f"{name} is a pipe, a socket or a device"):
            run(source, **CLICK)


@pytest.mark.parametrize("name", ["clip.mp4", "image.png"])
@pytest.mark.parametrize("options", [{}, {"track": False}])
def test_a_pipe_that_a_list_names_is_refused(nano_file, pipe, tmp_path, name, options):
    source = pipe(name)
    (tmp_path / "all.txt").write_text(f"{source}\n")
    for given in (str(tmp_path / "all.txt"), [source]):
        with pytest.raises(SourceError, match=f"{name} is a pipe, a socket or a device"):
            SAM(nano_file).predict(given, on_error="raise", **CLICK, **options)


def test_a_pipe_as_detector_or_tracker_is_refused(nano_file, pipe):
    with pytest.raises(CheckpointError, match="yolo.pt is a pipe, a socket or a device"):
        SAM(nano_file).predict(IMAGE, prompter=pipe("yolo.pt"), imgsz=128, verbose=False)
    with pytest.raises(SourceError, match="bytetrack.yaml is a pipe, a socket or a device"):
        SAM(nano_file).track(IMAGE, tracker=pipe("bytetrack.yaml"), imgsz=128, verbose=False)
