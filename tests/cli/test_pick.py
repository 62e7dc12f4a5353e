"""`samplug pick`, without a screen: strokes to prompts, prompts to a command, and whole conversations."""

import json
import shlex

import cv2
import pytest
import torch
from support.videos import film, write_video

from samplug import SAM, SAM2VideoPredictor
from samplug.cli import main
from samplug.cli import pick as picking
from samplug.cli.parse import merge, read
from samplug.cli.pick import frames_of
from samplug.cli.session import Frames, Session
from samplug.cli.sketch import Box, Click, Sketch
from samplug.errors import PromptError, WindowError
from samplug.predict.image import Predictor

DOWN, UP, RIGHT, MOVE = cv2.EVENT_LBUTTONDOWN, cv2.EVENT_LBUTTONUP, cv2.EVENT_RBUTTONUP, cv2.EVENT_MOUSEMOVE
ON, OFF, BOX, NEXT = Click(5, 6, 1), Click(7, 8, 0), Box(1, 2, 30, 40), "n"


def test_without_a_screen_it_says_what_to_do(monkeypatch, tmp_path, images):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(main.UsageError, match="no screen"):
        main.samplug(["pick", f"source={tmp_path}/a.png"])


def test_without_windows_in_opencv_it_says_what_to_do(monkeypatch):
    def refuse(*_):
        raise cv2.error("The function is not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(WindowError, match="opencv-python-headless"):
        picking.open_window()


@pytest.mark.parametrize("source", [None, "none.png", "empty", "empty/*.png", 3])
def test_a_source_without_images_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PromptError, match="source: got"):
        picking.pick({"source": source})


@pytest.fixture
def folder(tmp_path, images):
    """A folder of three images."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), image)
    return tmp_path / "images"


def test_images_are_drawn_on_one_by_one_and_a_folder_becomes_a_video_by_track(folder):
    assert frames_of(str(folder), False).length == 3 and frames_of(str(folder), False).video is None
    assert frames_of(str(folder), True).video.length == 3
    assert frames_of(str(folder / "1.png"), False).length == 1
    clip = write_video(folder / "a.avi", film())
    assert frames_of(str(clip), False).length == 8
    with pytest.raises(PromptError, match="2 videos"):
        frames_of(str(folder), False)


def test_frames_of_a_video_are_read_in_any_order_and_on_without_a_new_start(tmp_path):
    frames = frames_of(str(write_video(tmp_path / "a.avi", film())), False)
    opened, forward = [], frames.video.forward
    frames.video.forward = lambda start: opened.append(start) or forward(start)
    for number in (0, 1, 2, 6, 7, 3, 4):
        assert (frames.source(number) == film()[number]).all()
    assert opened == [0, 6, 3] and frames.source(8) is None


# Conversations


def session_of(network, frames, moving=False, path=""):
    predictor = Predictor(overrides={"imgsz": 64, "save": False, "verbose": False})
    predictor.setup_model(network, verbose=False)
    follower = None
    if moving:
        follower = SAM2VideoPredictor(overrides={"imgsz": 64, "save": False, "verbose": False})
        follower.setup_model(network, verbose=False)
    return Session(frames, predictor, follower, path, Sketch(moving=moving))


def click(session, x, y):
    session.mouse(DOWN, x, y, 0)
    session.mouse(UP, x, y, 0)


def test_an_image_is_shown_again_only_where_something_changed(network, folder):
    session = session_of(network, Frames(images=[str(folder / "0.png")]))
    assert session.view() is not None and session.view() is None
    session.key(255)  # no key
    session.mouse(MOVE, 5, 5, 0)
    assert session.view() is None
    answers = []
    predictor = session.predictor
    session.predictor = lambda **prompts: answers.append(prompts) or predictor(**prompts)
    session.predictor.batch = predictor.batch
    click(session, 60, 80)
    assert session.view() is not None
    session.mouse(DOWN, 100, 60, 0)
    for x in (120, 140):
        session.mouse(MOVE, x, 90, 0)
        assert session.view() is not None
    assert answers == [{"points": [[60, 80]]}]  # while a box is drawn, nothing is asked
    session.key(ord("q"))
    assert session.done


def test_images_of_a_folder_are_turned_over_each_with_its_own_objects(network, folder):
    session = session_of(network, frames_of(str(folder), False))
    for number in range(3):
        height, width = cv2.imread(str(folder / f"{number}.png")).shape[:2]
        shown = session.view()
        assert shown.shape[1] == width and shown.shape[0] > height
        click(session, 20, 30 + number)
        session.key(ord("n"))
        session.key(ord("."))
    assert session.sketch.frame == 2 and session.sketch.frames == [0, 1, 2]  # and no further
    session.seek(0)
    assert session.sketch.obj == 0
    session.key(ord(","))
    assert session.sketch.frame == 0


@pytest.fixture
def watched(network, tmp_path):
    """A conversation about a video of eight frames, and the video."""
    path = write_video(tmp_path / "clip.avi", film())
    return session_of(network, frames_of(str(path), False), True, str(path)), path


def played(session):
    """The frames that are shown until it stops by itself."""
    shown = []
    while session.playing and len(shown) < 99:
        session.view()
        shown.append(session.sketch.frame)
    return shown


def test_objects_are_seen_followed_with_the_masks_of_a_run(watched, nano_file):
    session, path = watched
    session.seek(2)
    session.view()
    session.mouse(DOWN, 30, 20, 0)
    session.mouse(UP, 70, 60, 0)
    session.key(ord("n"))
    click(session, 100, 60)
    session.key(ord(" "))
    assert played(session)[:6] == [2, 3, 4, 5, 6, 7] and not session.playing
    honest = SAM(nano_file).track(str(path), prompts=session.sketch.by_frame(), start=2, imgsz=64, verbose=False)
    for result in honest:
        session.seek(result.frame)
        session.view()
        found = session._found([])
        assert torch.equal(found.masks.unpack(), result.masks.data) and found.objects == list(result.obj_ids)
        assert found.scores == result.boxes.conf.tolist()


def test_a_new_stroke_stops_the_following_and_begins_it_anew(watched):
    session, _ = watched
    session.view()
    click(session, 50, 40)
    session.key(ord(" "))
    for _ in range(3):
        session.view()
    session.key(ord(" "))  # a pause
    assert session.view() is not None and session.sketch.frame == 2 and not session.playing
    click(session, 20, 20)
    assert not session._followed and session._run is None
    session.key(ord(" "))
    session.view()
    assert session.sketch.frame == 0


def test_without_strokes_or_memory_frames_pass_by(watched, nano_file):
    session, _ = watched
    session.view()
    session.key(ord(" "))
    assert played(session) == list(range(1, 8))
    session.follower = None
    session.seek(0)
    click(session, 50, 40)
    session.key(ord(" "))
    assert played(session) == list(range(1, 8))
    assert "has no memory" in session._lines()[0]


def test_a_header_that_claims_too_many_frames_ends_at_the_last(watched):
    session, _ = watched
    session.frames.video.stated = 50
    session.view()
    session.seek(7)
    session.view()
    session.key(ord("."))
    assert session.view() is None and session.sketch.frame == 7


# The window


@pytest.fixture
def screen(monkeypatch):
    """A window played by a script: mouse events and keys in turn, with what was shown after each."""
    shown, script, mouse, bars = [], [], [], []

    def wait(_):
        event = script.pop(0)
        if isinstance(event, str):
            return ord(event)
        if isinstance(event, int):
            bars[0](event)
        else:
            mouse[0](*event, 0, None)
        return -1

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "setMouseCallback", lambda _, callback: mouse.append(callback))
    monkeypatch.setattr(cv2, "createTrackbar", lambda *given: bars.append(given[-1]))
    monkeypatch.setattr(cv2, "setTrackbarPos", lambda _, __, number: bars[0](number))
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", wait)
    return script, shown


def test_a_conversation_shows_masks_and_ends_in_the_command(screen, nano_file, tmp_path, images, capsys):
    script, shown = screen
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), images[0])
    height = len(images[0])
    script += [(DOWN, 60, 80), (UP, 60, 80), "n", (DOWN, 100, 60), (UP, 200, 200), "u", "q"]
    main.samplug(["pick", f"source={source}", f"model={nano_file}"])
    assert len(shown) == 5  # at the start, and after each stroke and key that changed the sketch
    assert (shown[0][:height] == images[0]).all() and (shown[1] != shown[0])[:height].any()
    assert (shown[-1][:height] == shown[1][:height]).all() and (shown[3] != shown[1])[:height].any()
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f'samplug predict source={source} model={nano_file} points="[[60, 80]]"'
    )


@pytest.mark.parametrize("kind", ["video", "folder", "folder as a video"])
def test_prompts_of_many_frames_go_into_a_file_whose_command_repeats_them(
    screen, nano_file, folder, monkeypatch, capsys, kind
):
    script, _ = screen
    monkeypatch.chdir(folder.parent)
    (folder.parent / "prompts.json").write_text("{}")  # of an earlier time
    source = write_video(folder.parent / "clip.avi", film()) if kind == "video" else folder
    script += [(DOWN, 30, 20), (UP, 70, 60), 2, "n", (DOWN, 50, 40), (UP, 50, 40), "q"]
    words = [f"source={source}", f"model={nano_file}", "imgsz=64"]
    main.samplug(["pick", *words, *(["track=True"] if "as" in kind else [])])
    mode = "predict" if kind == "folder" else "track"
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == " ".join([f"samplug {mode}", *words, "prompts=prompts-2.json"])
    written = json.loads((folder.parent / "prompts-2.json").read_text())
    keys = ["0.png", "2.png"] if kind == "folder" else ["0", "2"]
    assert list(written) == keys and (folder.parent / "prompts.json").read_text() == "{}"
    results = getattr(SAM(nano_file), mode)(
        str(source), prompts="prompts-2.json", imgsz=64, keep_lost=True, verbose=False
    )
    counts = [1, 0, 1] if kind == "folder" else [1, 1, 2]
    assert [len(result) for result in results][:3] == counts


def test_what_was_drawn_is_printed_also_after_an_error(screen, nano_file, tmp_path, images, capsys, monkeypatch):
    script, _ = screen
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    script += [(DOWN, 60, 80), (UP, 60, 80)]  # and then the script is at its end
    with pytest.raises(IndexError):
        picking.pick({"source": str(tmp_path / "a.png"), "model": str(nano_file)})
    assert 'points="[[60, 80]]"' in capsys.readouterr().out


def test_where_prompts_cannot_be_written_they_stand_in_the_command(screen, nano_file, folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "prompts.json")

    script, _ = screen
    monkeypatch.setattr(picking, "atomic_write", full)
    script += [(DOWN, 60, 80), (UP, 60, 80), "q"]
    main.samplug(["pick", f"source={folder}", f"model={nano_file}", "imgsz=64"])
    told = capsys.readouterr()
    assert "No space left on device" in told.err
    _, options = read(merge(shlex.split(told.out.splitlines()[-1])[2:]))
    (result, *others) = SAM(nano_file).predict(**options, verbose=False)
    assert len(result) == 1 and all(len(other) == 0 for other in others)
