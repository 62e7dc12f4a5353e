"""Whatever the coordinates, run lengths and polygons, what is read back is what was written."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samplug.errors import PromptError
from samplug.masks.rle import pack, rle_decode, rle_encode, unpack
from samplug.prompts.objects import Prompts
from samplug.prompts.raw import decode_json
from samplug.transforms import ImageTransform

pytestmark = pytest.mark.slow
SIDES = st.integers(3, 60)
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.booleans())
def test_run_lengths_give_the_mask_that_they_were_made_of(mask, compressed):
    rle = json.loads(json.dumps(rle_encode(mask, compressed)))
    assert np.array_equal(rle_decode(rle), mask)


@MANY
@given(st.lists(st.integers(0, 2**40), max_size=30))
def test_counts_come_back_from_their_string(counts):
    assert unpack(pack(counts)) == counts


@MANY
@given(st.one_of(st.text(max_size=30), st.binary(max_size=30)), SIDES, SIDES)
def test_no_string_of_counts_crashes(text, height, width):
    try:
        (prompt,) = Prompts.read(masks={"size": [height, width], "counts": text}, shape=(height, width)).objects
    except PromptError:
        return
    assert prompt.mask.shape == (height, width)


@MANY
@given(st.data(), SIDES, SIDES)
def test_points_and_boxes_are_those_given_and_come_back_from_the_input(data, height, width):
    xs = data.draw(st.lists(st.floats(0, width, width=32, exclude_max=True), min_size=2, max_size=6))
    ys = data.draw(st.lists(st.floats(0, height, width=32, exclude_max=True), min_size=len(xs), max_size=len(xs)))
    points = np.stack([xs, ys], 1)
    (prompt,) = Prompts.read(points=[points.tolist()], shape=(height, width)).objects
    assert np.array_equal(prompt.points.numpy(), points.astype(np.float32))
    resize = data.draw(st.sampled_from(["letterbox", "stretch", "pad"]))
    transform = ImageTransform((height, width), (64, 64), resize)
    box = [xs[0], ys[0], xs[1], ys[1]]
    if min(abs(xs[1] - xs[0]), abs(ys[1] - ys[0])) >= 0.01:
        (prompt,) = Prompts.read(bboxes=[box], shape=(height, width)).objects
        ordered = [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
        assert np.allclose(prompt.box.numpy(), ordered)
        assert np.allclose(transform.boxes_to_image(transform.boxes_to_input(prompt.box)), prompt.box, atol=1e-3)


@MANY
@given(st.data(), st.integers(16, 60), st.integers(16, 60))
def test_a_polygon_in_every_spelling_is_the_mask_that_it_covers(data, height, width):
    count = data.draw(st.integers(3, 8))
    corner = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    corners = np.array(data.draw(st.lists(corner, min_size=count, max_size=count)), float)
    flat = corners.ravel().tolist()
    spellings = [{"polygons": [flat]}, {"polygons": [corners]}, [corners], [flat], [corners.tolist()]]
    read = []
    for masks in spellings:
        try:
            (prompt,) = Prompts.read(masks=masks, shape=(height, width)).objects
        except PromptError:
            read.append(None)
        else:
            read.append((prompt.mask > 0).numpy())
    assert all((one is None) == (read[0] is None) for one in read)
    if read[0] is not None:
        canvas = np.zeros((height, width), np.uint8)
        cv2.fillPoly(canvas, [corners.astype(np.int32)], 1)
        assert all(np.array_equal(one, canvas > 0) for one in read)
        assert np.array_equal(rle_decode(rle_encode(read[0])), read[0])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@MANY
@given(VALUES)
def test_strict_json_reads_what_json_writes(value):
    assert decode_json(json.dumps(value)) == value


@MANY
@given(VALUES, st.sampled_from(["points", "labels", "bboxes", "masks", "prompts", "cls", "obj_ids", "names"]))
def test_no_value_of_json_crashes_an_argument(value, argument):
    beside = {} if argument in ("points", "bboxes", "masks", "prompts") else {"points": [3, 4]}
    try:
        Prompts.read(**beside, **{argument: value}, shape=(40, 50))
    except PromptError as error:
        assert "Expected" in str(error)
