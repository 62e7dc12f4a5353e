"""What is drawn in `pick` becomes prompts, and is shown: no window, no network."""

import shlex

import cv2
import numpy as np
import pytest
import torch

from samplug.cli import main
from samplug.cli.canvas import LINE, Found, overlay, with_band, with_text
from samplug.cli.pick import command
from samplug.cli.sketch import Box, Click, Gesture, Sketch
from samplug.masks.packed import PackedMasks
from samplug.prompts.objects import Prompts

DOWN, UP, RIGHT, MOVE = cv2.EVENT_LBUTTONDOWN, cv2.EVENT_LBUTTONUP, cv2.EVENT_RBUTTONUP, cv2.EVENT_MOUSEMOVE
ON, OFF, BOX, NEXT = Click(5, 6, 1), Click(7, 8, 0), Box(1, 2, 30, 40), "n"


def sketch_of(strokes, **options):
    """A sketch of strokes, and of keys between them."""
    sketch = Sketch(**options)
    for stroke in strokes:
        sketch.press(stroke) if isinstance(stroke, str) else sketch.add(stroke)
    return sketch


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
        ([ON, NEXT, ON, "0", OFF], {"points": [[[5, 6], [7, 8]], [[5, 6]]], "labels": [[1, 0], [1]]}),
    ],
)
def test_strokes_become_the_prompts_of_their_objects(strokes, prompts):
    sketch = sketch_of(strokes)
    assert sketch.prompts() == prompts
    read = Prompts.read(**prompts, shape=(50, 50))
    assert len(read) == len(sketch.objects())
    for strokes, prompt in zip(sketch.objects().values(), read.objects, strict=True):
        clicks = [stroke for stroke in strokes if isinstance(stroke, Click)]
        assert prompt.points.tolist() == [[click.x, click.y] for click in clicks]
        assert prompt.labels.tolist() == [click.label for click in clicks]
        assert (prompt.box is not None) == any(isinstance(stroke, Box) for stroke in strokes)


def test_keys_start_an_object_undo_and_clear():
    sketch = sketch_of([ON, "n", "x"])
    assert sketch.strokes == [ON] and sketch.obj == 1
    sketch.add(OFF)
    assert [stroke.obj for stroke in sketch.strokes] == [0, 1]
    for key, left, obj in (("u", 1, 1), ("u", 0, 0), ("u", 0, 0)):
        sketch.press(key)
        assert (len(sketch.strokes), sketch.obj) == (left, obj)
    sketch = sketch_of([ON, "n", ON])
    sketch.frame = 3
    sketch.add(OFF)
    sketch.press("c")
    assert [stroke.frame for stroke in sketch.strokes] == [0, 0] and sketch.obj == 0


def test_objects_of_a_video_go_on_from_frame_to_frame_and_those_of_images_do_not():
    for moving, obj in ((True, 2), (False, 0)):
        sketch = sketch_of([ON, "n", BOX], moving=moving)
        sketch.frame = 7
        sketch.press("n")
        assert sketch.obj == obj
    sketch = sketch_of([ON, "n", BOX], moving=True)
    sketch.frame = 7
    sketch.press("0")
    sketch.add(OFF)
    assert sketch.by_frame() == {
        0: {0: {"points": [[5, 6]], "labels": [1]}, 1: {"bboxes": [1, 2, 30, 40]}},
        7: {0: {"points": [[7, 8]], "labels": [0]}},
    }
    sketch.frame = 2
    sketch.press("u")
    assert sketch.frame == 7 and sketch.frames == [0]  # what is undone is shown


def test_the_mouse_means_clicks_and_boxes_in_pixels_of_the_image():
    mouse = Gesture(scale=0.5, shape=(400, 600))
    assert mouse.feed(DOWN, 10, 20, 0) is None and mouse.feed(UP, 12, 21, 0) == Click(24, 42, 1)
    assert mouse.feed(RIGHT, 10, 20, 0) == Click(20, 40, 0)
    mouse.feed(DOWN, 10, 20, 0)
    assert mouse.feed(UP, 10, 20, cv2.EVENT_FLAG_SHIFTKEY) == Click(20, 40, 0)
    mouse.feed(DOWN, 100, 120, 0)
    assert mouse.feed(MOVE, 50, 50, 0) is None and mouse.band == (100, 120, 50, 50)
    assert mouse.feed(UP, 10, 20, 0) == Box(20, 40, 200, 240) and mouse.band is None
    assert mouse.feed(MOVE, 50, 50, 0) is None and mouse.band is None
    assert mouse.feed(UP, 10, 20, 0) is None


def test_a_mouse_that_leaves_the_window_stays_in_the_image():
    mouse = Gesture(scale=0.5, shape=(400, 600))
    mouse.feed(DOWN, 100, 100, 0)
    assert mouse.feed(UP, 900, -7, 0) == Box(200, 0, 599, 200)


@pytest.mark.parametrize("source", ["bus.jpg", "my pictures/a 'b'.jpg", 'a"b".jpg', "$HOME.jpg"])
def test_the_command_is_read_back_as_what_was_drawn(source):
    prompts = sketch_of([BOX, NEXT, ON, OFF]).prompts()
    line = command("predict", {"source": source, "imgsz": (480, 640), "model": "sam_b.pt", **prompts})
    words = shlex.split(line)
    assert words[0] == "samplug"
    mode, settings = main.read(main.merge(words[1:]))
    assert (mode, settings) == ("predict", {"source": source, "imgsz": (480, 640), "model": "sam_b.pt", **prompts})


def found_of(mask, score=0.87):
    return Found(PackedMasks.pack(torch.from_numpy(mask[None])), [4], [score])


def test_masks_strokes_and_scores_are_drawn_where_they_are():
    image = np.full((50, 100, 3), 100, np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[60:, :80] = True
    shown = overlay(image, found_of(mask), [Click(150, 80, 1)], 0.5)
    changed = (shown != image).any(2)
    assert changed[32:, :40].all() and not changed[32:, 42:66].any()
    assert changed[40, 75] and (image == 100).all()
    text = changed[: 30 - 1, :70]
    assert text[20:].any() and not text[:10].any()  # the score, above the mask
    other = overlay(image, found_of(mask, 0.12), [Click(150, 80, 1)], 0.5)
    assert (shown != other).any() and (shown[32:] == other[32:]).all()


def test_the_box_that_is_being_drawn_and_the_keys_are_shown():
    image = np.zeros((60, 200, 3), np.uint8)
    changed = (with_band(image, (20, 10, 90, 40), 0) != image).any(2)
    assert changed[10, 20:91].all() and changed[10:41, 90].all() and not changed[12:39, 22:89].any()
    shown = with_text(image, ["one two three", "n next object"])
    assert (shown[:60] == image).all() and shown.shape == (60 + 2 * LINE + 6, 200, 3) and (shown[60:] > 100).any()
    assert with_text(image, ["many words " * 9]).shape[0] > 60 + 4 * LINE
