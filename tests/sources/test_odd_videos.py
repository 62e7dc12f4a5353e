"""Videos of the odd kinds: animations, uneven times, frames that depend on far ones, headers that claim any size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import BOX, alike, film, follow, predictor_of, write_video

from samplug import SAM, resources
from samplug.errors import SourceError
from samplug.sources.video import VideoFile

# 24 frames of a film and its way back, 40 to 500 ms apart. Made with PyAV 18.1 by libx264: one group of images,
# three B-frames between others, its index ahead. No OpenCV from PyPI writes H.264, each reads it.
UNEVEN = Path(__file__).with_name("uneven.mp4")
FRAMES = 24
DURATIONS = [40, 200, 40, 500, 30, 30, 80, 40]  # ms


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture
def gif(tmp_path):
    return write_gif(tmp_path / "a.gif", film())


def write_gif(path, frames):
    images = [Image.fromarray(frame[..., ::-1]) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=DURATIONS[: len(frames)], loop=0)
    return path


def by_themselves(model, source):
    """Every image or frame answered by itself."""
    said = {"points": [[40, 40]], "track": False, "verbose": False, "imgsz": 64}
    return model.predict(source, **said)


def near(images, frames, most):
    """Whether images are those frames, but for what their format lost."""
    distances = [np.abs(a.astype(int) - b).mean() for a, b in zip(images, frames, strict=True)]
    return max(distances, default=0) < most


def cut(path, share, folder):
    """A file's beginning, as a file."""
    data = path.read_bytes()
    made = folder / f"cut{path.suffix}"
    made.write_bytes(data[: int(len(data) * share)])
    return made


# Animations


def test_every_frame_of_an_animation_is_followed_as_in_a_list(network, gif):
    results = list(follow(network, str(gif), bboxes=[BOX]))
    assert [result.frame for result in results] == list(range(8))
    assert near([result.orig_img for result in results], film(), most=8)
    assert alike(results, follow(network, [result.orig_img for result in results], bboxes=[BOX]))


def test_every_frame_of_an_animation_is_answered_also_among_images(model, gif, tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), film()[0])
    alone, together = by_themselves(model, str(gif)), by_themselves(model, [str(tmp_path / "b.png"), str(gif)])
    assert [len(alone), len(together)] == [8, 9] and Path(together[0].path).name == "b.png"
    for one, other in zip(alone, together[1:], strict=True):
        assert np.array_equal(one.orig_img, other.orig_img) and torch.equal(one.masks.data, other.masks.data)


def test_an_animation_in_memory_is_its_first_frame(model, gif):
    with Image.open(gif) as image:
        (result,) = by_themselves(model, image)
    assert near([result.orig_img], film()[:1], most=8)


def test_an_animation_of_one_frame_is_a_video_of_one(network, model, tmp_path):
    path = str(write_gif(tmp_path / "still.gif", film()[:1]))
    assert len(by_themselves(model, path)) == 1
    (result,) = follow(network, path, bboxes=[BOX])
    assert result.frame == 0 and result.masks.data.shape == (1, 96, 128)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_an_animation_that_breaks_off_is_followed_through_its_whole_frames(network, gif, tmp_path, share, capture_log):
    results = list(follow(network, str(cut(gif, share, tmp_path)), bboxes=[BOX]))
    assert [result.frame for result in results] == list(range(len(results))) and 8 * share - 2 < len(results) < 8
    assert near([result.orig_img for result in results], film()[: len(results)], most=8)
    assert any(f"cut short after {len(results)} whole frames" in line for line in capture_log)
    with pytest.raises(SourceError, match="cut short"):
        list(follow(network, str(cut(gif, share, tmp_path)), bboxes=[BOX], strict=True))


def test_an_animation_that_breaks_off_in_its_first_frame_is_refused(network, gif, tmp_path):
    with pytest.raises(SourceError, match="no frame of it can be decoded"):
        list(follow(network, str(cut(gif, 0.05, tmp_path)), bboxes=[BOX]))


# Uneven times, and frames that depend on far ones


@pytest.fixture(scope="module")
def uneven():
    """The frames of that video."""
    return [shot.image for shot in VideoFile(str(UNEVEN)).forward(0)]


def test_frames_come_one_by_one_however_long_each_is_shown(network, uneven):
    assert near(uneven, film() + film()[::-1] + film(), most=16)
    results = list(follow(network, str(UNEVEN), bboxes=[BOX]))
    assert [result.frame for result in results] == list(range(FRAMES))
    assert alike(results, follow(network, uneven, bboxes=[BOX]))


def test_backwards_and_at_a_stride_the_frames_are_the_same(uneven):
    clip = VideoFile(str(UNEVEN))
    for shots in (clip.backward(None), clip.backward(20, 3), clip.forward(5, 4)):
        shots = list(shots)
        assert len(shots) >= 5 and all(np.array_equal(shot.image, uneven[shot.number]) for shot in shots)


@pytest.mark.parametrize("source", ["uneven.mp4", "a.gif"])
def test_a_saved_copy_has_every_frame(network, gif, tmp_path, source):
    source = UNEVEN if source == UNEVEN.name else gif
    said = {"save": True, "project": str(tmp_path), "name": "out"}
    count = len(list(follow(network, str(source), overrides=said, bboxes=[BOX])))
    (saved,) = (tmp_path / "out").iterdir()
    capture = cv2.VideoCapture(str(saved))
    assert saved.stem == source.stem and [capture.grab() for _ in range(count + 1)] == [True] * count + [False]


@pytest.mark.parametrize(("share", "count"), [(0.8, 3), (0.9, 11), (0.98, 19)])
def test_a_group_of_images_that_breaks_off_is_followed_as_far_as_it_goes(
    network, uneven, tmp_path, share, count, capture_log
):
    results = list(follow(network, str(cut(UNEVEN, share, tmp_path)), bboxes=[BOX]))
    assert [result.frame for result in results] == list(range(len(results))) and abs(len(results) - count) <= 2
    assert all(map(np.array_equal, [result.orig_img for result in results], uneven))
    assert any(f"{FRAMES} frames, {len(results)} could be decoded" in line for line in capture_log)


def test_a_group_of_images_that_breaks_off_in_its_first_one_is_refused_by_name(network, tmp_path):
    with pytest.raises(SourceError, match="cut.mp4: no frame of it can be decoded"):
        list(follow(network, str(cut(UNEVEN, 0.6, tmp_path)), bboxes=[BOX]))


# Any size


def claiming(path, width, height):
    """An AVI whose header says that its frames are of this size."""
    data = bytearray(path.read_bytes())
    size = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    for chunk, offset in ((b"avih", 32), (b"strf", 4)):
        at = data.index(chunk) + 8 + offset
        data[at : at + 8] = size
    path.write_bytes(data)
    return path


def written(path, codec):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (128, 96))
    for frame in film():
        writer.write(frame)
    writer.release()
    return path


# Answers a video by itself and followed, after the first image, in a process that may take so many bytes more.
CONFINED = """
import resource, sys
import numpy as np
from samplug import SAM
model, said = SAM(sys.argv[1]), {"points": [[3, 3]], "verbose": False, "imgsz": 64}
status = lambda name: int(next(line for line in open("/proc/self/status") if name in line).split()[1]) * 1024
model.predict(np.zeros((64, 64, 3), np.uint8), **said)
resource.setrlimit(resource.RLIMIT_AS, [status("VmSize") + int(sys.argv[3])] * 2)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmHWM")
for follow in (False, True):
    try:
        print("SAID", len(model.predict(sys.argv[2], track=follow, **said)))
    except OSError as error:
        print("SAID", type(error).__name__, " ".join(str(error).split()))
print("SAID", status("VmHWM") - before)
"""


def confined(model, source, room):
    """What came of a video by itself and followed, and the bytes of memory it took."""
    words = [sys.executable, "-c", CONFINED, str(model), str(source), str(room)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    *said, taken = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID ")]
    return said, int(taken)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
@pytest.mark.parametrize("codec", ["MJPG", "DIVX", "FFV1", "I420"])
def test_a_header_that_claims_a_gigantic_size_takes_no_memory(nano_file, tmp_path, codec):
    """Codecs that know their size themselves are believed, the others have no frame that can be decoded."""
    path = claiming(written(tmp_path / "a.avi", codec), 60_000, 60_000)
    said, taken = confined(nano_file, path, 4 << 30)
    right = "8" if codec in ("MJPG", "DIVX") else f"SourceError {path}"
    assert len(said) == 2 and all(line.startswith(right) for line in said), said
    assert taken < 200e6


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
@pytest.mark.parametrize("room", [3 << 29, 2 << 30], ids=["no frame comes", "OpenCV raises"])
def test_frames_that_turn_out_too_large_are_refused_by_name(nano_file, tmp_path, room):
    path = claiming(written(tmp_path / "a.avi", "FFV1"), 16_000, 16_000)  # the codec makes frames of any size
    said, _ = confined(nano_file, path, room)
    assert len(said) == 2 and all(re.match(f"SourceError .*{path}.* cannot be decoded", line) for line in said), said


def test_a_video_whose_frames_memory_cannot_hold_is_refused_before_they_are_decoded(
    network, model, tmp_path, monkeypatch
):
    large = write_video(tmp_path / "large.avi", [cv2.resize(frame, (640, 480)) for frame in film()])
    small = write_video(tmp_path / "small.avi", film()[:2])
    monkeypatch.setattr(resources, "free_memory", lambda: 10**6)
    for answer in (lambda: list(follow(network, str(large), bboxes=[BOX])), lambda: by_themselves(model, str(large))):
        with pytest.raises(SourceError, match="large.avi: an image of 640x480 needs about 0.0 GB"):
            answer()
    worker = predictor_of(network)
    results = list(worker(source=str(tmp_path), stream=True, bboxes=[BOX]))
    assert {result.path for result in results} == {str(small)} and len(results) == 2
    assert [fault.name for fault in worker.errors.all] == [str(large)]
