"""`samplug pick`, without a screen: strokes to prompts, prompts to a command, and a whole conversation."""

import shlex

import cv2
import numpy as np
import pytest

from samplug import cli
from samplug.predict import pick as picking
from samplug.predict.pick import Box, Click, Gesture, NextObject, Sketch, WindowError, command, overlay
from samplug.prompts import PromptError, Prompts

DOWN, UP, RIGHT = cv2.EVENT_LBUTTONDOWN, cv2.EVENT_LBUTTONUP, cv2.EVENT_RBUTTONUP
ON, OFF, BOX, NEXT = Click(5, 6, 1), Click(7, 8, 0), Box(1, 2, 30, 40), NextObject()


@pytest.mark.parametrize(
    ("strokes", "prompts"),
    [
        ([], {}),
        ([ON], {"points": [[5, 6]]}),
        ([ON, NEXT, ON], {"points": [[5, 6], [5, 6]]}),
        ([ON, OFF], {"points": [[[5, 6], [7, 8]]], "labels": [[1, 0]]}),
        ([ON, NEXT, OFF], {"points": [[5, 6], [7, 8]], "labels": [1, 0]}),
        ([ON, ON, NEXT, ON], {"points": [[[5, 6], [5, 6]], [[5, 6]]]}),
        ([BOX], {"bboxes": [[1, 2, 30, 40]]}),
        ([Box(9, 9, 20, 20), BOX], {"bboxes": [[1, 2, 30, 40]]}),
        ([BOX, ON], {"points": [[5, 6]], "bboxes": [[1, 2, 30, 40]]}),
        ([BOX, NEXT, ON], {"points": [[], [[5, 6]]], "bboxes": [[1, 2, 30, 40], None]}),
        (
            [BOX, NEXT, ON, OFF],
            {"points": [[], [[5, 6], [7, 8]]], "labels": [[], [1, 0]], "bboxes": [[1, 2, 30, 40], None]},
        ),
        ([NEXT, NEXT, ON, NEXT], {"points": [[5, 6]]}),
    ],
)
def test_strokes_become_the_prompts_of_their_objects(strokes, prompts):
    sketch = Sketch(strokes)
    assert sketch.prompts() == prompts
    read = Prompts.read(**prompts, shape=(50, 50))
    assert len(read) == len(sketch.objects)
    for strokes, prompt in zip(sketch.objects, read.objects, strict=True):
        clicks = [stroke for stroke in strokes if isinstance(stroke, Click)]
        assert prompt.points.tolist() == [[click.x, click.y] for click in clicks]
        assert prompt.labels.tolist() == [click.label for click in clicks]
        assert (prompt.box is not None) == any(isinstance(stroke, Box) for stroke in strokes)


def test_keys_start_an_object_undo_and_clear():
    sketch = Sketch([ON])
    sketch.press("n")
    sketch.press("x")
    assert sketch.strokes == [ON, NEXT]
    sketch.press("u")
    assert sketch.strokes == [ON]
    sketch.press("c")
    sketch.press("u")
    assert sketch.strokes == []


def test_the_mouse_means_clicks_and_boxes_in_pixels_of_the_picture():
    mouse = Gesture(scale=0.5, shape=(400, 600))
    assert mouse.feed(DOWN, 10, 20, 0) is None and mouse.feed(UP, 12, 21, 0) == Click(24, 42, 1)
    assert mouse.feed(RIGHT, 10, 20, 0) == Click(20, 40, 0)
    mouse.feed(DOWN, 10, 20, 0)
    assert mouse.feed(UP, 10, 20, cv2.EVENT_FLAG_SHIFTKEY) == Click(20, 40, 0)
    mouse.feed(DOWN, 100, 120, 0)
    assert mouse.feed(cv2.EVENT_MOUSEMOVE, 50, 50, 0) is None
    assert mouse.feed(UP, 10, 20, 0) == Box(20, 40, 200, 240)
    assert mouse.feed(UP, 10, 20, 0) is None


def test_a_mouse_that_leaves_the_window_stays_in_the_picture():
    mouse = Gesture(scale=0.5, shape=(400, 600))
    mouse.feed(DOWN, 100, 100, 0)
    assert mouse.feed(UP, 900, -7, 0) == Box(200, 0, 599, 200)


@pytest.mark.parametrize("source", ["bus.jpg", "my pictures/a 'b'.jpg", 'a"b".jpg', "$HOME.jpg"])
def test_the_command_is_read_back_as_what_was_drawn(source):
    prompts = Sketch([BOX, NEXT, ON, OFF]).prompts()
    line = command({"source": source, "imgsz": (480, 640), "model": "sam_b.pt"}, prompts)
    words = shlex.split(line)
    assert words[0] == "samplug"
    mode, settings = cli.read(cli.merge(words[1:]))
    assert (mode, settings) == ("predict", {"source": source, "imgsz": (480, 640), "model": "sam_b.pt", **prompts})


def test_masks_and_strokes_are_drawn_where_they_are():
    picture = np.full((50, 100, 3), 100, np.uint8)
    mask = np.zeros((1, 100, 200), bool)
    mask[0, :50, :100] = True
    shown = overlay(picture, mask, Sketch([Click(150, 80, 1)]), 0.5)
    changed = (shown != picture).any(2)
    assert changed[:25, :50].all() and not changed[:25, 52:].any()
    assert changed[40, 75] and not changed[26:34].any()
    assert (picture == 100).all()


def test_without_a_screen_it_says_what_to_do(monkeypatch, tmp_path, pictures):
    cv2.imwrite(str(tmp_path / "a.png"), pictures[0])
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(cli.Refusal, match="no screen"):
        cli.samplug(["pick", f"source={tmp_path}/a.png"])


def test_without_windows_in_opencv_it_says_what_to_do(monkeypatch):
    def refuse(*_):
        raise cv2.error("The function is not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(WindowError, match="opencv-python-headless"):
        picking.open_window()


@pytest.mark.parametrize("source", [None, "none.png", ".", "*.png"])
def test_only_one_picture_is_taken(source):
    with pytest.raises(PromptError, match="source: got"):
        picking.pick({"source": source})


@pytest.fixture
def screen(monkeypatch):
    """A window played by a script: mouse events and keys in turn, with what was shown after each."""
    shown, script, mouse = [], [], []

    def wait(_):
        event = script.pop(0)
        if isinstance(event, str):
            return ord(event)
        mouse[0](*event, 0, None)
        return -1

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "setMouseCallback", lambda _, callback: mouse.append(callback))
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", wait)
    return script, shown


def test_a_conversation_shows_masks_and_ends_in_the_command(screen, nano_file, tmp_path, pictures, capsys):
    script, shown = screen
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), pictures[0])
    script += [(DOWN, 60, 80), (UP, 60, 80), "n", (DOWN, 100, 60), (UP, 200, 200), "u", "q"]
    cli.samplug(["pick", f"source={source}", f"model={nano_file}"])
    assert len(shown) == 5  # at the start, and after each stroke and key that changed the sketch
    assert (shown[0] == pictures[0]).all() and (shown[1] != shown[0]).any()
    assert (shown[-1] == shown[1]).all() and (shown[3] != shown[1]).any()
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f'samplug predict source={source} model={nano_file} points="[[60, 80]]"'
    )
