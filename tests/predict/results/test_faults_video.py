"""Saved videos, images of frames, crops and reports: on full disks and in folders that cannot be written."""

from types import SimpleNamespace

import cv2
import pytest
from support.checkpoint_files import digest
from support.scarce import LINUX, ROOT, as_somebody_else, no_file_longer_than, small_disk
from support.videos import BOX, film, follow, predictor_of, write_video

from samplug.benchmark.report import Report
from samplug.cli import main
from samplug.errors import UsageError
from samplug.predict.results import saved as drawings


def saving(folder, **more):
    return {"save": True, "project": str(folder.parent), "name": folder.name, "exist_ok": True, "imgsz": 64, **more}


def frames_in(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    return count


# Videos ---------------------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.host
@pytest.mark.parametrize(("size", "why"), [("32k", "No space left on device"), ("100k", "is not whole: of 32 frames")])
def test_the_shell_says_that_a_video_does_not_fit_on_the_disk_and_fails(nano_file, tmp_path, size, why):
    write_video(tmp_path / "clip.avi", film() * 4)
    words = ["track", f"model={nano_file}", f"source={tmp_path}/clip.avi", f"bboxes=[{BOX}]", "imgsz=64", "name=out"]
    with small_disk(tmp_path / "disk", size) as disk, pytest.raises(UsageError, match=why) as refusal:
        main.samplug([*words, f"project={disk}"])
    assert str(disk / "out" / "clip.avi") in str(refusal.value)


@LINUX
def test_a_disk_that_becomes_full_ends_the_run_at_the_next_frame(network, tmp_path):
    with small_disk(tmp_path / "out", "128k") as disk:
        running = follow(network, film(), saving(disk), bboxes=[BOX])
        next(running), next(running)  # a frame is saved when the next is asked for: until then it may be corrected
        (disk / "others").write_bytes(bytes(100 << 10))
        with pytest.raises(OSError, match=r"No space left on device: '.*frames\.avi'"):
            next(running)
        assert frames_in(disk / "frames.avi") == 1


@LINUX
@ROOT
@pytest.mark.host
def test_a_video_in_a_folder_of_somebody_else_is_refused_with_its_name(network, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    predictor = predictor_of(network, **saving(folder))
    with as_somebody_else(folder), pytest.raises(PermissionError, match=r"out/frames\.avi"):
        predictor(source=film(), bboxes=[BOX])


def test_a_video_without_an_encoder_is_refused_with_its_name(network, tmp_path, monkeypatch):
    closed = SimpleNamespace(write=lambda _: None, isOpened=lambda: False, release=lambda: None)
    monkeypatch.setattr(cv2, "VideoWriter", type("", (), {"__new__": lambda *_, **__: closed}))
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *_: 0)
    with pytest.raises(OSError, match=r"frames\.\w+ cannot be written: OpenCV has no encoder"):
        predictor_of(network, **saving(tmp_path / "out"))(source=film(), bboxes=[BOX])


@LINUX
@pytest.mark.host
def test_each_video_that_is_not_whole_is_named_at_the_end_of_the_run(network, tmp_path):
    for name, count in (("long", 16), ("other", 24), ("short", 8)):
        write_video(tmp_path / f"{name}.avi", (film() * 3)[:count])
    files = [str(tmp_path / f"{name}.avi") for name in ("long", "other", "short")]
    running = follow(network, files, saving(tmp_path / "out"), bboxes=[BOX])
    with no_file_longer_than(50 << 10), pytest.raises(OSError) as error:
        assert len(list(running)) == 48
    said = str(error.value)
    assert "long.avi is not whole: of 16 frames" in said and "other.avi is not whole: of 24 frames" in said
    assert "short.avi" not in said and frames_in(tmp_path / "out" / "short.avi") == 8


@pytest.mark.parametrize("left", [0, 2])
def test_a_video_that_another_program_takes_away_is_missed_at_the_end(network, tmp_path, left):
    running = follow(network, film(), saving(tmp_path / "out"), bboxes=[BOX])
    next(running), next(running)
    (saved,) = (tmp_path / "out").iterdir()
    saved.unlink()
    if left:
        write_video(saved, film()[:left])
    with pytest.raises(OSError, match="is not whole: of 8 frames"):
        list(running)


@LINUX
@pytest.mark.host
@pytest.mark.parametrize("how", [KeyboardInterrupt, None])
def test_a_run_that_is_broken_off_warns_of_a_video_that_is_not_whole(network, tmp_path, capture_log, how):
    running = follow(network, film() * 2, saving(tmp_path / "out"), bboxes=[BOX])
    with no_file_longer_than(30 << 10):
        for _ in range(12):
            next(running)
        if how is None:
            running.close()
        else:
            with pytest.raises(how):
                running.throw(how)
    assert [line for line in capture_log if "frames.avi is not whole: of 12 frames" in line]


def test_a_run_that_ends_with_an_error_says_nothing_else(network, tmp_path, capture_log):
    running = follow(network, film(), saving(tmp_path / "out"), bboxes=[BOX])
    next(running), next(running)
    (saved,) = (tmp_path / "out").iterdir()
    saved.unlink()
    with pytest.raises(RuntimeError, match="of the user"):
        running.throw(RuntimeError("of the user"))
    assert not [line for line in capture_log if "not whole" in line]


@pytest.mark.host
def test_a_run_that_is_broken_off_leaves_a_video_that_opens(network, tmp_path):
    running = follow(network, film(), saving(tmp_path / "out"), bboxes=[BOX])
    for _ in range(3):
        next(running)
    running.close()
    (saved,) = (tmp_path / "out").iterdir()
    assert drawings.is_complete(saved) and drawings.frames_in(saved) == frames_in(saved) == 3


def test_a_file_is_complete_that_ends_where_its_header_has_it(tmp_path):
    def complete(data):
        (tmp_path / "a.avi").write_bytes(data)
        return drawings.is_complete(tmp_path / "a.avi")

    part = lambda size, stated=None: b"RIFF" + (stated or size).to_bytes(4, "little") + bytes(size)  # noqa: E731
    assert complete(part(100)) and complete(part(100) + part(30)) and complete(b"no RIFF at all")
    assert not complete(part(100)[:-1]) and not complete(part(100) + part(30)[:-1])
    assert not complete(part(100, stated=2**32 - 1)) and not complete(part(100) + b"something")
    assert not drawings.is_complete(tmp_path / "none.avi")


def test_frames_are_counted_where_the_reader_only_estimates_them(tmp_path, monkeypatch):
    saved = write_video(tmp_path / "a.avi", film())

    class Reader:
        def __init__(self, path):
            self.inner = capture(path)

        def get(self, _):
            return 100

        def getBackendName(self):
            return "GSTREAMER"

        def __getattr__(self, name):
            return getattr(self.inner, name)

    capture = cv2.VideoCapture
    monkeypatch.setattr(drawings.cv2, "VideoCapture", Reader)
    assert drawings.frames_in(saved) == 8


# Images ---------------------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.host
def test_images_of_frames_that_do_not_fit_on_the_disk_are_an_error_with_their_name(network, tmp_path):
    running = follow(network, film(), saving(tmp_path / "out", save_frames=True), bboxes=[BOX])
    with small_disk(tmp_path / "out" / "frames_frames", "16k") as disk:
        with pytest.raises(OSError, match=r"No space left on device: '.*frames_frames/frames_\d\.jpg'"):
            list(running)
        saved = [path.read_bytes() for path in disk.iterdir()]
        assert saved and all(data.endswith(b"\xff\xd9") for data in saved)  # the end of a JPEG


@LINUX
@ROOT
def test_images_of_frames_in_a_folder_of_somebody_else_are_an_error_with_their_name(network, tmp_path):
    folder = tmp_path / "out" / "frames_frames"
    folder.mkdir(parents=True)
    predictor = predictor_of(network, **saving(tmp_path / "out", save_frames=True))
    with as_somebody_else(folder, folder.parent), pytest.raises(PermissionError, match="frames_frames/frames_0.jpg"):
        predictor(source=film(), bboxes=[BOX])
    assert not list(folder.iterdir())


@LINUX
@pytest.mark.host
def test_crops_that_do_not_fit_on_the_disk_are_an_error_with_their_name(network, tmp_path):
    running = follow(
        network, film(), saving(tmp_path / "out", save_txt=True, save_crop=True), bboxes=[BOX], keep_lost=True
    )
    with (
        small_disk(tmp_path / "out" / "crops", "4k"),
        pytest.raises(OSError, match=r"No space left on device: '.*crops/frames_\d"),
    ):
        list(running)


# Reports --------------------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.parametrize("name", ["benchmark.json", "benchmark.txt"])
def test_a_benchmark_on_a_full_disk_leaves_the_old_report(tmp_path, name):
    Report({"heading": "first"}).save(tmp_path)
    before = digest(tmp_path / name)
    long = Report({"heading": "second" * 100})
    other = "benchmark.txt" if name == "benchmark.json" else "benchmark.json"
    with no_file_longer_than(400), pytest.raises(OSError, match="benchmark"):
        long.save(tmp_path)
    assert digest(tmp_path / name) == before and (tmp_path / other).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.txt"}
