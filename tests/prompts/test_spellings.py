"""Masks, coordinates, ids and JSON as people write them: read as they were meant, refused, or reported as a slip."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.images import nested

from samplug.errors import OutOfMemoryError, PromptError, SlipLog
from samplug.masks.rle import rle_decode, rle_encode
from samplug.prompts.objects import Prompts
from samplug.prompts.per_frame import VideoPrompts, read_object
from samplug.prompts.raw import RawPrompts

SHAPE = (60, 80)
MASK = np.zeros(SHAPE, bool)
MASK[20:40, 10:50] = True
BYTES = MASK.astype(np.uint8) * 255
NOISE = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
SQUARE = [10.0, 20, 49, 20, 49, 39, 10, 39]
TRIANGLE = [5.0, 5, 60, 5, 60, 50]
ROUND = [[30 + 10 * np.cos(t), 30 + 10 * np.sin(t)] for t in np.linspace(0, 2 * np.pi, 16, endpoint=False)]
ROUND = [float(number) for corner in ROUND for number in corner]


def read(**spelling):
    return Prompts.read(shape=SHAPE, **spelling)


def on(prompt):
    return (prompt.mask > 0).numpy()


def rgba(colour=255):
    return np.dstack([np.full((*SHAPE, 3), colour, np.uint8), BYTES])


def equal_channels(dtype=np.uint8):
    return np.dstack([MASK.astype(dtype) * (255 if dtype == np.uint8 else 1)] * 3)


ONE_MASK = {
    "bool": MASK,
    "0/255": BYTES,
    "0/7 floats": MASK * 7.0,
    "0/65535": MASK.astype(">u2") * 65535,
    "(1, H, W)": MASK[None],
    "(1, 1, H, W) tensor": torch.from_numpy(MASK)[None, None],
    "(H, W, 1)": BYTES[..., None],
    "cv2.imread": equal_channels(),
    "(H, W, 3) bool": equal_channels(bool),
    "(H, W, 3) floats": equal_channels(float),
    "RGBA cut-out": rgba(),
    "RGBA cut-out of black": rgba(0),
    "RGBA cut-out of a photograph": np.dstack([NOISE, BYTES]),
    "opaque RGBA": np.dstack([equal_channels(), np.full(SHAPE, 255, np.uint8)]),
    **{f"PIL {mode}": Image.fromarray(BYTES).convert(mode) for mode in ("1", "L", "P", "RGB", "I", "F", "CMYK")},
    "PIL RGBA": Image.fromarray(rgba()),
    "PIL LA": Image.fromarray(rgba()).convert("LA"),
    "run lengths": rle_encode(MASK),
    "run lengths of half the size": rle_encode(MASK[::2, ::2]),
    "run lengths as a list": rle_encode(MASK, compressed=False),
    "flat polygon": [SQUARE],
    "flat polygon of whole numbers": [list(map(int, SQUARE))],
    "polygons": {"polygons": [SQUARE]},
    "(K, 2)": np.reshape(SQUARE, (-1, 2)),
}


@pytest.mark.parametrize("listed", [False, True], ids=["alone", "in a list"])
@pytest.mark.parametrize("name", ONE_MASK)
def test_one_mask_in_any_spelling_is_that_mask(name, listed):
    value = ONE_MASK[name]
    if listed and ("flat" in name or "1, 1" in name):
        return
    (prompt,) = read(masks=[value] if listed else value).objects
    assert np.array_equal(on(prompt) if prompt.mask.shape == SHAPE else on(prompt).repeat(2, 0).repeat(2, 1), MASK)


@pytest.mark.parametrize("name", [name for name in ONE_MASK if "flat" not in name and "1, 1" not in name])
def test_several_masks_in_any_spelling_are_as_many_objects(name):
    assert len(read(masks=[ONE_MASK[name], BYTES, ONE_MASK[name]]).objects) == 3


WRITERS = {
    "grey.png": BYTES,
    "three.png": equal_channels(),
    "cut-out.png": rgba(),
    "black cut-out.png": rgba(0),
    "16-bit.png": BYTES.astype(np.uint16) * 257,
    "red.png": np.dstack([BYTES * 0, BYTES * 0, BYTES]),
    "smeared.jpg": equal_channels(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_in_a_file_is_that_mask_and_so_is_what_cv2_reads(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), WRITERS[name])
    spellings = [str(tmp_path / name)]
    if "red" not in name and "black" not in name:
        spellings.append(cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED))
        spellings += [] if "cut-out" in name or "jpg" in name else [cv2.imread(str(tmp_path / name))]
    for masks in spellings:
        (prompt,) = read(masks=masks).objects
        assert np.array_equal(on(prompt), MASK)


FLAT = [
    *([SQUARE, TRIANGLE], [SQUARE, SQUARE], [TRIANGLE] * 20, np.array([SQUARE] * 3)),
    *([ROUND] * 16, [np.array(ROUND)] * 18),
]


@pytest.mark.parametrize("polygons", FLAT)
def test_flat_polygons_are_an_object_each(polygons):
    objects = read(masks=polygons).objects
    assert len(objects) == len(polygons) and all(one.mask.shape == SHAPE and on(one).any() for one in objects)


WRONG_MASKS = {
    "two corners": [[[10.0, 10], [50, 50]]],
    "two corners of whole numbers": [[[0, 0], [50, 50]]],
    "no polygon": {"polygons": []},
    "an empty polygon": {"polygons": [[]]},
    "None for a polygon": {"polygons": [None]},
    "three numbers": {"polygons": [[1, 2, 3]]},
    "text": {"polygons": ["abc"]},
    "a line": [[[1, 1], [20, 20], [40, 40]]],
    "a point thrice": [[[9, 9], [9, 9], [9, 9]]],
    "normalised": [np.array([[0.4, 0.1], [0.6, 0.1], [0.6, 0.3]])],
    "normalised, flat": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9], [0.1, 0.1, 0.5, 0.1, 0.5, 0.5]],
    "normalised corners 0 and 1": [[0, 0, 1, 0, 1, 1, 0, 1]],
    "colours": NOISE,
    "channels last": np.stack([MASK] * 5, -1),
    "grey levels": np.linspace(0, 255, 4800).reshape(SHAPE),
    "a masked array": np.ma.masked_array(BYTES, MASK),
    "a sparse tensor": torch.from_numpy(BYTES).to_sparse(),
    "a nested tensor": nested(torch.from_numpy(BYTES)),
    "a nested tensor in a list": [MASK, nested(torch.from_numpy(BYTES))],
    "a map of labels": BYTES // 255 + (np.arange(80) > 40),
    "run lengths of another shape": rle_encode(MASK.T),
    "run lengths of a huge mask": {"size": [50000, 50000], "counts": [2500000000]},
    "run lengths beyond int64": {"size": [10**15, 10**15], "counts": [10**30]},
    "run lengths with a fraction": {"size": [60, 80], "counts": [4799.5, 0.5]},
    "run lengths of no size": {"size": None, "counts": [4800]},
    "run lengths that never end": {"size": [60, 80], "counts": "o" * 1000},
    "run lengths of other letters": {"size": [60, 80], "counts": "\u2603~"},
}


@pytest.mark.parametrize("name", WRONG_MASKS)
def test_a_mask_that_is_none_is_refused(name):
    with pytest.raises(PromptError, match="masks"):
        read(masks=WRONG_MASKS[name])


def test_two_objects_in_the_colours_of_a_palette_are_not_one(tmp_path):
    index = BYTES // 255
    index[20:40, 10:20] = 2
    image = Image.frombytes("P", (80, 60), index.tobytes())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "two.png")
    for masks in (image, str(tmp_path / "two.png")):
        with pytest.raises(PromptError, match="colours"):
            read(masks=masks)


def test_run_lengths_take_memory_only_where_there_is_some(monkeypatch):
    monkeypatch.setattr("samplug.resources.free_memory", lambda: 10**8)
    with pytest.raises(OutOfMemoryError):
        Prompts.read(masks=[{"size": [30000, 30000], "counts": [900000000]}], shape=(3000, 3000))
    with pytest.raises(ValueError, match="at most"):
        rle_decode({"size": [2**16, 2**16], "counts": [2**32]})
    with pytest.raises(ValueError, match="has no place"):  # or a number of five bits a letter, however many
        rle_decode({"size": [60, 80], "counts": "o" * 1000 + "0"})


def npy(dtype, shape):
    """A .npy file of a few bytes whose header claims any array."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\0v\0" + header.encode().ljust(117) + b"\n" + b"x" * 64


BAD_FILES = {
    "zero.png": b"",
    "page.png": b"<html>",
    "empty.npy": b"",
    "cut.npy": b"\x93NUMPY\x01\0",
    "giant.npy": npy("<f8", (10**12,)),
    "object.npy": npy("|O", (2, 2)),
    "python.npy": b"\x93NUMPY\x01\0\x05\0(((((",
}


@pytest.mark.parametrize("name", [*BAD_FILES, "nowhere.png", "x" * 5000, "null\0byte.png"])
def test_a_broken_mask_file_is_a_wrong_prompt(tmp_path, name):
    if name in BAD_FILES:
        (tmp_path / name).write_bytes(BAD_FILES[name])
    with pytest.raises(PromptError, match="masks"):
        read(masks=str(tmp_path / name))


SLIPS = {
    "one box of two in 0-1": {"bboxes": [[20, 10, 40, 30], [0.42, 0.11, 0.56, 0.31]]},
    "boxes in 0-1": {"bboxes": [[0.42, 0.11, 0.56, 0.31]]},
    "clicks in 0-1": {"points": [[[0.5, 0.4], [0.2, 0.9]]]},
    "width and height for a corner": {"bboxes": [[60, 10, 15, 40]]},
    "a mask of another shape": {"masks": np.ones((60, 20), bool)},
    "a transposed mask": {"masks": MASK.T},
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_reported_once_a_run_and_strictly_refused(name, capture_log):
    log = SlipLog()
    with log.active():
        read(**SLIPS[name])
        read(**SLIPS[name])
    (argument,) = SLIPS[name]
    assert len(capture_log) == 1 and argument in capture_log[0]
    with SlipLog(strict=True).active(), pytest.raises(PromptError, match=r"\(strict=True\)"):
        read(**SLIPS[name])


@pytest.mark.parametrize(
    "fine", [{"points": [0, 0]}, {"points": [[1, 1]]}, {"bboxes": [0, 0, 80, 60]}, {"points": [[0.5, 0.5], [30, 9]]}]
)
def test_what_is_no_slip_is_not_reported(fine):
    with SlipLog(strict=True).active():
        read(**fine)


def deep(levels):
    value = [3, 4]
    for _ in range(levels):
        value = [value]
    return value


endless: list = []
endless.append(endless)
WRONG_NUMBERS = {
    "masked": {"points": np.ma.masked_array([[35.0, 7]], mask=[[0, 1]])},
    "masked in a list": {"points": [np.ma.masked_array([35.0, 7], mask=[0, 1])]},
    "sparse": {"points": torch.tensor([[35.0, 7]]).to_sparse()},
    "meta": {"points": torch.zeros(1, 2, device="meta")},
    "nested": {"bboxes": torch.nested.as_nested_tensor([torch.zeros(4), torch.zeros(4)], layout=torch.jagged)},
    "endless": {"points": endless},
    "deep": {"points": deep(3000)},
    "deep boxes": {"bboxes": deep(3000)},
    "a box that float32 collapses": {"bboxes": [35, 7, 35 + 1e-7, 9]},
    "a box of 1e-300": {"bboxes": [0, 0, 1e-300, 9]},
    "a click that float32 moves out": {"points": [79.99999999, 5]},
    "an id with a fraction": {"points": [35, 7], "obj_ids": [7.9]},
    "an id that is NaN": {"points": [35, 7], "obj_ids": [float("nan")]},
    "an id in text": {"points": [35, 7], "obj_ids": ["7"]},
    "a class with a fraction": {"points": [35, 7], "cls": 1.5},
    "a name of class 1.5": {"points": [35, 7], "names": {1.5: "a"}},
    "a class named twice": {"points": [35, 7], "names": {"1": "a", "01": "b"}},
}


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_numbers_that_are_none_are_refused(name):
    with pytest.raises(PromptError):
        read(**WRONG_NUMBERS[name])


def test_a_tensor_with_a_negative_bit_is_its_values():
    negative = torch.complex(torch.tensor([[35.0, 7]]), torch.tensor([[-35.0, -7]])).conj().imag
    assert negative.is_neg() and read(points=negative).objects[0].points.tolist() == [[35, 7]]


@pytest.mark.parametrize("obj_id", [7.9, None, float("nan"), "seven", True, 2**60, [1]])
def test_an_id_is_one_whole_number(obj_id):
    with pytest.raises(PromptError, match="obj_id"):
        read_object(obj_id, {"points": [35, 7]}, SHAPE)
    assert read_object(7.0, {"points": [35, 7]}, SHAPE).ids == (7,)


@pytest.mark.parametrize("frame", [-1, "-1", -(2**40)])
def test_a_frame_is_counted_from_0(frame):
    with pytest.raises(PromptError, match="frame_idx"):
        VideoPrompts(RawPrompts(prompts={frame: {3: {"points": [[35, 7]]}}}), 1).for_video(0, "a.mp4")


JSON = {
    "a key twice": '{"points": [[1, 1]], "points": [[2, 2]]}',
    "a key twice inside": '{"0": {"7": {"points": [[1, 1]]}, "7": {"points": [[2, 2]]}}}',
    "NaN": '{"points": [[NaN, 1]]}',
    "infinity": '{"points": [[-Infinity, 1]]}',
    "deep lists": "[" * 100000,
    "deep objects": '{"a":' * 100000,
    "cut short": '{"points": [[1',
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_decoded_strictly(tmp_path, name):
    (tmp_path / "p.json").write_text(JSON[name])
    with pytest.raises(PromptError, match="cannot be read as JSON"):
        read(prompts=tmp_path / "p.json")


@pytest.mark.parametrize("prompts", ['{"0": {"007": {}, "7": {}}}', '{"0": {"7": {}}, "00": {"8": {}}}'])
def test_two_spellings_of_a_number_are_one_number_twice(prompts):
    with pytest.raises(PromptError, match="twice"):
        VideoPrompts(RawPrompts(prompts=json.loads(prompts)), 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.json")
    os.mkfifo(tmp_path / "m.png")
    for spelling in ({"prompts": tmp_path / "p.json"}, {"masks": tmp_path / "m.png"}):
        with pytest.raises(PromptError):
            read(**spelling)


def test_detections_of_supervision_keep_classes_names_and_ids():
    class Detections:
        xyxy = np.array([[20, 4, 27, 11.0], [30, 4, 37, 11]])
        class_id, tracker_id = np.array([5, 6]), np.array([11, 12])
        data = {"class_name": np.array(["cat", "dog"])}

    prompts = read(prompts=Detections())
    assert (prompts.cls, prompts.ids, prompts.names) == ((5, 6), (11, 12), {5: "cat", 6: "dog"})
    Detections.class_id = Detections.tracker_id = None
    assert read(prompts=Detections()).cls is None
