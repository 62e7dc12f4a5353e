"""Images of any size: what memory cannot hold is refused before it is taken."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from support.images import model, noise, predict  # noqa: F401

from samplug import resources
from samplug.errors import SourceError


def test_what_memory_cannot_hold_is_refused_before_it_is_taken(predict, monkeypatch, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), noise(400, 500))
    monkeypatch.setattr(resources, "free_memory", lambda: 10**6)
    with pytest.raises(SourceError, match="a.png: an image of 500x400 needs about 0.0 GB"):
        predict(str(tmp_path / "a.png"), points=[[0, 0]])
    with pytest.raises(MemoryError, match="9 masks of 500x400"):
        predict(torch.zeros(1, 3, 64, 64), points=[[0, 0]] * 9) and predict([noise(400, 500)], points=[[0, 0]] * 9)


def test_a_drawing_that_memory_cannot_hold_is_left_out_alone(model, predict, monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "free_memory", lambda: 4 * 10**6)
    said = {"save": True, "save_txt": True, "project": str(tmp_path), "name": "out", "on_error": "skip"}
    (result,) = predict([noise(300, 400)], bboxes=[[10, 10, 300, 200]], **said)
    assert result.masks.data.shape == (1, 300, 400)
    assert "drawing 1 masks on 400x300" in model.predictor.errors.all[0].reason
    assert not list((tmp_path / "out").glob("*.jpg"))


def test_free_memory_is_what_the_machine_and_the_container_leave(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("5000\n")
    used.write_text("4500\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    monkeypatch.setattr(resources, "CGROUPS", ((limit, used),))
    assert resources.free_memory() == 1500
    limit.write_text("max\n")
    assert resources.free_memory() is None or resources.free_memory() > 10**6
    monkeypatch.setattr(resources, "MEMINFO", tmp_path / "none")
    assert resources.free_memory() is None
    resources.require_memory(10**15, "anything", "nothing")  # nobody knows, nothing is refused


BIG = """
import sys, resource
import numpy as np, torch
torch.set_num_threads(1)
from samplug import SAM
side, how = int(sys.argv[2]), sys.argv[3]
model = SAM(sys.argv[1])
model.predict(np.zeros((64, 64, 3), np.uint8), points=[[3, 3]], verbose=False, imgsz=256)
open("/proc/self/clear_refs", "w").write("5")
peak = lambda: int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) * 1024
before = peak()
said = {"points": [[side // 2, side // 3]], "verbose": False, "imgsz": 256, "save": how == "drawn"}
if how == "drawn":
    said |= {"project": sys.argv[4], "on_error": "skip"}
(result,) = model.predict(sys.argv[4] + "/big.png", **said)
print((peak() - before) / side**2, tuple(result.masks.data.shape))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("side", "how", "bytes_a_pixel"), [(20_000, "answered", 8), (4_000, "drawn", 64)])
def test_the_memory_of_a_huge_image_is_bounded(nano_file, tmp_path, side, how, bytes_a_pixel):
    free = resources.free_memory()
    if free is not None and free < 1.3 * bytes_a_pixel * side**2:
        pytest.skip(f"{free / 1e9:.1f} GB free")
    image = np.zeros((side, side), np.uint8)
    cv2.circle(image, (side // 2, side // 3), side // 5, 200, -1)
    cv2.imwrite(str(tmp_path / "big.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    del image
    words = [sys.executable, "-c", BIG, str(nano_file), str(side), how, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    used = float(done.stdout.splitlines()[-1].split()[0])
    print(f"{side}x{side} {how}: {used:.1f} bytes of memory a pixel, {used * side**2 / 1e9:.2f} GB")
    assert used < bytes_a_pixel and f"(1, {side}, {side})" in done.stdout
