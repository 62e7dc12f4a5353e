"""Following objects through every kind of source, end to end."""

import http.server
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, alike, film, follow, predictor_of, write_video
from ultralytics.data.loaders import LoadScreenshots
from ultralytics.engine.results import Results

from samplug import SAM
from samplug.errors import PromptError, SourceError


@pytest.fixture(scope="module")
def frames():
    return film()


@pytest.fixture
def folder(frames, tmp_path):
    """Four frames as files whose names people and computers sort differently."""
    path = tmp_path / "shots"
    path.mkdir()
    for i, frame in enumerate(frames[:4]):
        cv2.imwrite(str(path / f"shot {i + 8}.png"), frame)
    return path


@contextmanager
def served(*films):
    """Films over HTTP as cameras do it, the first under /0; yields their addresses."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for frame in films[int(self.path[1:])]:
                jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_port}/{i}" for i in range(len(films))]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["video", "folder", "glob", "files", "generator", "tensor"])
def test_one_film_gives_one_answer_from_every_source(network, frames, folder, tmp_path, kind):
    few = frames[:4]
    source = {
        "video": lambda: str(write_video(tmp_path / "clip.avi", few)),
        "folder": lambda: folder,
        "glob": lambda: str(folder / "*.png"),
        "files": lambda: [str(folder / f"shot {i}.png") for i in (8, 9, 10, 11)],
        "generator": lambda: (frame for frame in few),
        "tensor": lambda: torch.from_numpy(np.stack(few)[..., ::-1].copy()).permute(0, 3, 1, 2) / 255,
    }[kind]()
    results = list(follow(network, source, bboxes=[BOX], obj_ids=[4]))
    assert [result.frame for result in results] == [0, 1, 2, 3]
    assert alike(results, follow(network, few, bboxes=[BOX], obj_ids=[4]))


def test_a_screen_is_followed(network, frames):
    class Screen(LoadScreenshots):
        def __init__(self):
            self.screen, self.left, self.top, self.width, self.height = 0, 0, 0, 128, 96
            self.mode, self.frame, self.bs, self.fps, self.cv2_flag = "stream", 0, 1, 30, cv2.IMREAD_COLOR
            self.monitor, self.sct = {}, self

        def grab(self, monitor):
            return np.dstack([frames[self.frame], np.full((96, 128), 255, np.uint8)])

    from ultralytics.data.loaders import SourceTypes

    screen = Screen()
    screen.source_type = SourceTypes(screenshot=True)
    for wrong in ({"reverse": True}, {"start": 3}):
        with pytest.raises(ValueError, match="came with a stream"):
            next(follow(network, screen, bboxes=[BOX], **wrong))
    running = follow(network, screen, bboxes=[BOX])
    results = [next(running) for _ in range(3)]
    running.close()
    assert alike(results, follow(network, frames[:3], bboxes=[BOX]))


def test_several_cameras_over_http_are_followed_side_by_side(network, frames, tmp_path):
    other = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    with served(frames, other) as addresses:
        (tmp_path / "two.streams").write_text("\n".join(addresses))
        worker = predictor_of(network, stream_buffer=True)
        prompts = [{"bboxes": [BOX], "obj_ids": [4]}, {0: {9: {"bboxes": OTHER}}}]
        running = worker(source=str(tmp_path / "two.streams"), stream=True, prompts=prompts)
        results = [next(running) for _ in range(6)]
        running.close()
    assert [(result.frame, result.obj_ids) for result in results[:4]] == [(0, (4,)), (0, (9,)), (1, (4,)), (1, (9,))]
    for i, obj_id, box in ((0, 4, BOX), (1, 9, OTHER)):
        seen = results[i::2]
        alone = follow(network, [result.orig_img for result in seen], bboxes=[box], obj_ids=[obj_id])
        assert alike(seen, alone)


def test_a_source_that_can_go_back_takes_prompts_for_earlier_frames_and_a_stream_refuses(network, frames, folder):
    for source, goes_back in ((folder, True), (iter(frames[:4]), False)):
        worker = predictor_of(network)
        for result in worker(source=source, stream=True, bboxes=[BOX], obj_ids=[4]):
            if result.frame == 2 and goes_back:
                worker.add_new_prompts(9, bboxes=OTHER, frame_idx=1)
            elif result.frame == 2:
                with pytest.raises(ValueError, match="frame 1 has passed, and this source cannot seek back"):
                    worker.add_new_prompts(9, bboxes=OTHER, frame_idx=1)
        assert result.obj_ids == ((4, 9) if goes_back else (4,))


def test_what_yolo_found_on_the_first_frame_is_followed(network, frames):
    data = torch.tensor([[*BOX, 0.9, 2.0], [*OTHER, 0.8, 0.0]])
    found = Results(frames[0], path="a.png", names={0: "person", 2: "car"}, boxes=data)
    for result in follow(network, frames[:2], prompts=found):
        assert result.obj_ids == (0, 1) and result.boxes.cls.tolist() == [2, 0] and result.names[2] == "car"


def test_every_video_of_a_folder_is_saved_by_itself_with_ids(nano_file, frames, tmp_path):
    for name, part in (("a", frames[:2]), ("b", frames[3:6])):
        write_video(tmp_path / f"{name}.avi", part)
    prompts = {"a.avi": {"bboxes": [BOX], "obj_ids": [4]}, "b.avi": {1: {9: {"bboxes": OTHER}}}}
    said = {"save": True, "save_txt": True, "project": str(tmp_path), "name": "out", "imgsz": 128}
    list(SAM(nano_file).track(str(tmp_path), stream=True, prompts=prompts, **said))
    saved = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file())
    assert [name[0] for name in saved] == ["a", "b"]
    for name, count in zip(saved, (2, 3), strict=True):
        capture = cv2.VideoCapture(str(tmp_path / "out" / name))
        assert [capture.grab() for _ in range(count + 1)] == [True] * count + [False]
    ids = {path.stem: path.read_text().split()[-1] for path in (tmp_path / "out/labels").iterdir()}
    assert ids["a_0"] == "4" and ids["b_1"] == "9" and "b_0" not in ids


def test_results_are_shown_in_a_window(network, frames, monkeypatch):
    import ultralytics.engine.predictor as engine

    shown = []
    monkeypatch.setattr(engine, "check_imshow", lambda warn=False: True)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image))
    for name in ("namedWindow", "resizeWindow", "waitKey", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: -1)
    list(follow(network, frames[:2], {"show": True}, bboxes=[BOX]))
    assert len(shown) == 2 and all(image.shape == (96, 128, 3) for image in shown)


def test_prompts_for_a_video_that_is_not_there_and_a_start_behind_the_end_are_refused(network, frames, tmp_path):
    write_video(tmp_path / "a.avi", frames[:2])
    write_video(tmp_path / "b.avi", frames[:2])
    with pytest.raises(PromptError, match="'c.avi' is none of the source's files"):
        next(follow(network, tmp_path, prompts={"a.avi": {"bboxes": [BOX]}, "c.avi": {"bboxes": [BOX]}}))
    for said, overrides in (({"start": 5}, {}), ({}, {"vid_stride": 6})):
        with pytest.raises(OSError, match="frame 5 .* is past the end"):
            list(follow(network, tmp_path / "a.avi", overrides, bboxes=[BOX], **said))


@pytest.mark.parametrize("reverse", [True, "both"])
def test_frames_that_come_once_are_refused_backwards_before_any_is_run(network, frames, reverse):
    asked = []
    with pytest.raises(ValueError, match="cannot be read backwards"):
        list(follow(network, (asked.append(1) or frame for frame in frames), bboxes=[BOX], reverse=reverse))
    assert not asked


@pytest.mark.parametrize("reverse", [False, True, "both"])
@pytest.mark.parametrize("kind", ["file", "list"])
def test_a_start_behind_the_end_is_refused_in_every_direction(network, frames, tmp_path, reverse, kind):
    source = write_video(tmp_path / "a.avi", frames[:3]) if kind == "file" else frames[:3]
    for start in (3, 99):
        with pytest.raises(SourceError, match=f"frame {start} .* is past the end"):
            list(follow(network, source, bboxes=[BOX], start=start, reverse=reverse))
    last = [result.frame for result in follow(network, source, bboxes=[BOX], start=2, reverse=reverse, keep_lost=True)]
    assert last == {False: [2], True: [2, 1, 0], "both": [0, 1, 2]}[reverse]
