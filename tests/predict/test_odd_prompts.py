"""Prompts and numbers as the world sends them: each is answered, or refused with its name and a reason."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

from collections import Counter

import numpy as np
import pytest
import torch
from support.images import HEIGHT, WIDTH, bad, good, model, noise, predict  # noqa: F401

from samplug import SAM, PromptError
from samplug.errors import SourceError

NAN, INF = float("nan"), float("inf")
WRONG = {
    "a click that is NaN": ({"points": [[NAN, 3]]}, "nan"),
    "a click that is infinite": ({"points": [[INF, 3]]}, "is inf"),
    "a click outside": ({"points": [[600, 3]]}, "outside"),
    "a negative click": ({"points": [[-5, 3]]}, "outside"),
    "a click of three numbers": ({"points": [[1, 2, 3]]}, "two numbers"),
    "a click of text": ({"points": [["a", "b"]]}, "not an array of numbers"),
    "clicks of five dimensions": ({"points": np.zeros((1, 1, 1, 1, 2))}, "points"),
    "a label of two": ({"points": [[1, 2]], "labels": [2]}, "labels"),
    "a label too many": ({"points": [[1, 2]], "labels": [1, 1]}, "labels"),
    "a label that is NaN": ({"points": [[1, 2]], "labels": [NAN]}, "labels"),
    "labels alone": ({"labels": [1]}, "without points"),
    "a box outside": ({"bboxes": [[100, 100, 200, 200]]}, "outside"),
    "a box without width": ({"bboxes": [[10, 10, 10, 30]]}, "bboxes"),
    "a box without height": ({"bboxes": [[10, 10, 30, 10]]}, "bboxes"),
    "a box that is NaN": ({"bboxes": [[NAN, 1, 2, 3]]}, "nan"),
    "a box of three numbers": ({"bboxes": [[1, 2, 3]]}, "bboxes"),
    "a box of bytes": ({"bboxes": b"abcd"}, "bboxes"),
    "complex numbers": ({"points": np.zeros((1, 2), complex)}, "not an array of numbers"),
    "boxes and clicks of other counts": ({"bboxes": [[1, 1, 9, 9]], "points": [[1, 2], [3, 4]]}, "objects"),
    "an object without anything": ({"points": [[[1, 2]], []]}, "no point, no box and no mask"),
    "a mask of one dimension": ({"masks": np.zeros(9)}, "masks"),
    "a mask that is NaN": ({"masks": np.full((HEIGHT, WIDTH), NAN)}, "masks"),
    "a mask of text": ({"masks": "none.png"}, "masks"),
    "prompts of a number": ({"prompts": 5}, "prompts"),
    "a key that does not exist": ({"prompts": {"boxes": [[1, 2, 3, 4]]}}, "bboxes"),
    "classes too many": ({"points": [[1, 2]], "cls": [1, 2]}, "cls"),
    "an id twice": ({"points": [[1, 2], [3, 4]], "obj_ids": [1, 1]}, "obj_ids"),
}
RIGHT = {
    "no boxes": ({"bboxes": []}, 0),
    "no clicks": ({"points": np.zeros((0, 2))}, 0),
    "ragged clicks": ({"points": [[[1, 2]], [[3, 4], [5, 6]]]}, 2),
    "whole numbers of a byte": ({"points": np.array([[1, 2]], np.uint8)}, 1),
    "half precision": ({"bboxes": torch.tensor([[1, 2, 30, 20]]).half()}, 1),
    "a box reversed": ({"bboxes": [[30, 30, 10, 10]]}, 1),
    "a mask without pixels": ({"masks": np.zeros((0, 0), bool)}, 0),
    "a mask of another shape": ({"masks": np.ones((WIDTH, HEIGHT), bool)}, 1),
    "a box a pixel wide": ({"bboxes": [[10, 10, 11, 30]]}, 1),
    "a box that rounds over the edge": ({"bboxes": [[-0.4, 0, WIDTH + 0.6, HEIGHT]]}, 1),
    "a mask of half the size": ({"masks": np.ones((HEIGHT // 2, WIDTH // 2), bool)}, 1),
    "an empty mask": ({"masks": np.zeros((HEIGHT, WIDTH), bool)}, 1),
    "three hundred clicks": ({"points": [[i % WIDTH, i % HEIGHT] for i in range(300)]}, 300),
    "sixty clicks on one object": ({"points": [[[i, i % HEIGHT] for i in range(60)]]}, 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_prompt_that_cannot_be_is_refused_by_its_argument(predict, name):
    prompts, words = WRONG[name]
    with pytest.raises(PromptError, match=words):
        predict(noise(), **prompts)


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_prompt_is_answered(predict, name):
    prompts, rows = RIGHT[name]
    (result,) = predict(noise(), **prompts)
    assert result.masks.data.shape == (rows, HEIGHT, WIDTH) and len(result.boxes) == rows


# Numbers that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"])
@pytest.mark.parametrize("prompts", [{"points": [[5, 5]]}, {}, {"bboxes": [[5, 5, 30, 30]], "track": True}])
def test_nan_in_the_weights_is_reported_not_shown_as_an_empty_mask(nano_file, name, prompts):
    model = SAM(nano_file)
    model.model.state_dict()[name].view(-1)[0] = NAN
    with pytest.raises(FloatingPointError, match=f"weights hold NaN or infinity: {name}"):
        model.predict([noise()], verbose=False, imgsz=64, points_stride=2, **prompts)


def test_nan_that_arises_on_the_way_is_reported(nano_file):
    model = SAM(nano_file)

    def overflows(module, given, maps):
        maps["backbone_fpn"][-1].fill_(NAN)

    model.model.image_encoder.register_forward_hook(overflows)
    with pytest.raises(FloatingPointError, match="features of the image hold NaN"):
        model.predict([noise()], verbose=False, imgsz=64, points=[[5, 5]])


@pytest.mark.slow
def test_the_inputs_tried_are_counted(model, predict, good, bad, capsys):
    outcomes = Counter()
    for (folder, names), kind in ((good, "image of an odd kind"), (bad, "file that is no image")):
        for name in names:
            for way in (str(folder / name), [str(folder / name)]):
                outcomes[kind, outcome(predict, way, points=[[0, 0]])] += 1
    for cases, kind in ((WRONG, "prompt that cannot be"), (RIGHT, "odd prompt")):
        for prompts, _ in cases.values():
            outcomes[kind, outcome(predict, noise(), **prompts)] += 1
    with capsys.disabled():
        print()
        for (kind, ended), count in sorted(outcomes.items()):
            print(f"{kind:<28}{ended:<16}{count:>5}")
    assert set(outcomes) == {
        ("image of an odd kind", "answered"),
        ("file that is no image", "SourceError"),
        ("prompt that cannot be", "PromptError"),
        ("odd prompt", "answered"),
    }


def outcome(predict, source, **prompts):
    try:
        predict(source, **prompts)
    except (SourceError, PromptError) as error:
        return type(error).__name__
    return "answered"
