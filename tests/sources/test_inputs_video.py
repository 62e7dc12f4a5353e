"""Videos and streams as the world sends them: what can be decoded is followed, the rest is named and left out."""

import cv2
import numpy as np
import pytest
from support.videos import BOX, alike, film, follow, predictor_of, write_video

from samplug import SAM, PromptError
from samplug.cli import main
from samplug.errors import SourceError, UsageError


@pytest.fixture(scope="module")
def frames():
    return film()[:4]


def encoded(path, frames, codec):
    """A video whose frames depend on each other, unlike those of FFV1."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.fixture
def broken(tmp_path):
    """Files that are no video."""
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "page.mp4").write_bytes(b"<html>404</html>" * 9)
    cut(encoded(tmp_path / "no index.mp4", film(), "mp4v"), 0.5)
    cut(write_video(tmp_path / "no frame.avi", film()), 0.06)
    return sorted(str(path) for path in tmp_path.iterdir())


def test_what_is_no_video_is_refused_with_its_name_followed_or_not(network, nano_file, broken):
    for path in broken:
        with pytest.raises(SourceError, match=path):
            list(follow(network, path, bboxes=[BOX]))
        with pytest.raises(SourceError, match=path):
            SAM(nano_file).predict(path, points=[[5, 5]], track=False, verbose=False, imgsz=64)


def test_bad_videos_of_a_folder_are_left_out_and_the_rest_is_followed(network, frames, broken, tmp_path, capture_log):
    good = write_video(tmp_path / "m.avi", frames)
    worker = predictor_of(network)
    results = list(worker(source=str(tmp_path), stream=True, bboxes=[BOX]))
    assert alike(results, follow(network, str(good), bboxes=[BOX]))
    assert [fault.name for fault in worker.errors.all] == broken and f"{len(broken)} inputs skipped" in capture_log[-1]


def test_frames_of_a_folder_of_videos_one_by_one_leave_out_the_bad_ones(nano_file, frames, broken, tmp_path):
    write_video(tmp_path / "m.avi", frames)
    model = SAM(nano_file)
    results = model.predict(str(tmp_path), points=[[5, 5]], track=False, verbose=False, imgsz=64, batch=3)
    assert len(results) == len(frames) and len(model.predictor.errors.all) == len(broken)


@pytest.mark.parametrize("codec", ["MJPG", "mp4v", "FFV1"])
def test_a_video_that_breaks_off_is_followed_as_far_as_it_goes(network, tmp_path, codec, capture_log):
    many = [frame for _ in range(5) for frame in film()]
    path = cut(encoded(tmp_path / "a.avi", many, codec), 0.6)
    results = list(follow(network, str(path), bboxes=[BOX]))
    assert 0 < len(results) < len(many) and [result.frame for result in results] == list(range(len(results)))
    stated = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    said = [line for line in capture_log if "cut short" in line]
    assert len(said) == (stated > len(results)), (stated, len(results))


def test_a_header_that_counts_wrongly_changes_nothing(nano_file, network, frames, tmp_path):
    path = write_video(tmp_path / "a.avi", frames)
    plain = list(follow(network, str(path), bboxes=[BOX]))
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16  # dwTotalFrames
    for claimed in (0, 1, 2, 10**6):
        data[at : at + 4] = claimed.to_bytes(4, "little")
        at_stream = data.index(b"strh") + 8 + 32  # dwLength
        data[at_stream : at_stream + 4] = claimed.to_bytes(4, "little")
        path.write_bytes(data)
        assert alike(follow(network, str(path), bboxes=[BOX]), plain)
        alone = SAM(nano_file).predict(str(path), points=[[5, 5]], track=False, verbose=False, imgsz=64)
        assert len(alone) == len(frames)


def test_a_folder_of_frames_may_change_size_have_gaps_and_bad_files(network, frames, tmp_path, capture_log):
    shapes = [(96, 128), (96, 128), (60, 100), (120, 90)]
    for number, frame, (height, width) in zip((1, 2, 5, 9), frames, shapes, strict=True):
        cv2.imwrite(str(tmp_path / f"frame {number}.png"), cv2.resize(frame, (width, height)))
    (tmp_path / "frame 3.png").write_bytes(b"")
    worker = predictor_of(network)
    results = list(worker(source=str(tmp_path), stream=True, bboxes=[BOX], keep_lost=True))
    assert [result.orig_shape for result in results] == shapes
    assert [result.frame for result in results] == [0, 1, 3, 4]  # the place of the bad file stays unused
    assert all(result.masks.data.shape == (1, *shape) for result, shape in zip(results, shapes, strict=True))
    assert any("4 numbers are missing between 1 and 9" in line for line in capture_log)
    assert [fault.name[-11:] for fault in worker.errors.all] == ["frame 3.png"]


def test_a_saved_video_keeps_every_frame_of_a_source_that_changes_size(network, frames, tmp_path):
    changing = [frames[0], cv2.resize(frames[1], (64, 64)), frames[2]]
    said = {"save": True, "project": str(tmp_path), "name": "out"}
    list(follow(network, changing, overrides=said, bboxes=[BOX]))
    capture, count = cv2.VideoCapture(str(tmp_path / "out" / "frames.avi")), 0
    while capture.grab():
        count += 1
    assert count == 3


def test_a_bad_frame_of_an_iterator_is_left_out(network, frames):
    def camera():
        yield frames[0]
        yield np.zeros((0, 9, 3), np.uint8)
        yield frames[1]

    worker = predictor_of(network)
    assert [result.frame for result in worker(source=camera(), stream=True, bboxes=[BOX])] == [0, 2]
    assert [fault.name for fault in worker.errors.all] == ["frame 1 of frames"]
    with pytest.raises(SourceError, match="frame 1 of frames"):
        list(worker(source=camera(), stream=True, bboxes=[BOX], on_error="raise"))


def test_a_video_that_its_prompts_do_not_fit_is_left_out_where_there_are_others(network, frames, tmp_path):
    for name, size in (("a", (128, 96)), ("b", (32, 32)), ("c", (128, 96))):
        write_video(tmp_path / f"{name}.avi", [cv2.resize(frame, size) for frame in frames])
    worker = predictor_of(network)
    results = list(worker(source=str(tmp_path), stream=True, bboxes=[[50, 50, 90, 90]]))
    assert [result.path[-5:] for result in results] == ["a.avi"] * 4 + ["c.avi"] * 4
    assert [fault.name[-5:] for fault in worker.errors.all] == ["b.avi"]
    with pytest.raises(PromptError, match="outside"):
        list(worker(source=str(tmp_path / "b.avi"), stream=True, bboxes=[[50, 50, 90, 90]]))
    assert alike(results[:4], worker(source=str(tmp_path / "a.avi"), stream=True, bboxes=[[50, 50, 90, 90]]))


def test_the_shell_follows_what_it_can_and_fails_with_a_summary(nano_file, frames, broken, tmp_path, monkeypatch):
    write_video(tmp_path / "m.avi", frames[:2])
    words = ["track", f"model={nano_file}", f"source={tmp_path}", f"bboxes=[{BOX}]", f"project={tmp_path}", "name=out"]
    with pytest.raises(UsageError, match=f"{len(broken)} inputs? skipped: .*empty.mp4"):
        main.samplug([*words, "imgsz=128"])
    assert cv2.VideoCapture(str(tmp_path / "out" / "m.avi")).grab()
