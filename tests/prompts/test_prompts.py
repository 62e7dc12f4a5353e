"""Every spelling of prompts reads as the objects it means, with their classes, names and ids."""

import json

import cv2
import numpy as np
import pytest
import torch
from support.prompts import MASK, SHAPE, XYXYS, click, read, results, same, tracked_boxes, yolo_boxes
from ultralytics.engine.results import Masks

from samplug.errors import PromptError
from samplug.masks.rle import rle_encode
from samplug.prompts.objects import Prompts

ONE, TWO, PAIR = [click((3, 4))], [click((3, 4)), click((5, 6))], [click((3, 4), (5, 6))]
RAGGED = [click((3, 4), (5, 6)), click((7, 8))]
BOX, BOXES = [click(box=[1, 2, 30, 40])], [click(box=[1, 2, 30, 40]), click(box=[5, 6, 9, 9])]
MASKS1, MASKS2 = [click(mask=MASK)], [click(mask=MASK), click(mask=~MASK)]
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
    ("a box of the whole image", {"bboxes": [0, 0, 64, 48]}, [click(box=[0, 0, 64, 48])]),
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
    ("masks (N, H, W, 1)", {"masks": np.stack([MASK, ~MASK])[..., None]}, MASKS2),
    ("masks (N, H, W, 3)", {"masks": np.stack([np.stack([MASK, ~MASK])] * 3, -1)}, MASKS2),
    (
        "a list of images of masks",
        {"masks": [np.stack([each * 255] * 3, -1) for each in (MASK, ~MASK)]},
        MASKS2,
    ),
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


def test_masks_are_read_from_image_files_also_smeared_and_coloured_ones(tmp_path):
    on = MASK.astype(np.uint8)
    files = {
        "a.png": on * 255,
        "b.png": on,
        "c.jpg": on * 255,
        "d.png": on[..., None] * np.array([0, 0, 128], np.uint8),
    }
    for name, image in files.items():
        cv2.imwrite(str(tmp_path / name), image)
    np.save(tmp_path / "e.npy", np.where(MASK, 4.5, -3.0))
    prompts = Prompts.read(
        masks=[tmp_path / "a.png", *(str(tmp_path / n) for n in ("b.png", "c.jpg", "d.png", "e.npy"))]
    )
    assert same(read(prompts), [click(mask=MASK)] * 5)
    assert prompts.objects[4].mask.unique().tolist() == [-3, 4.5]


def test_a_file_that_is_no_mask_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    cv2.imwrite(str(tmp_path / "map.png"), np.arange(200, dtype=np.uint8).reshape(10, 20))
    for name, words in (("text.png", "not an image"), ("map.png", "map of labels")):
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


def test_results_of_another_image_are_refused():
    with pytest.raises(PromptError, match="64x48 image"):
        Prompts.read(prompts=results(boxes=yolo_boxes().data), shape=(100, 100))
