"""What breaks a run: killed writers, full disks, folders that cannot be written, cameras that go, Ctrl-C, full GPUs."""

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.checkpoint_files import digest
from support.killed import KINDS
from support.scarce import (
    LINUX,
    ROOT,
    as_somebody_else,
    no_file_longer_than,
    prompts_in,
    room_for,
    said_of_memory,
    small_disk,
)
from support.videos import BOX, film, follow, write_video

from samplug import SAM2Predictor
from samplug.checkpoints.load import load_model
from samplug.cli import main
from samplug.errors import UsageError
from samplug.predict.results.mask_results import MaskResults

CLICKS = [[20, 20], [60, 50], [90, 30], [40, 70], [100, 80]]


# Killed ---------------------------------------------------------------------------------------------------------------


def killed(kind, count):
    """How often the old file, the new one and a temporary one stood there after a writer was killed."""
    words = [sys.executable, str(Path(__file__).parents[2] / "support" / "killed.py"), kind, str(count)]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=here)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()[-3:]))


@LINUX
def test_a_killed_writer_leaves_the_old_file_or_the_new_one():
    old, new, _ = killed("embedding", 5)
    assert old + new == 5


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_writers_of_every_kind_may_be_killed_at_any_moment(kind, capsys):
    old, new, left = killed(kind, 40)
    with capsys.disabled():
        print(
            f"\n{kind:<12}40 kills: {old} left the old file, {new} a new one, none half of one; {left} temporary files"
        )
    assert old + new == 40


# Disks ----------------------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.parametrize("name", [name for name in KINDS if name != "training"])
def test_a_full_disk_raises_and_leaves_the_old_file_alone(tmp_path, name):
    kind = KINDS[name]()
    path = tmp_path / kind.file
    kind.write(path, 1 if name != "labels" else 0)
    before = digest(path)
    with no_file_longer_than(900), pytest.raises((OSError, RuntimeError)):
        kind.write(path, 2)
    assert digest(path) == before and list(tmp_path.iterdir()) == [path]


@LINUX
def test_the_shell_says_that_the_disk_is_full_and_fails(nano_file, tmp_path):
    disk = tmp_path / "disk"
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    words = ["predict", f"model={nano_file}", f"source={tmp_path}/a.png", "points=[[5, 5]]", "imgsz=64", "name=out"]
    with small_disk(disk, 16 << 10), pytest.raises(UsageError, match="No space left on device"):
        main.samplug([*words, f"project={disk}"])


def test_a_folder_that_cannot_be_made_is_one_line(nano_file, tmp_path):
    (tmp_path / "file").write_text("")
    cv2.imwrite(str(tmp_path / "a.png"), film()[0])
    words = ["predict", f"model={nano_file}", f"source={tmp_path}/a.png", "points=[[5, 5]]", "imgsz=64", "name=out"]
    with pytest.raises(UsageError, match="file"):
        main.samplug([*words, f"project={tmp_path}/file"])


@LINUX
@ROOT
@pytest.mark.parametrize("name", ["picture", "labels", "embedding"])
def test_a_folder_of_somebody_else_raises_and_stays_as_it_was(tmp_path, name):
    kind = KINDS[name]()
    path = tmp_path / kind.file
    kind.write(path, 0)
    before = digest(path)
    with as_somebody_else(tmp_path), pytest.raises(PermissionError):
        kind.write(path, 1)
    assert digest(path) == before and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def drawn():
    """A result whose drawing, a random image, does not become small as a file."""
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return MaskResults(image, "clip.mp4", {0: "0"}, masks=torch.ones(1, 60, 80, dtype=torch.bool))


@LINUX
def test_a_drawing_on_a_full_disk_is_an_error_and_the_one_before_stays(drawn, tmp_path):
    path = tmp_path / "new" / "a.png"
    assert drawn.save(path) == str(path) and (cv2.imread(str(path)) == drawn.plot()).all()
    before = digest(path)
    with no_file_longer_than(900), pytest.raises(OSError, match=r"a\.png"):
        drawn.save(path, line_width=9)
    assert digest(path) == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.foo", "a", "a.mp4", "a.pgm"])
def test_a_drawing_under_a_name_of_no_image_is_refused(drawn, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}.*Expected \.jpg or \.png"):
        drawn.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_drawing_is_saved_as_pillow_made_it_and_under_a_name_of_its_own(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn.save("a.png", pil=True)
    assert (cv2.imread("a.png") == np.asarray(drawn.plot(pil=True))[..., ::-1]).all()
    assert drawn.save() == "results_clip.jpg" and Path("results_clip.jpg").exists()


# Streams --------------------------------------------------------------------------------------------------------------


class Camera(http.server.BaseHTTPRequestHandler):
    """Gives twelve frames to who asks, and hangs up."""

    connections = 0

    def do_GET(self):
        type(self).connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for frame in film() + film()[:4]:
            jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            self.wfile.write(jpeg + b"\r\n")
            time.sleep(0.03)

    def log_message(self, *_):
        pass


@pytest.fixture
def camera():
    Camera.connections = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_camera_that_hangs_up_and_returns_is_followed_on(network, camera):
    seen, running = [], follow(network, f"http://127.0.0.1:{camera.server_port}/s", bboxes=[BOX], keep_lost=True)
    for result in running:
        seen.append((Camera.connections, bool(result.orig_img.any()), result.obj_ids))
        if Camera.connections > 3 or len(seen) > 300:
            break
    running.close()
    assert Camera.connections > 3
    assert all(ids == (0,) for _, _, ids in seen)
    assert {connection for connection, signal_there, _ in seen if signal_there} >= {2, 3}


@LINUX
@pytest.mark.slow
def test_ctrl_c_ends_with_saved_output_that_opens(nano_file, tmp_path):
    write_video(tmp_path / "long.avi", film() * 60)
    program = str(Path(sys.executable).with_name("samplug"))
    words = ["track", f"model={nano_file}", "source=long.avi", f"bboxes=[{BOX}]", "imgsz=128", "save_txt"]
    words += [f"project={tmp_path}", "name=out"]
    child = subprocess.Popen(
        [program, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells let what runs behind ignore Ctrl-C
    )  # fmt: skip
    for line in child.stdout:
        if (found := re.search(r"frame (\d+)/", line)) and int(found[1]) >= 12:
            break
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130 and "interrupted. What was done until here is saved." in said, said
    assert "Traceback" not in said
    capture, count = cv2.VideoCapture(str(tmp_path / "out" / "long.avi")), 0
    while capture.grab():
        count += 1
    assert 12 <= count < 480 and len(list((tmp_path / "out" / "labels").glob("*.txt"))) <= count


def test_a_run_that_is_broken_off_closes_its_video(network, tmp_path):
    said = {"save": True, "project": str(tmp_path), "name": "out"}
    running = follow(network, film(), overrides=said, bboxes=[BOX])
    for _ in range(3):
        next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "frames.avi"))
    assert [capture.grab() for _ in range(4)] == [True, True, True, False]


# Memory of a GPU ------------------------------------------------------------------------------------------------------


def ready(network, batch):
    made = SAM2Predictor(overrides={"verbose": False, "save": False, "imgsz": 128, "batch": batch})
    made.setup_model(network, verbose=False)
    return made


def test_a_gpu_without_memory_for_a_batch_goes_on_with_smaller_ones_and_says_so_once(network, capture_log):
    images = film()[:7]
    plain = ready(network, 1)(images, bboxes=[BOX])
    with room_for(network.image_encoder, 2):
        results = ready(network, 4)(images, bboxes=[BOX])
    assert all(torch.equal(a.masks.data, b.masks.data) for a, b in zip(plain, results, strict=True))
    assert said_of_memory(capture_log) == ["The GPU's memory is full: going on with 2 images at once, not 4."]


def test_a_gpu_without_memory_for_many_prompts_answers_fewer_at_once(network, capture_log):
    plain = ready(network, 1)(film()[:2], points=CLICKS)
    with room_for(network.sam_mask_decoder, 3, prompts_in):
        results = ready(network, 1)(film()[:2], points=CLICKS)
    for a, b in zip(plain, results, strict=True):
        assert torch.equal(a.boxes.cls, b.boxes.cls) and (a.masks.data != b.masks.data).float().mean() < 1e-3
    assert said_of_memory(capture_log) == ["The GPU's memory is full: going on with 2 prompts at once, not 5."]


def test_a_gpu_without_memory_for_one_image_says_what_to_do(network):
    with room_for(network.image_encoder, 0), pytest.raises(torch.OutOfMemoryError, match="smaller imgsz"):
        ready(network, 2)(film()[:2], points=CLICKS)
    assert len(ready(network, 2)(film()[:2], points=CLICKS)) == 2


def test_the_shell_says_in_a_line_that_a_gpu_has_no_memory(nano_file, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), film()[0])
    loaded = load_model(nano_file)
    monkeypatch.setattr("samplug.model.load_model", lambda *_: loaded)
    words = ["predict", f"model={nano_file}", f"source={tmp_path}/a.png", "points=[[5, 5]]", "imgsz=64", "name=out"]
    with room_for(loaded.image_encoder, 0), pytest.raises(UsageError, match="not enough memory for one image"):
        main.samplug([*words, f"project={tmp_path}"])
