"""Every spelling of prompts reads as the same objects; every wrong one is refused by name; batches restore order."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.engine.results import Boxes, Masks, Results

from samplug.prompt_schedule import depth
from samplug.prompts import PictureSchedule, PromptError, Prompts, View, batches_of, per_picture
from samplug.rle import rle_encode

SHAPE = (48, 64)  # a picture 64 wide and 48 high
MASK = np.zeros(SHAPE, bool)
MASK[10:20, 5:30] = True
NONE = ([], [], None, None)


def click(*points, labels=None, box=None, mask=None):
    """What one object should read as: points, labels, box, mask."""
    return [list(map(float, p)) for p in points], labels or [1] * len(points), box, mask


def read(prompts):
    """What was read, as plain values in the form of `click`."""
    return [
        (
            o.points.tolist(),
            o.labels.tolist(),
            None if o.box is None else o.box.tolist(),
            None if o.mask is None else (o.mask > 0).numpy(),
        )
        for o in prompts.objects
    ]


def same(left, right):
    masks = [(a[3], b[3]) for a, b in zip(left, right, strict=True)]
    return [a[:3] for a in left] == [b[:3] for b in right] and all(
        (a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in masks
    )


ONE, TWO, PAIR = [click((3, 4))], [click((3, 4)), click((5, 6))], [click((3, 4), (5, 6))]
RAGGED = [click((3, 4), (5, 6)), click((7, 8))]
BOX, BOXES = [click(box=[1, 2, 30, 40])], [click(box=[1, 2, 30, 40]), click(box=[5, 6, 9, 9])]
MASKS1, MASKS2 = [click(mask=MASK)], [click(mask=MASK), click(mask=~MASK)]
XYXYS = [[1, 2, 30, 40], [5, 6, 9, 9]]


def yolo_boxes(rows=XYXYS, **kind):
    return Boxes(torch.tensor([[*row, 0.9, i + 3] for i, row in enumerate(rows)]).reshape(-1, 6), SHAPE)


def tracked_boxes():
    return Boxes(torch.tensor([[*row, 11 + i, 0.9, i + 3] for i, row in enumerate(XYXYS)]), SHAPE)


def results(**fields):
    picture = np.zeros((*SHAPE, 3), np.uint8)
    return Results(picture, "a.jpg", {3: "cat", 4: "dog"}, **fields)


FORMS = [
    ("one point as a list", {"points": [3, 4]}, ONE),
    ("one point as a tuple", {"points": (3, 4)}, ONE),
    ("one point as floats", {"points": [3.0, 4.0]}, ONE),
    ("one point as an int array", {"points": np.array([3, 4])}, ONE),
    ("one point as a half tensor", {"points": torch.tensor([3, 4]).half()}, ONE),
    (
        "one point as a bfloat tensor with gradient",
        {"points": torch.tensor([3.0, 4]).bfloat16().requires_grad_()},
        ONE,
    ),
    ("one point as scalars of torch", {"points": [torch.tensor(3), torch.tensor(4)]}, ONE),
    ("(1, 2)", {"points": [[3, 4]]}, ONE),
    ("(1, 1, 2)", {"points": [[[3, 4]]]}, ONE),
    ("(N, 2) as a list", {"points": [[3, 4], [5, 6]]}, TWO),
    ("(N, 2) as tuples", {"points": ((3, 4), (5, 6))}, TWO),
    ("(N, 2) as uint8", {"points": np.array([[3, 4], [5, 6]], np.uint8)}, TWO),
    ("(N, 2) as float64", {"points": np.array([[3, 4], [5, 6]], float)}, TWO),
    ("(N, 2) as a tensor", {"points": torch.tensor([[3, 4], [5, 6]])}, TWO),
    ("a list of arrays (2,)", {"points": [np.array([3, 4]), np.array([5, 6])]}, TWO),
    ("a list of tensors (2,)", {"points": [torch.tensor([3, 4]), torch.tensor([5, 6])]}, TWO),
    ("(N, 1, 2)", {"points": [[[3, 4]], [[5, 6]]]}, TWO),
    ("(1, P, 2)", {"points": [[[3, 4], [5, 6]]]}, PAIR),
    ("(1, P, 2) as an array", {"points": np.array([[[3, 4], [5, 6]]])}, PAIR),
    ("a list of one tensor (P, 2)", {"points": [torch.tensor([[3, 4], [5, 6]])]}, PAIR),
    ("(N, P, 2)", {"points": [[[3, 4], [5, 6]], [[7, 8], [9, 10]]]}, [PAIR[0], click((7, 8), (9, 10))]),
    ("ragged lists", {"points": [[[3, 4], [5, 6]], [[7, 8]]]}, RAGGED),
    ("ragged, one click not wrapped", {"points": [[[3, 4], [5, 6]], [7, 8]]}, RAGGED),
    ("ragged arrays", {"points": [np.array([[3, 4], [5, 6]]), np.array([[7, 8]])]}, RAGGED),
    ("no point for one object", {"points": [[3, 4], None], "bboxes": XYXYS}, [click((3, 4), box=XYXYS[0]), BOXES[1]]),
    (
        "an empty list for one object",
        {"points": [[[3, 4]], []], "bboxes": XYXYS},
        [click((3, 4), box=XYXYS[0]), BOXES[1]],
    ),
    ("no objects", {"points": []}, []),
    ("no objects as an array", {"points": np.zeros((0, 2))}, []),
    ("a label as a number", {"points": [3, 4], "labels": 0}, [click((3, 4), labels=[0])]),
    ("a label as a bool", {"points": [3, 4], "labels": [True]}, ONE),
    ("labels (N,)", {"points": [[3, 4], [5, 6]], "labels": [1, 0]}, [ONE[0], click((5, 6), labels=[0])]),
    ("labels (N, 1)", {"points": [[3, 4], [5, 6]], "labels": [[1], [0]]}, [ONE[0], click((5, 6), labels=[0])]),
    ("labels (N,) of a tensor", {"points": [[3, 4], [5, 6]], "labels": torch.tensor([1.0, 1.0])}, TWO),
    ("labels (1, P)", {"points": [[[3, 4], [5, 6]]], "labels": [[1, 0]]}, [click((3, 4), (5, 6), labels=[1, 0])]),
    (
        "labels (P,) of one object",
        {"points": [[[3, 4], [5, 6]]], "labels": [1, 0]},
        [click((3, 4), (5, 6), labels=[1, 0])],
    ),
    (
        "ragged labels",
        {"points": [[[3, 4], [5, 6]], [[7, 8]]], "labels": [[1, 0], [1]]},
        [click((3, 4), (5, 6), labels=[1, 0]), RAGGED[1]],
    ),
    (
        "labels for some",
        {"points": [[[3, 4], [5, 6]], [[7, 8]]], "labels": [[1, 0], None]},
        [click((3, 4), (5, 6), labels=[1, 0]), RAGGED[1]],
    ),
    ("a single label for all", {"points": [[[3, 4], [5, 6]], [[7, 8]]], "labels": 1}, RAGGED),
    ("padding is dropped", {"points": [[[3, 4], [5, 6]], [[7, 8], [-1, -1]]], "labels": [[1, 1], [1, -1]]}, RAGGED),
    ("a box as a list", {"bboxes": [1, 2, 30, 40]}, BOX),
    ("a box as a tuple of floats", {"bboxes": (1.0, 2.0, 30.0, 40.0)}, BOX),
    ("a box with its corners reversed", {"bboxes": [30, 40, 1, 2]}, BOX),
    ("a box with one side reversed", {"bboxes": [30, 2, 1, 40]}, BOX),
    ("a box half a pixel too large", {"bboxes": [-0.5, 2, 64.5, 40]}, [click(box=[0, 2, 64, 40])]),
    ("a box of the whole picture", {"bboxes": [0, 0, 64, 48]}, [click(box=[0, 0, 64, 48])]),
    ("boxes as lists", {"bboxes": XYXYS}, BOXES),
    ("boxes as an array", {"bboxes": np.array(XYXYS)}, BOXES),
    ("boxes as a tensor", {"bboxes": torch.tensor(XYXYS)}, BOXES),
    ("boxes as a list of tensors", {"bboxes": [torch.tensor(row) for row in XYXYS]}, BOXES),
    ("boxes of Ultralytics", {"bboxes": yolo_boxes()}, BOXES),
    ("single boxes of Ultralytics", {"bboxes": list(yolo_boxes())}, BOXES),
    ("no boxes of Ultralytics", {"bboxes": yolo_boxes([])}, []),
    ("no boxes", {"bboxes": []}, []),
    ("no boxes as an array", {"bboxes": np.zeros((0, 4))}, []),
    ("box and point of one object", {"points": [3, 4], "bboxes": [1, 2, 30, 40]}, [click((3, 4), box=XYXYS[0])]),
    (
        "boxes and points of each",
        {"points": [[3, 4], [5, 6]], "bboxes": XYXYS},
        [click((3, 4), box=XYXYS[0]), click((5, 6), box=XYXYS[1])],
    ),
    (
        "box and several points",
        {"points": [[[3, 4], [5, 6]]], "bboxes": [XYXYS[0]]},
        [click((3, 4), (5, 6), box=XYXYS[0])],
    ),
    ("a box for one, a point for the other", {"points": [None, [3, 4]], "bboxes": [XYXYS[0], None]}, [BOX[0], ONE[0]]),
    ("a bool mask", {"masks": MASK}, MASKS1),
    ("a bool tensor", {"masks": torch.from_numpy(MASK)}, MASKS1),
    ("a 0/1 mask", {"masks": MASK.astype(np.uint8)}, MASKS1),
    ("a 0/255 mask", {"masks": MASK.astype(np.uint8) * 255}, MASKS1),
    ("a 0/1 mask of ints", {"masks": torch.from_numpy(MASK).long()}, MASKS1),
    ("a 0.0/1.0 mask", {"masks": MASK.astype(np.float64)}, MASKS1),
    ("a 0.0/255.0 mask", {"masks": MASK.astype(np.float32) * 255}, MASKS1),
    ("probabilities", {"masks": MASK * 0.8 + 0.1}, MASKS1),
    ("logits", {"masks": np.where(MASK, 3.5, -7.0)}, MASKS1),
    ("half logits", {"masks": torch.from_numpy(np.where(MASK, 3.5, -7.0)).half()}, MASKS1),
    ("a mask as nested lists", {"masks": MASK.tolist()}, MASKS1),
    ("masks (N, H, W)", {"masks": np.stack([MASK, ~MASK])}, MASKS2),
    ("logits (N, 1, h, w)", {"masks": torch.from_numpy(np.stack([MASK, ~MASK])[:, None] * 2.0 - 1)}, MASKS2),
    ("a list of masks", {"masks": [MASK, torch.from_numpy(~MASK)]}, MASKS2),
    ("masks of mixed sizes", {"masks": [MASK, MASK[::2, ::2]]}, [MASKS1[0], click(mask=MASK[::2, ::2])]),
    ("masks of Ultralytics", {"masks": Masks(torch.from_numpy(np.stack([MASK, ~MASK])), SHAPE)}, MASKS2),
    (
        "masks of Ultralytics at a letterboxed size",
        {"masks": Masks(torch.from_numpy(np.pad(MASK, ((8, 8), (0, 0))))[None], SHAPE)},
        MASKS1,
    ),
    ("a polygon", {"masks": [np.array([[5, 10], [29, 10], [29, 19], [5, 19]])]}, MASKS1),
    ("a polygon as lists", {"masks": [[[5, 10], [29, 10], [29, 19], [5, 19]]]}, MASKS1),
    ("a polygon in a dict", {"masks": {"polygons": [[5, 10, 29, 10, 29, 19, 5, 19]]}}, MASKS1),
    ("run lengths", {"masks": [rle_encode(MASK), rle_encode(~MASK, compressed=False)]}, MASKS2),
    ("no masks", {"masks": np.zeros((0, 48, 64), bool)}, []),
    ("a mask for one, a box for the other", {"masks": [MASK, None], "bboxes": [None, XYXYS[0]]}, [MASKS1[0], BOX[0]]),
    ("a dict", {"prompts": {"points": [[3, 4], [5, 6]], "labels": [1, 1]}}, TWO),
    ("a dict out of JSON", {"prompts": json.loads('{"bboxes": [[1, 2, 30, 40]], "names": {"0": "cat"}}')}, BOX),
    ("results", {"prompts": results(boxes=tracked_boxes().data)}, BOXES),
    ("a list of one result", {"prompts": [results(boxes=yolo_boxes().data)]}, BOXES),
    ("results without detections", {"prompts": results(boxes=yolo_boxes([]).data)}, []),
    ("results with masks only", {"prompts": results(masks=torch.from_numpy(MASK)[None])}, MASKS1),
    ("boxes as prompts", {"prompts": yolo_boxes()}, BOXES),
]


@pytest.mark.parametrize(("spelling", "expected"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_every_spelling_reads_as_the_objects_it_means(spelling, expected):
    prompts = Prompts.read(shape=SHAPE, **spelling)
    assert prompts.given
    assert same(read(prompts), expected)


WRONG = [
    ("points", "outside the picture of width 64 and height 48", {"points": [64, 4]}),
    ("points[1]", "outside", {"points": [[3, 4], [3, 48]]}),
    ("points[0][1]", "outside", {"points": [[[3, 4], [-1, 5]], [[7, 8], [9, 9]]]}),
    ("points", "nan", {"points": [3, float("nan")]}),
    ("points", "[1, 0] is inf", {"points": [[3, 4], [float("inf"), 4]]}),
    ("points", "not an array of numbers", {"points": "3,4"}),
    ("points", "not an array of numbers", {"points": ["3", "4"]}),
    ("points", "not an array of numbers", {"points": [3 + 1j, 4]}),
    ("points", "not an array of numbers", {"points": torch.tensor([True, False])}),
    ("points", "SimpleNamespace", {"points": SimpleNamespace()}),
    ("points", "two numbers, x and y", {"points": [3]}),
    ("points", "two numbers, x and y", {"points": [[3, 4, 1], [5, 6, 1]]}),
    ("points[1]", "two numbers, x and y", {"points": [[3, 4], [[[5, 6]]]]}),
    ("points", "4 dimensions", {"points": np.zeros((2, 1, 1, 2))}),
    ("points[1]", "not an array of numbers", {"points": [[[3, 4], [5, 6]], [[7, 8], [9]]]}),
    ("labels", "came without points", {"labels": [1]}),
    ("labels", "came without points", {"bboxes": [1, 2, 30, 40], "labels": [1]}),
    ("labels", "1 labels for 2 objects", {"points": [[3, 4], [5, 6]], "labels": [1]}),
    ("labels", "wrap them once more", {"points": [[3, 4], [5, 6]], "labels": [[1, 0]]}),
    ("labels[0]", "for 2 points", {"points": [[[3, 4], [5, 6]]], "labels": [[1, 0, 1]]}),
    ("labels[0]", "for 2 points", {"points": [[[3, 4], [5, 6]], [[7, 8], [9, 9]]], "labels": [1, 0]}),
    ("labels[0]", "got the value 2", {"points": [3, 4], "labels": [2]}),
    ("labels[1]", "got the value 0.5", {"points": [[3, 4], [5, 6]], "labels": [1, 0.5]}),
    ("labels", "not an array of numbers", {"points": [3, 4], "labels": ["on"]}),
    ("labels", "0 labels", {"points": [3, 4], "labels": []}),
    ("bboxes", "has no area", {"bboxes": [1, 2, 1, 40]}),
    ("bboxes[1]", "has no area", {"bboxes": [[1, 2, 30, 40], [5, 5, 5, 5]]}),
    ("bboxes[0]", "outside the picture of width 64", {"bboxes": [1, 2, 66, 40]}),
    ("bboxes[1]", "outside the picture", {"bboxes": [[1, 2, 30, 40], [-5, 2, 30, 40]]}),
    ("bboxes[0]", "no area", {"bboxes": [-1, 2, -0.5, 40]}),
    ("bboxes", "nan", {"bboxes": [1, 2, 30, float("nan")]}),
    ("bboxes", "3 numbers", {"bboxes": [1, 2, 30]}),
    ("bboxes[0]", "without score or class", {"bboxes": np.ones((2, 6))}),
    ("bboxes", "3 dimensions", {"bboxes": np.ones((2, 1, 4))}),
    ("bboxes[1]", "3 numbers", {"bboxes": [[1, 2, 30, 40], [1, 2, 3]]}),
    ("bboxes", "not an array of numbers", {"bboxes": "whole"}),
    ("points and bboxes", "wrap them once more", {"points": [[3, 4], [5, 6]], "bboxes": [[1, 2, 30, 40]]}),
    ("bboxes and masks", "masks of 1 objects", {"masks": MASK, "bboxes": XYXYS}),
    ("masks[0]", "no file", {"masks": "nowhere.png"}),
    ("masks[0]", "one mask per object", {"masks": np.arange(12).reshape(3, 4)}),
    ("masks[0]", "NaN", {"masks": np.full((4, 4), np.nan)}),
    ("masks", "5 dimensions", {"masks": np.zeros((1, 1, 1, 4, 4))}),
    ("masks[0]", "shape (4,)", {"masks": [np.zeros(4, bool), np.zeros((3, 3), bool)]}),
    ("masks[0]", "keys ['polygon']", {"masks": {"polygon": []}}),
    ("masks[0]", "leaves the 64x48 picture", {"masks": [[[5, 10], [99, 10], [29, 19]]]}),
    ("masks[0]", "do not fill", {"masks": {"size": [4, 4], "counts": [3]}}),
    ("masks", "complex", {"masks": torch.zeros(4, 4, dtype=torch.complex64)}),
    ("masks", "64x64 picture", {"masks": Masks(torch.zeros(1, 64, 64), (64, 64))}),
    ("prompts", "object 1 has no point", {"points": [[3, 4], None]}),
    ("prompts", "did you mean 'bboxes'", {"prompts": {"boxes": XYXYS}}),
    ("prompts", "did you mean 'points'", {"prompts": {"point": [3, 4]}}),
    ("prompts", "both inside prompts= and beside it", {"prompts": {"points": [3, 4]}, "points": [3, 4]}),
    ("prompts", "got int 3", {"prompts": 3}),
    ("prompts", "cannot be read as JSON", {"prompts": "nowhere.json"}),
    ("prompts", "neither boxes nor masks", {"prompts": results(probs=torch.ones(3))}),
    ("cls", "came without points", {"cls": [1]}),
    ("cls", "for 1 objects", {"points": [3, 4], "cls": [1, 2]}),
    ("cls", "from 0 up", {"points": [3, 4], "cls": -1}),
    ("cls", "with fractions", {"points": [3, 4], "cls": 0.5}),
    ("names", "cat", {"points": [3, 4], "names": "cat"}),
    ("names", "got list", {"points": [3, 4], "names": [1]}),
    ("obj_ids", "comes twice", {"bboxes": XYXYS, "obj_ids": [1, 1]}),
]


@pytest.mark.parametrize(("argument", "words", "spelling"), WRONG, ids=[f"{a}: {w}" for a, w, _ in WRONG])
def test_a_wrong_prompt_is_refused_by_the_name_of_its_argument(argument, words, spelling):
    with pytest.raises(PromptError) as caught:
        Prompts.read(shape=SHAPE, **spelling)
    message = str(caught.value)
    assert message.startswith(argument)
    assert words in message
    assert "Accepted" in message
    assert len(message) < 600


def test_a_prompt_error_is_a_value_error_and_an_assertion_error():
    assert issubclass(PromptError, ValueError)
    assert issubclass(PromptError, AssertionError)


def test_nothing_given_differs_from_given_and_empty():
    assert not Prompts.read().given
    empty = Prompts.read(bboxes=[])
    assert empty.given
    assert len(empty) == 0
    assert not empty


def test_a_users_values_are_left_as_they_are():
    boxes, points = np.array([[30.0, 40, 1, 2]]), torch.tensor([[3.0, 4]])
    Prompts.read(bboxes=boxes, points=points, shape=SHAPE)
    assert boxes.tolist() == [[30, 40, 1, 2]]
    assert points.tolist() == [[3, 4]]


# ------------------------------------------------------------------ masks from files


def test_masks_are_read_from_picture_files_also_smeared_and_coloured_ones(tmp_path):
    on = MASK.astype(np.uint8)
    files = {
        "a.png": on * 255,
        "b.png": on,
        "c.jpg": on * 255,
        "d.png": on[..., None] * np.array([0, 0, 128], np.uint8),
    }
    for name, picture in files.items():
        cv2.imwrite(str(tmp_path / name), picture)
    np.save(tmp_path / "e.npy", np.where(MASK, 4.5, -3.0))
    prompts = Prompts.read(
        masks=[tmp_path / "a.png", *(str(tmp_path / n) for n in ("b.png", "c.jpg", "d.png", "e.npy"))]
    )
    assert same(read(prompts), [click(mask=MASK)] * 5)
    assert prompts.objects[4].mask.unique().tolist() == [-3, 4.5]


def test_a_file_that_is_no_mask_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    cv2.imwrite(str(tmp_path / "map.png"), np.arange(200, dtype=np.uint8).reshape(10, 20))
    for name, words in (("text.png", "not a picture"), ("map.png", "map of labels")):
        with pytest.raises(PromptError, match=words):
            Prompts.read(masks=tmp_path / name)


def test_a_hole_in_a_polygon_stays_a_hole():
    outer, inner = [[2, 2], [40, 2], [40, 40], [2, 40]], [[10, 10], [20, 10], [20, 20], [10, 20]]
    mask = Prompts.read(masks={"polygons": [outer, inner]}, shape=SHAPE).objects[0].mask > 0
    assert mask[5, 5]
    assert not mask[15, 15]


# ------------------------------------------------------------------ classes, names, ids


def test_a_detectors_classes_names_and_ids_come_along_in_order():
    prompts = Prompts.read(prompts=results(boxes=tracked_boxes().data), shape=SHAPE)
    assert (prompts.cls, prompts.ids) == ((3, 4), (11, 12))
    assert prompts.class_names == {3: "cat", 4: "dog"}
    last = prompts[1]
    assert (len(last), last.cls, last.ids) == (1, (4,), (12,))


def test_classes_beside_results_win():
    prompts = Prompts.read(prompts=results(boxes=tracked_boxes().data), cls=[7, 8], names=["zero"])
    assert prompts.classes == (7, 8)
    assert prompts.class_names == {0: "zero", 7: "7", 8: "8"}


def test_a_class_left_out_is_the_objects_index_and_survives_slicing():
    prompts = Prompts.read(points=[[3, 4], [5, 6], [7, 8]])
    assert prompts.cls is None
    assert prompts.classes == (0, 1, 2)
    assert prompts[1:].classes == (1, 2)
    assert prompts[-1].classes == (2,)
    assert prompts[[2, 0]].classes == (2, 0)


def test_results_of_another_picture_are_refused():
    with pytest.raises(PromptError, match="64x48 picture"):
        Prompts.read(prompts=results(boxes=yolo_boxes().data), shape=(100, 100))


# ------------------------------------------------------------------ several pictures

FILES = ["one/a.jpg", "one/b.jpg", "two/c.jpg"]
PER_PICTURE = [
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
    ("logits (N, 1, h, w) for all", {"masks": np.zeros((2, 1, 8, 8)) - 3.0}, [2, 2, 2]),
    ("nothing", {}, [None, None, None]),
]


@pytest.mark.parametrize(("spellings", "counts"), [p[1:] for p in PER_PICTURE], ids=[p[0] for p in PER_PICTURE])
def test_each_picture_of_a_batch_gets_its_own_prompts(spellings, counts):
    pictures = per_picture(3, FILES, [SHAPE] * 3, **spellings)
    assert [len(p) if p.given else None for p in pictures] == counts


def test_entries_per_picture_read_as_single_calls_would():
    boxes, classes = [XYXYS, [XYXYS[1]]], [[5, 6], [7]]
    for own, box, cls in zip(per_picture(2, FILES[:2], bboxes=boxes, cls=classes), boxes, classes, strict=True):
        single = Prompts.read(bboxes=box, cls=cls)
        assert same(read(own), read(single))
        assert own.cls == single.cls


@pytest.mark.parametrize(
    ("argument", "words", "spellings"),
    [
        ("bboxes", "2 entries for 3 pictures", {"bboxes": [XYXYS, XYXYS]}),
        ("prompts", "1 entries for 3 pictures", {"prompts": [{"bboxes": XYXYS}]}),
        ("labels", "1 entries for 3 pictures", {"points": [[[[3, 4]]]] * 3, "labels": [[1]]}),
        ("prompts", "'d.jpg' is none of the source's files", {"prompts": {"d.jpg": {"bboxes": XYXYS}}}),
        ("prompts", "did you mean 'bboxes'", {"prompts": {"boxes": XYXYS}}),
        ("masks", "beside prompts that differ", {"bboxes": [XYXYS, XYXYS, XYXYS], "masks": "mask.png"}),
    ],
)
def test_entries_that_do_not_fit_the_pictures_are_refused(argument, words, spellings):
    with pytest.raises(PromptError, match=argument) as caught:
        per_picture(3, FILES, **spellings)
    assert words in str(caught.value)


def test_a_misspelt_argument_is_an_error_and_not_swallowed():
    with pytest.raises(TypeError, match="boxes"):
        per_picture(1, FILES[:1], boxes=XYXYS)


def test_a_run_of_unknown_length_takes_its_entries_in_turn_and_says_when_they_end():
    schedule = PictureSchedule(bboxes=[XYXYS, [XYXYS[0]]])
    assert [len(schedule.prompts_of(i)) for i in range(2)] == [2, 1]
    with pytest.raises(PromptError, match="2 entries, and this is picture 3"):
        schedule.prompts_of(2)


def test_a_single_result_holds_for_a_run_of_unknown_length():
    schedule = PictureSchedule(prompts=[results(boxes=yolo_boxes().data)])
    assert [len(schedule.prompts_of(i)) for i in range(3)] == [2, 2, 2]


def test_prompts_by_file_are_read_from_json(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"a.jpg": {"bboxes": XYXYS}, "b.jpg": {"points": [[3, 4]]}}))
    assert [len(p) for p in per_picture(2, FILES[:2], prompts=path)] == [2, 1]


def test_depth_counts_lists_and_dimensions_together():
    assert depth([np.zeros((2, 4)), None]) == 3
    assert depth([[1, 2], [[3, 4], [5, 6]]]) == 3
    assert depth([]) == 1


# ------------------------------------------------------------------ the view


def test_the_view_is_letterbox_to_the_pixel():
    sizes = np.random.default_rng(0).integers(1, 700, (300, 4))
    for height, width, h, w in sizes.tolist():
        picture = np.full((height, width, 1), 255, np.uint8)
        boxed = LetterBox((h, w), auto=False, center=False, padding_value=0, interpolation=cv2.INTER_NEAREST)(
            image=picture
        )
        view = View((height, width), (h, w))
        covered = boxed.reshape(h, w) > 0
        rows, columns = view.content
        assert covered.sum() == rows * columns
        assert covered[:rows, :columns].all()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_coordinates_go_through_the_view_and_back(resize):
    for height, width, h, w in np.random.default_rng(1).integers(16, 3000, (50, 4)).tolist():
        view = View((height, width), (h, w), resize)
        points = torch.rand(7, 2) * torch.tensor([width, height])
        boxes = torch.cat([points * 0.5, points], 1)
        assert torch.allclose(view.points_back(view.points(points)), points, rtol=1e-5, atol=1e-3)
        assert torch.allclose(view.boxes_back(view.boxes(boxes)), boxes, rtol=1e-5, atol=1e-3)
        assert torch.equal(view.boxes(boxes)[:, 2:], view.points(points))


def test_a_letterbox_has_one_gain_and_a_stretch_has_two():
    corner = torch.tensor([64.0, 48.0])
    assert View(SHAPE, (96, 96)).points(corner).tolist() == [96, 72]
    assert View(SHAPE, (96, 96), "stretch").points(corner).tolist() == [96, 96]
    with pytest.raises(ValueError, match="letterbox"):
        View(SHAPE, (96, 96), "squeeze")


def test_boxes_come_back_inside_the_picture():
    assert View(SHAPE, (96, 96)).boxes_back(torch.tensor([-3.0, 3, 200, 90])).tolist() == [0, 2, 64, 48]


def test_a_mask_lies_in_the_view_as_its_picture_does():
    logits = View(SHAPE, (256, 256)).mask(torch.from_numpy(np.where(MASK, 10.0, -10.0)).float())
    assert logits.shape == (64, 64)  # the picture at its own size: 64 / 256 * 4 = 1
    assert torch.equal(logits[:48] > 0, torch.from_numpy(MASK))
    assert torch.allclose(logits[48:], torch.tensor(-10.0))  # padding is off the object
    full = View(SHAPE, (256, 256)).mask(torch.from_numpy(np.where(MASK, 10.0, -10.0)).float(), stride=1)
    assert full.abs().unique().tolist() == [10]  # at the input's size a 0/1 mask is still one


def test_a_mask_of_any_size_means_the_whole_picture():
    large = torch.from_numpy(np.where(MASK, 10.0, -10.0)).float()
    small = large[::2, ::2]
    view = View(SHAPE, (512, 512))
    a, b = view.mask(large) > 0, view.mask(small) > 0
    assert (a & b).sum() / (a | b).sum() > 0.9


def test_logits_of_the_networks_own_size_pass_as_they_are():
    logits = torch.randn(64, 64) * 8
    assert torch.equal(View(SHAPE, (256, 256)).mask(logits), logits)
    assert View(SHAPE, (256, 256)).mask(logits, stride=1).shape == (256, 256)


def test_logits_of_the_pictures_size_keep_their_strength():
    logits = torch.full(SHAPE, 3.0)
    placed = View(SHAPE, (512, 512)).mask(logits)
    assert torch.allclose(placed[:95], torch.tensor(3.0))
    assert torch.allclose(placed[97:], torch.tensor(-10.0))


# ------------------------------------------------------------------ batches


def mixed():
    """Eight objects of five forms, in no order."""
    points = [[3, 4], [[3, 4], [5, 6]], None, [7, 8], None, [[1, 1], [2, 2]], [9, 9], None]
    labels = [1, [1, 0], None, 0, None, [1, 1], 1, None]
    boxes = [None, None, [1, 2, 30, 40], None, [5, 6, 9, 9], None, [1, 1, 20, 20], None]
    masks = [None] * 7 + [MASK]
    return Prompts.read(points=points, labels=labels, bboxes=boxes, masks=masks, shape=SHAPE)


def test_batches_are_even_and_their_rows_restore_the_order():
    prompts, view = mixed(), View(SHAPE, (96, 96))
    batches = prompts.batches(view, owner=2)
    assert [rows.tolist() for rows, _ in batches] == [[0, 3], [1, 5], [2, 4], [6], [7]]
    for rows, batch in batches:
        assert batch.owner.tolist() == [2] * len(rows)
        for at, row in enumerate(rows.tolist()):
            prompt = prompts.objects[row]
            assert (batch.points is None) == (len(prompt.points) == 0)
            if batch.points is not None:
                assert torch.equal(batch.points[at], view.points(prompt.points))
                assert torch.equal(batch.labels[at], prompt.labels)
            assert (batch.boxes is None) == (prompt.box is None)
            if prompt.box is not None:
                assert torch.equal(batch.boxes[at], view.boxes(prompt.box))
            assert (batch.masks is None) == (prompt.mask is None)
            if prompt.mask is not None:
                assert torch.equal(batch.masks[at], view.mask(prompt.mask)[None])


def test_the_tensors_of_a_batch_have_the_networks_types_and_shapes():
    (_, clicks), _, (_, boxed), _, (_, masked) = mixed().batches(View(SHAPE, (96, 64)))
    assert (clicks.points.shape, clicks.points.dtype) == ((2, 1, 2), torch.float32)
    assert (clicks.labels.shape, clicks.labels.dtype) == ((2, 1), torch.int64)
    assert (boxed.boxes.shape, boxed.boxes.dtype) == ((2, 4), torch.float32)
    assert (masked.masks.shape, masked.masks.dtype) == ((1, 1, 24, 16), torch.float32)
    assert clicks.owner.dtype == torch.int64


def test_the_objects_of_several_pictures_share_batches():
    pictures = [Prompts.read(points=[[3, 4], [5, 6]]), Prompts.read(bboxes=[]), Prompts.read(points=[3, 4])]
    views = [View(SHAPE, (96, 96)), View((10, 10), (96, 96)), View((480, 640), (96, 96))]
    ((rows, batch),) = batches_of(pictures, views)
    assert rows.tolist() == [0, 1, 2]
    assert batch.owner.tolist() == [0, 0, 2]
    assert torch.allclose(batch.points[:, 0, 0], torch.tensor([4.5, 7.5, 0.45]))


def test_no_objects_make_no_batches():
    assert Prompts.read(bboxes=[]).batches(View(SHAPE, (96, 96))) == []
