"""Formats of labels: there and back every pixel, class and id; what others' tools read is the same."""

import json
import weakref

import numpy as np
import pytest
from support.labels.readers import READERS, by_key, mots, stem
from support.labels.records import CLASSES, odd_masks, random_mask, records, write

from samplug.data.formats import WRITERS, read_labels
from samplug.data.formats.base import image_name
from samplug.data.formats.label_studio import pack_brush, unpack_brush
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.data.help import LABEL_FORMATS, check_formats, format_names
from samplug.data.label_boxes import LabelBoxes
from samplug.errors import DataError

EXCLUSIVE = ("png", "mots")  # a pixel belongs to one object
VISIBLE = ("ytvis", "burst", "mots", "sa", "cvat", "png")  # an object without pixels is not there


def truth_of(given, name):
    """What a format is to give back: (class, pixels, id in a video) by image."""
    rows = [(stem(image_name(record)),) for record in given if name != "mots"]
    for record in given:
        for each in record.objects:
            shown = each.name if name != "png" or record.frame is not None else None
            if each.area or name not in VISIBLE or (name == "sa" and record.frame is None):
                rows.append((stem(image_name(record)), shown, each.mask, each.id))
    return by_key(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", READERS)
def test_every_pixel_class_and_id_comes_back(name, seed, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    given = records(seed, disjoint=name in EXCLUSIVE)
    assert by_key(READERS[name](write(name, tmp_path, given))) == truth_of(given, name)


def test_there_is_a_writer_for_every_format_of_the_help():
    assert tuple(WRITERS) == LABEL_FORMATS


@pytest.mark.parametrize("name", LABEL_FORMATS)
def test_nothing_at_all_is_written_and_read(name, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    path = write(name, tmp_path, [])
    assert path.exists()
    if name != "yolo" and name != "cvat":
        assert by_key(READERS[name](path)) == {}


@pytest.mark.parametrize("name", LABEL_FORMATS)
def test_an_error_leaves_no_file_open_and_no_part_behind(name, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    writer = WRITERS[name](tmp_path, CLASSES, str)
    with pytest.raises(ZeroDivisionError), writer:
        writer.add(records(0)[0], [(0, each) for each in records(0)[0].objects])
        1 / 0  # noqa: B018
    assert not list(tmp_path.rglob(".*"))


def test_mots_keeps_masks_apart_by_score(tmp_path):
    size = (20, 30)
    low, high = np.zeros(size, bool), np.zeros(size, bool)
    low[:, :20], high[:, 10:] = True, True
    pair = (ObjectRecord.of_mask(low, 0, "cat", 0.3, id=0), ObjectRecord.of_mask(high, 0, "cat", 0.8, id=1))
    first, second = mots(write("mots", tmp_path, [ImageRecord("clip.mp4", size, 0, pair)]))
    assert np.array_equal(first[2], low & ~high) and np.array_equal(second[2], high)


def test_mots_ids_are_the_class_times_a_thousand(tmp_path):
    size = (20, 30)
    masks = [np.zeros(size, bool) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask[5 * i : 5 * i + 3] = True
    rows = [(1500, 0, "cat"), (0, 0, "cat"), (2, 3, "dog & <co>")]
    one = tuple(ObjectRecord.of_mask(m, c, n, id=i) for m, (i, c, n) in zip(masks, rows, strict=True))
    folder = write("mots", tmp_path, [ImageRecord("clip.mp4", size, frame, one) for frame in (0, 1)])
    lines = [line.split(" ")[:5] for line in (folder / "clip.txt").read_text().splitlines()]
    assert lines[:3] == [["0", "1000", "1", "20", "30"], ["0", "1001", "1", "20", "30"], ["0", "4002", "4", "20", "30"]]
    assert [line[1:] for line in lines[3:]] == [line[1:] for line in lines[:3]]


def test_lvis_counts_its_classes(tmp_path):
    content = json.loads(write("lvis", tmp_path, records(0)).read_text())
    found = {
        each["name"]: (each["image_count"], each["instance_count"], each["frequency"]) for each in content["categories"]
    }
    truth = {name: ([], []) for name in CLASSES}
    for i, record in enumerate(records(0)):
        for each in record.objects:
            truth[each.name][0].append(i)
    assert found == {name: (len(set(images)), len(images), "r") for name, (images, _) in truth.items()}
    assert all(image["neg_category_ids"] == [] for image in content["images"])


def test_sa_v_knows_when_an_object_is_seen(tmp_path):
    folder = write("sa", tmp_path, records(0))
    video = json.loads((folder / "clip.json").read_text())
    seen = dict(zip(video["masklet_id"], video["masklet_first_appeared_frame"], strict=True))
    assert seen == {4: 0, 7: 0, 250: 0, 9: 2} and video["masklet_num"] == 4


@pytest.mark.parametrize("seed", range(5))
def test_a_brush_is_unpacked_again_whatever_its_widths(seed):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, (int(rng.integers(1, 300)), int(rng.integers(1, 300))))
    assert np.array_equal(unpack_brush(pack_brush(mask), mask.shape), mask)


def test_a_brush_of_single_bytes_is_read(tmp_path):
    """Label Studio's own packer writes bytes that differ from their neighbours as they are."""
    pixels = [0, 0, 0, 0, 10, 20, 30, 255]
    bits = f"{8:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits += (
        "1" + "00" + f"{4 - 1:03b}" + f"{0:08b}" + "0" + "00" + f"{4 - 1:03b}" + "".join(f"{p:08b}" for p in pixels[4:])
    )
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert unpack_brush(data, (1, 2)).tolist() == [[False, True]]


CVAT = """<annotations><image id="0" name="a.jpg" width="40" height="30">
<box label="car" xtl="3.5" ytl="4" xbr="20" ybr="25"/><polygon label="bus" points="1,1;11,1;11,9;1,9"/>
<points label="car" points="1,2"/></image></annotations>"""
TASKS = [
    {
        "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
        "annotations": [
            {
                "result": [
                    {"type": "choices", "value": {"choices": ["x"]}},
                    {"type": "rectanglelabels", "original_width": 40, "original_height": 30,
                     "value": {"x": 8.75, "y": 40 / 3, "width": 41.25, "height": 70, "rectanglelabels": ["car"]}},
                    {"type": "polygonlabels", "original_width": 40, "original_height": 30,
                     "value": {"points": [[2.5, 10 / 3], [27.5, 10 / 3], [27.5, 30], [2.5, 30]],
                               "polygonlabels": ["bus"]}},
                ]
            }
        ],
    }
]  # fmt: skip
DATUMARO = {
    "categories": {"label": {"labels": [{"name": "car"}, {"name": "bus"}]}},
    "items": [
        {"id": "a", "attr": {}, "image": {"path": "a.jpg", "size": [30, 40]}, "annotations": [
            {"type": "bbox", "label_id": 0, "bbox": [3.5, 4, 16.5, 21]},
            {"type": "polygon", "label_id": 1, "points": [1, 1, 11, 1, 11, 9, 1, 9]},
            {"type": "label", "label_id": 1}]}
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"), [("a.xml", CVAT), ("a.json", json.dumps(TASKS)), ("b.json", json.dumps(DATUMARO))]
)
def test_boxes_and_polygons_of_other_tools_become_prompts(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    labels = LabelBoxes.of_records(read_labels(tmp_path / name))
    boxes, classes = labels.boxes_of("deep/a.jpg", "/somewhere/deep/a.jpg", (30, 40))
    assert boxes == pytest.approx(np.array([[3.5, 4, 20, 25], [1, 1, 11, 9]]))
    assert [labels.names[number] for number in classes] == ["car", "bus"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.xml", "<annotations><image", "is not xml"),
        ("a.xml", "<annotations/>", "has no image"),
        ("a.xml", CVAT.replace("1,1;11,1", "1,1;x"), "cannot be read as labels"),
        ("a.json", json.dumps({"items": [{}], "categories": {"label": {"labels": []}}}), "cannot be read as labels"),
    ],
)
def test_damaged_labels_are_refused_with_their_file(name, text, reason, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=reason):
        list(read_labels(tmp_path / name))


@pytest.mark.parametrize(
    "content", [{"images": [], "annotations": [], "categories": [], "videos": []}, {"a.jpg": {}}, [1]]
)
def test_what_others_read_is_left_to_them(content, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_labels(tmp_path / "a.json") is None and read_labels(tmp_path) is None


def test_a_mask_knows_its_box_area_and_parts():
    drawn = odd_masks((30, 40))
    full, ring, corners, pixel, line, nothing = made = [ObjectRecord.of_mask(mask, 0, "x") for mask in drawn]
    assert all(np.array_equal(each.mask, mask) for each, mask in zip(made, drawn, strict=True))
    assert full.box == (0, 0, 40, 30) and ring.box == (4, 3, 18, 15) and nothing.box == (0, 0, 0, 0)
    assert [each.parts for each in (full, ring, corners, pixel, line, nothing)] == [1, 1, 4, 1, 1, 0]
    assert [each.area for each in (full, corners, pixel, line, nothing)] == [1200, 4, 1, 40, 0]


def test_parquet_says_what_it_needs_before_a_job_begins(monkeypatch):
    monkeypatch.setattr("samplug.data.help.find_spec", lambda name: None)
    check_formats(format_names("coco, yolo"), "format")
    with pytest.raises(DataError, match=r"pip install samplug\[parquet\]"):
        check_formats(format_names(["parquet"]), "format")


@pytest.mark.parametrize("name", LABEL_FORMATS)
def test_no_format_keeps_the_images_that_it_has_written(name, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    written, alive = [], []

    def images():
        for i in range(20):
            mask = np.zeros((16, 16), bool)
            mask[2:9, 3:12] = True
            record = ImageRecord(f"{i}.png", mask.shape, None, (ObjectRecord.of_mask(mask, 0, "cat"),))
            written.append(weakref.ref(record))
            alive.append(sum(one() is not None for one in written))
            yield record

    write(name, tmp_path, images())
    assert max(alive) <= 4
