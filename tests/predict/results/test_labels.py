"""`save_format`: predict and track write labels by annotation's writers; results as run lengths, COCO and polygons."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from support.images import draw
from support.labels.readers import READERS
from support.videos import film, write_video

from samplug import SAM
from samplug.data.formats import read_labels
from samplug.errors import DataError  # the shell makes a line of it
from samplug.masks.rle import rle_decode
from samplug.predict.results.labels import LabelFiles
from samplug.predict.results.mask_results import MaskResults

BOXES = [[30, 20, 70, 60], [60, 30, 110, 80]]


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(str(nano_file))


@pytest.fixture
def run(model, tmp_path):
    """Predict or track into a folder; the folder and the results."""

    def call(verb, source, formats, **given):
        options = {"imgsz": 64, "verbose": False, "project": str(tmp_path), "name": "run", "exist_ok": True}
        results = getattr(model, verb)(source, save_format=formats, **{**options, **given})
        return tmp_path / "run", results

    return call


def images(tmp_path, names):
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), draw(80, 120, i))
    return [str(tmp_path / name) for name in names]


def test_predict_writes_what_it_returns_in_every_format(run, tmp_path):
    files = images(tmp_path, ["a/x.png", "b/x.png"])
    names = {4: "cat", 6: "dog"}
    folder, results = run("predict", files, "coco,yolo,png,cvat", bboxes=BOXES, cls=[4, 6], names=names)
    content = json.loads((folder / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["x.png", "b/x.png"]
    assert {each["id"]: each["name"] for each in content["categories"]} == {5: "cat", 7: "dog"}
    masks = [mask for result in results for mask in result.masks.data.bool().numpy() if mask.any()]
    assert len(masks) == len(content["annotations"]) > 0
    for row, mask in zip(content["annotations"], masks, strict=True):
        assert np.array_equal(rle_decode(row["segmentation"]), mask)
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"][6] == "dog"
    assert (folder / "images" / "b" / "x.png").resolve() == tmp_path / "b" / "x.png"
    assert (folder / "masks" / "x.png").exists() and len(list(read_labels(folder / "cvat.xml"))) == 2


def test_tracks_keep_their_ids_and_frames_their_numbers(run, tmp_path):
    write_video(tmp_path / "film.avi", film())
    options = {"bboxes": [[30, 20, 70, 60]], "track": True, "obj_ids": [7]}
    folder, results = run("track", str(tmp_path / "film.avi"), ["burst", "yolo"], save_frames=True, **options)
    found = list(READERS["burst"](folder / "burst.json"))
    assert [row[0] for row in found if len(row) == 1] == [f"film/{result.frame:06d}" for result in results]
    masks = [mask for result in results for mask in result.masks.data.bool().numpy() if mask.any()]
    rows = [row for row in found if len(row) > 1]
    assert masks and all(row[3] == 7 and np.array_equal(row[2], mask) for row, mask in zip(rows, masks, strict=True))
    frame = cv2.imread(str(folder / "images" / "film" / "000003.jpg"))
    assert np.abs(frame.astype(int) - results[3].orig_img).mean() < 8


def test_images_in_memory_become_files_beside_their_labels(run):
    folder, _ = run("predict", [draw(80, 120, 0), draw(80, 120, 1)], "yolo", bboxes=BOXES)
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["image0.jpg", "image1.jpg"]
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == {0: "object"}


def test_a_run_that_is_broken_off_leaves_whole_labels_of_what_was_done(model, tmp_path):
    files = images(tmp_path, ["a.png", "b.png", "c.png"])
    options = {"imgsz": 64, "verbose": False, "project": str(tmp_path), "name": "run", "stream": True}
    results = model.predict(files, save_format="coco", bboxes=BOXES, **options)
    next(results), next(results)
    results.close()
    assert len(json.loads((tmp_path / "run" / "annotations.json").read_text())["images"]) == 2


def test_streams_that_come_by_turns_are_refused(tmp_path):
    result = MaskResults(np.zeros((20, 30, 3), np.uint8), "a", {})
    other = MaskResults(np.zeros((20, 30, 3), np.uint8), "b", {})
    written = LabelFiles("mots", tmp_path, False).watch(iter_of(result, result, other, result), lambda: [result, other])
    with pytest.raises(DataError, match="by turns"):
        list(written)


def iter_of(*items):
    yield from items


def test_a_second_run_into_one_folder_replaces_its_labels(run, tmp_path):
    files = images(tmp_path, ["a.png"])
    for _ in range(2):
        folder, _ = run(
            "predict", files, "coco,yolo,png,mots,sa,labelstudio,lvis,ytvis,burst,datumaro,cvat", bboxes=BOXES
        )
    assert len(json.loads((folder / "annotations.json").read_text())["images"]) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"save_format": "voc"}, "give some of yolo,coco"), ({"save_format": "yolo", "save_txt": True}, "save_txt")],
)
def test_what_cannot_be_written_is_refused_before_the_first_image(model, tmp_path, given, reason):
    with pytest.raises(DataError, match=reason):
        model.predict(draw(80, 120, 0), imgsz=64, bboxes=BOXES, project=str(tmp_path), **given)


@pytest.mark.parametrize(
    ("source", "formats", "name"),
    [
        ("ds/images", "yolo", "ds"),
        ("ds/images/*.png", "coco,yolo", "ds"),
        ("ds/images/train", "yolo", "ds"),
        ("linked", "yolo", "ds"),
        ("ds/images", "png", "ds"),
    ],
)
def test_labels_never_take_the_place_of_the_sources_files(run, tmp_path, monkeypatch, source, formats, name):
    images(tmp_path, ["ds/images/a.png", "ds/images/train/b.png"])
    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to("ds/images")
    Path("ds/data.yaml").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if "yolo" in formats:
        with pytest.raises(DataError, match=r"ds/images is where labels would be written.*project= or name="):
            run("predict", source, formats, bboxes=BOXES, name=name, save=True)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    else:
        run("predict", source, formats, bboxes=BOXES, name=name)
    for _ in range(2):  # a folder of its own in that of the source
        run("predict", "ds/images/a.png", "yolo", bboxes=BOXES, project=str(tmp_path / "ds" / "images"), name="run")
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}.items()


@pytest.fixture
def ring():
    """A result of a ring, of two parts, and of nothing."""
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 2:12, 3:15], masks[0, 5:8, 6:11] = True, False
    masks[1, 1:3, 20:25] = masks[1, 15:18, 2:9] = True
    boxes = torch.tensor([[3, 2, 14, 11, 0.9, 4.0], [2, 1, 24, 17, 0.8, 2], [0, 0, 0, 0, 0.1, 2]])
    return MaskResults(np.zeros((20, 30, 3), np.uint8), "a.png", {2: "cat", 4: "dog"}, boxes=boxes, masks=masks)


def test_results_give_run_lengths_and_coco(ring):
    assert all(np.array_equal(rle_decode(rle), mask) for rle, mask in zip(ring.to_rle(), ring.masks.data, strict=True))
    rows = ring.to_coco(image_id=9, first_id=5)
    assert [(row["id"], row["image_id"], row["category_id"]) for row in rows] == [(5, 9, 5), (6, 9, 3), (7, 9, 3)]
    assert rows[0]["bbox"] == [3, 2, 12, 10] and rows[0]["area"] == 12 * 10 - 15
    assert [row["segmentation"] for row in rows] == ring.to_rle()


def test_polygons_have_parts_and_holes(ring):
    drawn = np.zeros((20, 30), np.uint8)
    polygons = ring.to_polygons()
    assert [[len(part) for part in parts] for parts in polygons] == [[2], [1, 1], []]
    cv2.fillPoly(drawn, polygons[0][0][:1], 1)
    inside = np.zeros((20, 30), np.uint8)
    cv2.fillPoly(inside, polygons[0][0][1:], 1)
    cv2.polylines(inside, polygons[0][0][1:], True, 0)
    assert np.array_equal(drawn > inside, ring.masks.data[0].numpy())
    assert sorted(map(tuple, polygons[0][0][0].tolist())) == [(3, 2), (3, 11), (14, 2), (14, 11)]


def test_a_result_without_masks_gives_nothing():
    empty = MaskResults(np.zeros((20, 30, 3), np.uint8), "a.png", {})
    assert empty.to_rle() == empty.to_coco() == empty.to_polygons() == []


@pytest.mark.parametrize("order", ["aa", "aba"])
def test_an_image_that_comes_twice_would_have_one_label_and_is_refused(run, tmp_path, order):
    files = dict(zip("ab", images(tmp_path, ["a.png", "b.png"]), strict=True))
    with pytest.raises(DataError, match=r"a.png: the image comes again"):
        run("predict", [files[name] for name in order], "coco", bboxes=BOXES)
    assert len(json.loads((tmp_path / "run" / "annotations.json").read_text())["images"]) == len({*order})


def test_labels_stay_in_the_folder_of_the_run_wherever_their_images_lie(run, tmp_path, monkeypatch):
    images(tmp_path, ["x.png", "below/x.png"])
    monkeypatch.chdir(tmp_path / "below")
    folder, _ = run("predict", ["../x.png", "x.png"], "yolo", bboxes=BOXES)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")) == [
        "labels/below/x.txt",
        "labels/x.txt",
    ]
