"""Prompts of several images: each gets its own."""

import json

import numpy as np
import pytest
import torch
from support.prompts import MASK, SHAPE, XYXYS, per_image, read, results, same, yolo_boxes

from samplug.errors import PromptError
from samplug.prompts.objects import Prompts
from samplug.prompts.per_image import ImagePrompts, depth
from samplug.prompts.raw import RawPrompts

FILES = ["one/a.jpg", "one/b.jpg", "two/c.jpg"]
PER_IMAGE = [
    ("the same for all", {"bboxes": XYXYS}, [2, 2, 2]),
    ("lists of boxes", {"bboxes": [XYXYS, [], [XYXYS[0]]]}, [2, 0, 1]),
    ("boxes or None", {"bboxes": [XYXYS, None, [XYXYS[0]]]}, [2, None, 1]),
    ("one box each or None", {"bboxes": [XYXYS[0], None, XYXYS[1]]}, [1, None, 1]),
    ("arrays of boxes", {"bboxes": [np.array(XYXYS), None, torch.tensor(XYXYS)]}, [2, None, 2]),
    ("boxes of Ultralytics", {"bboxes": [yolo_boxes(), yolo_boxes([]), yolo_boxes(XYXYS[:1])]}, [2, 0, 1]),
    ("an array (F, N, 4)", {"bboxes": np.array([XYXYS] * 3)}, [2, 2, 2]),
    ("points (F, N, P, 2)", {"points": [[[[3, 4]]], [[[3, 4]], [[5, 6], [7, 8]]], None]}, [1, 2, None]),
    ("points with labels", {"points": [[[[3, 4], [5, 6]]], [[[3, 4]]], []], "labels": [[[1, 0]], None, []]}, [1, 1, 0]),
    ("boxes with points", {"bboxes": [XYXYS, None, None], "points": [[[3, 4], [5, 6]], None, [3, 4]]}, [2, None, 1]),
    (
        "boxes with classes",
        {"bboxes": [XYXYS, None, [XYXYS[0]]], "cls": [[5, 6], None, 7], "names": ["x"]},
        [2, None, 1],
    ),
    ("boxes with one class", {"bboxes": [XYXYS, None, [XYXYS[0]]], "cls": torch.tensor(7)}, [2, None, 1]),
    ("masks", {"masks": [np.stack([MASK, ~MASK]), None, [MASK]]}, [2, None, 1]),
    ("dicts and None", {"prompts": [{"bboxes": XYXYS}, None, {"points": [3, 4]}]}, [2, None, 1]),
    ("results", {"prompts": [results(boxes=yolo_boxes().data)] * 3}, [2, 2, 2]),
    ("by name and path", {"prompts": {"a.jpg": {"bboxes": XYXYS}, "two/c.jpg": {"points": [3, 4]}}}, [2, 0, 1]),
    ("a dict that nests", {"prompts": {"bboxes": [XYXYS, None, [XYXYS[0]]]}}, [2, None, 1]),
    ("images of masks for all", {"masks": [np.stack([MASK, MASK, MASK], -1)] * 3}, [3, 3, 3]),
    ("images of masks for each", {"masks": [[np.stack([MASK] * 3, -1)] * count for count in (2, 1, 3)]}, [2, 1, 3]),
    ("a click for each, in one array", {"points": np.full((3, 1, 1, 2), 5)}, [1, 1, 1]),
    ("logits (N, 1, h, w) for all", {"masks": np.zeros((2, 1, 8, 8)) - 3.0}, [2, 2, 2]),
    ("nothing", {}, [None, None, None]),
]


@pytest.mark.parametrize(("spellings", "counts"), [p[1:] for p in PER_IMAGE], ids=[p[0] for p in PER_IMAGE])
def test_each_image_of_a_batch_gets_its_own_prompts(spellings, counts):
    images = per_image(3, FILES, [SHAPE] * 3, **spellings)
    assert [len(p) if p.given else None for p in images] == counts


def test_entries_per_image_read_as_single_calls_would():
    boxes, classes = [XYXYS, [XYXYS[1]]], [[5, 6], [7]]
    for own, box, cls in zip(per_image(2, FILES[:2], bboxes=boxes, cls=classes), boxes, classes, strict=True):
        single = Prompts.read(bboxes=box, cls=cls)
        assert same(read(own), read(single))
        assert own.cls == single.cls


@pytest.mark.parametrize(
    ("argument", "words", "spellings"),
    [
        ("bboxes", "2 entries for 3 images", {"bboxes": [XYXYS, XYXYS]}),
        ("prompts", "1 entries for 3 images", {"prompts": [{"bboxes": XYXYS}]}),
        ("labels", "1 entries for 3 images", {"points": [[[[3, 4]]]] * 3, "labels": [[1]]}),
        ("prompts", "'d.jpg' is none of the source's files", {"prompts": {"d.jpg": {"bboxes": XYXYS}}}),
        ("prompts", "did you mean 'bboxes'", {"prompts": {"boxes": XYXYS}}),
        ("masks", "beside prompts that differ", {"bboxes": [XYXYS, XYXYS, XYXYS], "masks": "mask.png"}),
    ],
)
def test_entries_that_do_not_fit_the_images_are_refused(argument, words, spellings):
    with pytest.raises(PromptError, match=argument) as caught:
        per_image(3, FILES, **spellings)
    assert words in str(caught.value)


def test_a_misspelt_argument_is_an_error_and_not_swallowed():
    with pytest.raises(TypeError, match="boxes"):
        per_image(1, FILES[:1], boxes=XYXYS)


def test_a_run_of_unknown_length_takes_its_entries_in_turn_and_says_when_they_end():
    schedule = ImagePrompts(RawPrompts(bboxes=[XYXYS, [XYXYS[0]]]))
    assert [len(schedule.for_image(i)) for i in range(2)] == [2, 1]
    with pytest.raises(PromptError, match="2 entries, and this is image 3"):
        schedule.for_image(2)


def test_a_single_result_holds_for_a_run_of_unknown_length():
    schedule = ImagePrompts(RawPrompts(prompts=[results(boxes=yolo_boxes().data)]))
    assert [len(schedule.for_image(i)) for i in range(3)] == [2, 2, 2]


def test_prompts_by_file_are_read_from_json(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"a.jpg": {"bboxes": XYXYS}, "b.jpg": {"points": [[3, 4]]}}))
    assert [len(p) for p in per_image(2, FILES[:2], prompts=path)] == [2, 1]


def test_depth_counts_lists_and_dimensions_together():
    assert depth([np.zeros((2, 4)), None]) == 3
    assert depth([[1, 2], [[3, 4], [5, 6]]]) == 3
    assert depth([]) == 1
