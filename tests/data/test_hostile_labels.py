"""Labels that exist, as boxes for annotation: what is none is refused in words, and nothing is answered wrongly."""

import json

import numpy as np
import pytest

from samplug import SAM2Predictor
from samplug.annotate.plan import Source
from samplug.annotate.work.prompters import prompter_of
from samplug.errors import DataError, JobError, PromptError

IMAGE = np.zeros((120, 160, 3), np.uint8)
BOX = [75, 13, 15, 24]
NAN, INFINITE = float("nan"), 1e400


def boxes_of(path):
    """The boxes that labels give for the image a.png."""
    prompter = prompter_of(str(path), SAM2Predictor, None, 0.25)
    (found,) = prompter([IMAGE], [Source("a.png", "/somewhere/a.png", 1, 1)])
    return [one.box.tolist() for one in found.objects]


def coco(**parts):
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX}
    image = {"id": 1, "file_name": "a.png", "width": 160, "height": 120}
    return {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "x"}], **parts}


def of(**changes):
    return {"annotations": [{"image_id": 1, "category_id": 1, "bbox": BOX, **changes}]}


COCO = {
    "annotations are a number": {"annotations": 3},
    "annotations are numbers": {"annotations": [3]},
    "a box of text": of(bbox=["a"] * 4),
    "a box of three": of(bbox=[1, 2, 3]),
    "a box that is endless": of(bbox=[INFINITE, 2, 3, 4]),
    "a box of negative width": of(bbox=[75, 13, -15, 24]),
    "an image that is not there": of(image_id=9),
    "a class that is a list": of(category_id=[1]),
    "images without ids": {"images": [{"file_name": "a.png"}]},
    "categories are a number": {"categories": 5},
    "categories without ids": {"categories": [{}]},
}


@pytest.mark.parametrize("name", COCO)
def test_a_coco_file_that_is_none_is_refused(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(coco()))
    assert boxes_of(tmp_path / "a.json") == [[75, 13, 90, 37]]
    (tmp_path / "a.json").write_text(json.dumps(coco(**COCO[name])).replace("Infinity", "1e400"))
    with pytest.raises(DataError, match="COCO|a label has a box"):
        boxes_of(tmp_path / "a.json")


YOLO = {
    "a class that is endless": b"inf .5 .5 .2 .2",
    "a negative class": b"-1 .5 .5 .2 .2",
    "half a class": b"1.5 .5 .5 .2 .2",
    "a class beyond all": b"1e30 .5 .5 .2 .2",
    "a box that is no number": b"0 nan .5 .2 .2",
    "a box in pixels": b"0 80 60 30 20",
    "a negative size": b"0 .5 .5 -.2 .2",
    "an outline in pixels": b"0 10 10 50 10 50 50 10 50",
    "half a corner": b"0 .1 .1 .5 .1 .5 .5 .1",
    "no text": b"\xff\xfe",
    "words": b"cat .5 .5 .2 .2",
}


@pytest.mark.parametrize("name", YOLO)
def test_a_line_that_is_no_label_of_yolo_is_refused_with_its_number(tmp_path, name):
    (tmp_path / "a.txt").write_bytes(b"0 .5 .5 .2 .2\n\n" + YOLO[name])
    with pytest.raises(DataError, match=r"a.txt, line 3: .* is neither a box nor an outline \("):
        boxes_of(tmp_path)


@pytest.mark.parametrize("line", [b"2 0.5 0.5 0.2 0.2", b"2 .4 .4 .6 .4 .6 .6 .4 .6", b"2.0 .5 .5 .2 .2\r"])
def test_a_line_that_is_one_is_its_box(tmp_path, line):
    (tmp_path / "a.txt").write_bytes(line)
    assert np.allclose(boxes_of(tmp_path), [[64, 48, 96, 72]], atol=1e-4)


@pytest.mark.parametrize("text", [b"names: 5", b"names: cat", b"names: {a: b}", b"[1]", b"{", b"\xff", b"[" * 2000])
def test_names_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(b"0 .5 .5 .2 .2")
    (tmp_path / "data.yaml").write_bytes(text)
    with pytest.raises(DataError, match=r"data.yaml"):
        boxes_of(tmp_path)


def cvat(shapes, size='width="160" height="120"'):
    return f'<?xml version="1.0"?><annotations><image name="a.png" {size}>{shapes}</image></annotations>'


CVAT = {
    "a mask left of its image": cvat('<mask label="x" rle="0,4" left="-5" top="5" width="2" height="2"/>'),
    "a mask beyond its image": cvat('<mask label="x" rle="0,4" left="159" top="119" width="2" height="2"/>'),
    "a polygon that is no number": cvat('<polygon label="x" points="nan,1;9,1;9,9"/>'),
    "an endless box": cvat('<box label="x" xtl="inf" ytl="1" xbr="inf" ybr="9"/>'),
    "a box from right to left": cvat('<box label="x" xtl="9" ytl="1" xbr="1" ybr="9"/>'),
    "a box without corners": cvat('<box label="x"/>'),
    "an id of text": cvat(
        '<box label="x" xtl="1" ytl="1" xbr="9" ybr="9"><attribute name="track_id">x</attribute></box>'
    ),
    "a size beyond all memory": cvat('<polygon label="x" points="1,1;9,1;9,9"/>', 'width="99999999" height="99999999"'),
    "an endless size": cvat("", 'width="inf" height="120"'),
    "elements nested too deeply": "<a>" * 100_000,
    "an entity of a file": '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    + cvat('<box label="&e;" xtl="1" ytl="1" xbr="9" ybr="9"/>').partition("?>")[2],
}


@pytest.mark.parametrize("name", CVAT)
def test_a_file_of_cvat_that_is_none_is_refused(tmp_path, name):
    (tmp_path / "a.xml").write_text(CVAT[name])
    with pytest.raises(DataError, match="a.xml|a label has a box"):
        boxes_of(tmp_path / "a.xml")


def datumaro(*shapes, size=(120, 160)):
    item = {"id": "a", "image": {"path": "a.png", "size": size}, "annotations": [*shapes]}
    return {"categories": {"label": {"labels": [{"name": "x"}, {"name": "y"}]}}, "items": [item]}


def shape(kind, label=0, **content):
    return {"type": kind, "label_id": label, **content}


TRIANGLE = shape("polygon", points=[10, 10, 60, 10, 60, 60])
DATUMARO = {
    "a class that is not there": datumaro(shape("bbox", 9, bbox=BOX)),
    "a class counted from the end": datumaro(shape("bbox", -1, bbox=BOX)),
    "a box that is no number": datumaro(shape("bbox", bbox=[1, 2, NAN, 4])),
    "a polygon that is endless": datumaro(shape("polygon", points=[INFINITE, 1, 5, 5, 9, 1])),
    "half a corner": datumaro(shape("polygon", points=[1, 1, 5])),
    "a mask of another size": datumaro(shape("mask", rle={"size": [5, 5], "counts": [0, 25]})),
    "a size beyond all memory": datumaro(TRIANGLE, size=(10**6, 10**6)),
    "a size of text": datumaro(TRIANGLE, size=("a", 1)),
    "a negative size": datumaro(TRIANGLE, size=(-5, 5)),
}


@pytest.mark.parametrize("name", DATUMARO)
def test_a_file_of_datumaro_that_is_none_is_refused(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(datumaro(TRIANGLE)))
    assert np.allclose(boxes_of(tmp_path / "a.json"), [[10, 10, 60, 60]], atol=1.5)
    text = json.dumps(DATUMARO[name]).replace("Infinity", "1e400")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises((DataError, PromptError), match="a.json|a label has a box"):  # NaN is no JSON
        boxes_of(tmp_path / "a.json")


def studio(kind, rows=120, /, **value):
    row = {"type": kind, "original_height": rows, "original_width": 160, "value": value}
    return [{"data": {"image": "/data/local-files/?d=a.png"}, "annotations": [{"result": [row]}]}]


SIDES = {"x": 10, "y": 10, "width": 5, "height": 5}
STUDIO = {
    "an endless box": studio("rectanglelabels", **SIDES | {"x": INFINITE}, rectanglelabels=["x"]),
    "a negative width": studio("rectanglelabels", **SIDES | {"width": -5}, rectanglelabels=["x"]),
    "no class": studio("rectanglelabels", **SIDES, rectanglelabels=[]),
    "an image of no height": studio("rectanglelabels", 0, **SIDES, rectanglelabels=["x"]),
    "a height of text": studio("rectanglelabels", "a", **SIDES, rectanglelabels=["x"]),
    "a polygon of no corner": studio("polygonlabels", points=[], polygonlabels=["x"]),
    "a brush of two bytes": studio("brushlabels", rle=[0, 1], brushlabels=["x"]),
    "a brush of ones": studio("brushlabels", rle=[255] * 400, brushlabels=["x"]),
    "a brush of no bytes": studio("brushlabels", rle=[300] * 40, brushlabels=["x"]),
    "no image": [{"data": {}}],
}


@pytest.mark.parametrize("name", STUDIO)
def test_tasks_of_label_studio_that_are_none_are_refused(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(STUDIO[name]).replace("Infinity", "1e400"))
    with pytest.raises(DataError, match="a.json|a label has a box"):
        boxes_of(tmp_path / "a.json")


def test_an_empty_list_is_no_labels(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(JobError, match="a.json is an empty list"):
        boxes_of(tmp_path / "a.json")
