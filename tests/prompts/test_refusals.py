"""Every wrong prompt is refused by the name of its argument."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.prompts import MASK, SHAPE, XYXYS, results
from ultralytics.engine.results import Masks

from samplug.errors import PromptError
from samplug.prompts.objects import Prompts

WRONG = [
    ("points", "outside the image of width 64 and height 48", {"points": [64, 4]}),
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
    ("bboxes[0]", "outside the image of width 64", {"bboxes": [1, 2, 66, 40]}),
    ("bboxes[1]", "outside the image", {"bboxes": [[1, 2, 30, 40], [-5, 2, 30, 40]]}),
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
    ("masks[0]", "leaves the 64x48 image", {"masks": [[[5, 10], [99, 10], [29, 19]]]}),
    ("masks[0]", "do not fill", {"masks": {"size": [4, 4], "counts": [3]}}),
    ("masks", "complex", {"masks": torch.zeros(4, 4, dtype=torch.complex64)}),
    ("masks", "64x64 image", {"masks": Masks(torch.zeros(1, 64, 64), (64, 64))}),
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
    assert "Expected" in message
    assert len(message) < 600


def test_a_prompt_error_is_a_value_error_and_an_assertion_error():
    assert issubclass(PromptError, ValueError)
    assert issubclass(PromptError, AssertionError)
