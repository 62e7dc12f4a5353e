"""What `data=` of a training names: split by group where it is not split, checked whole before the first step."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.datasets import (
    BLOCK,
    LAYOUTS,
    OTHER,
    as_davis,
    as_yolo,
    folder_of,
    index_of,
    save_image,
    save_index,
    settings,
)
from support.images import draw

from samplug.data.open import open_data
from samplug.errors import DataError
from samplug.masks.rle import rle_encode
from samplug.train.data.check import twins
from samplug.train.data.sets import TrainSets, open_sets
from samplug.train.data.splits import groups_of, hold_out

SIZE = (64, 64)


def several(tmp_path, count=6, **given):
    return folder_of(tmp_path, *(draw(60, 80, seed) for seed in range(count)))


def sets_of(data, **given):
    return open_sets(settings(**given, data=str(data)), SIZE)


def names(data):
    return [file.path.name for file in data.images.keys]


def test_where_nothing_is_named_to_measure_on_a_share_is_held_out(tmp_path):
    sets = sets_of(several(tmp_path, 10), holdout=0.3)
    assert len(sets.train.images) == 7 and len(sets.val.images) == 3
    assert not set(names(sets.train)) & set(names(sets.val))
    assert names(sets_of(tmp_path, holdout=0.3).val) == names(sets.val)
    assert names(sets_of(tmp_path, holdout=0.3, seed=1).val) != names(sets.val)
    assert "held out" in sets.lines[0] and sets.lines[1] == "train: 7 images, 14 objects"
    assert sets.counts["val objects"] == 6 and not sets.warnings


@pytest.mark.parametrize(
    "stems, count",
    [
        (["a.rf.0f3c", "a.rf.99ab", "b.rf.1234", "b_jpg.rf.77"], 2),
        ([f"clip{clip}_{frame:04}" for clip in "abcdef" for frame in range(5)], 6),
        ([f"{number:06}" for number in range(9)], 9),  # a number alone says nothing
        ([f"IMG_{number}" for number in range(9)], 9),
        (["x", "x (1)", "x_copy", "y"], 2),
    ],
)
def test_images_of_one_video_and_copies_of_one_image_are_one_group(stems, count):
    groups, _ = groups_of([Path("images") / f"{stem}.jpg" for stem in stems])
    assert len(set(groups)) == count


def test_groups_are_held_out_whole_and_never_all_of_them():
    groups = [name for name in "abcdefgh" for _ in range(5)]
    for seed in range(20):
        train, val = hold_out(groups, 0.2, seed)
        assert sorted(train + val) == list(range(40)) and len(val) in (5, 10)
        assert not {groups[row] for row in train} & {groups[row] for row in val}
    assert hold_out(["a"] * 9, 0.2, 0)[1] == []
    assert len(hold_out(["a"] * 9 + ["b"], 0.5, 0)[1]) == 1


@pytest.mark.host
def test_a_yaml_whose_val_is_its_train_or_absent_is_split(tmp_path):
    as_yolo(tmp_path, BLOCK, OTHER)
    for number in range(4):
        shutil.copy(tmp_path / "images" / "a.jpg", tmp_path / "images" / f"{number}.jpg")
        shutil.copy(tmp_path / "labels" / "a.txt", tmp_path / "labels" / f"{number}.txt")
        save_image(tmp_path / "images" / f"{number}.jpg", number + 1)
    yaml = tmp_path / "data.yaml"
    absent = ("train: images\nnames: [a]\n", "There is no split val")
    for content, begins in ((yaml.read_text(), "val has the images of train"), absent):
        yaml.write_text(content)
        sets = sets_of(yaml)
        assert len(sets.train.images) == 4 and len(sets.val.images) == 1 and sets.classes == {0: "a"}
        assert sets.lines[0].startswith(begins) and "held out" in sets.lines[0]


@pytest.mark.host
def test_the_splits_of_a_data_set_are_used_and_another_set_too(tmp_path):
    for name in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
        save_image(tmp_path / "images" / name / f"{name}.jpg", len(name))
        save_index(tmp_path / "masks" / name / f"{name}.png", index_of(BLOCK))
    sets = sets_of(tmp_path)
    assert (names(sets.train), names(sets.val)) == (["train.jpg"], ["val.jpg"])
    other = folder_of(tmp_path / "other", draw(60, 80, 5)) if (tmp_path / "other").mkdir() is None else None
    sets = sets_of(tmp_path, val_data=str(other))
    assert (names(sets.train), names(sets.val)) == (["train.jpg"], ["0.png"])


def test_cocos_and_roboflows_files_of_splits_are_found(tmp_path):
    for folder, name, seed in (("train", "a", 1), ("valid", "b", 2)):
        save_image(tmp_path / folder / f"{name}.jpg", seed)
        rows = [{"id": 1, "image_id": 1, "category_id": 2, "segmentation": rle_encode(BLOCK)}]
        categories = [{"id": 2, "name": "block"}]
        content = {"images": [{"id": 1, "file_name": f"{name}.jpg"}], "annotations": rows, "categories": categories}
        (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(content))
    sets = sets_of(tmp_path)
    assert (names(sets.train), names(sets.val), sets.classes) == (["a.jpg"], ["b.jpg"], {2: "block"})


def test_a_share_of_what_is_to_learn_from_is_drawn(tmp_path):
    several(tmp_path, 10)
    sets, whole = sets_of(tmp_path, fraction=0.5), sets_of(tmp_path)
    assert len(sets.train.images) == 4 and set(names(sets.train)) < set(names(whole.train))
    assert names(sets.val) == names(whole.val)


BROKEN = {
    "an image": lambda root: (root / "images" / "3.png").write_bytes(b"broken"),
    "a mask": lambda root: (root / "masks" / "3.png").write_bytes(b"broken"),
    "a mask's size": lambda root: save_index(root / "masks" / "3.png", np.ones((9, 9))),
    "an absent image": lambda root: (root / "images" / "3.png").unlink(),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, what):
    BROKEN[what](several(tmp_path))
    with pytest.raises(DataError, match=r"3(\.png)?\b"):
        sets_of(tmp_path)


BROKEN_YOLO = {
    "an image": lambda root: (root / "images" / "a.jpg").write_bytes(b"broken"),
    "a number above one": lambda root: (root / "labels" / "a.txt").write_text("0 7 7 8 8 9 7"),
    "a class that has no name": lambda root: (root / "labels" / "a.txt").write_text("5 .1 .1 .2 .2 .1 .3"),
    "a box among outlines": lambda root: (root / "labels" / "a.txt").write_text("0 .1 .1 .2 .2 .1 .3\n0 .5 .5 .2 .2"),
}


@pytest.mark.host
@pytest.mark.parametrize("what", BROKEN_YOLO)
def test_what_ultralytics_would_leave_out_is_an_error_too(tmp_path, what):
    as_yolo(tmp_path, BLOCK)
    save_image(tmp_path / "images" / "b.jpg", 1)
    shutil.copy(tmp_path / "labels" / "a.txt", tmp_path / "labels" / "b.txt")
    BROKEN_YOLO[what](tmp_path)
    with pytest.raises(DataError, match=r"\ba\.(jpg|txt)"):
        sets_of(tmp_path / "data.yaml")


def test_boxes_alone_are_refused(tmp_path):
    file = LAYOUTS["coco"](tmp_path, BLOCK)
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 77, "image_id": 1, "bbox": [0, 0, 9, 9], "segmentation": []})
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 annotations have a box and no segmentation, the first with the id 77"):
        sets_of(file)


@pytest.mark.parametrize("index", [np.zeros((60, 80)), np.eye(60, 80)], ids=["empty", "too small"])
def test_a_data_set_without_an_object_to_learn_from_is_refused(tmp_path, index):
    several(tmp_path)
    for number in range(6):
        save_index(tmp_path / "masks" / f"{number}.png", index)
    with pytest.raises(DataError, match="no object to learn from that is visible"):
        sets_of(tmp_path)


def test_images_without_a_usable_object_are_left_out_and_counted(tmp_path):
    several(tmp_path, 6)
    index = np.zeros((60, 80))
    for number in (0, 1):
        save_index(tmp_path / "masks" / f"{number}.png", index)
    sets = sets_of(tmp_path)
    assert sets.counts["train left out"] == 2 and not {"0.png", "1.png"} & set(names(sets.train) + names(sets.val))
    assert "2 images without a usable object are left out." in sets.lines


def test_a_single_image_or_video_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match=r"has a single name.*val_data="):
        sets_of(several(tmp_path, 1))
    with pytest.raises(DataError, match="has a single video"):
        sets_of(as_davis(tmp_path / "videos", BLOCK), frames=2)


def test_the_same_image_on_both_sides_is_said(tmp_path):
    several(tmp_path, 6)
    first, second = (sets_of(tmp_path).train.images.keys[0].path, sets_of(tmp_path).val.images.keys[0].path)
    shutil.copy(first, second)
    (warning,) = sets_of(tmp_path).warnings
    assert "measured on too (1)" in warning and first.name in warning and second.name in warning


def test_twins_are_files_of_the_same_bytes(tmp_path):
    for name, content in (("a", b"12"), ("b", b"34"), ("c", b"12"), ("d", b"1")):
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert twins([a, b], [c, d]) == [(a, c)]


def test_masks_that_are_unions_of_objects_are_said(tmp_path):
    several(tmp_path, 6)
    index = np.zeros((60, 80))
    for column in range(4):
        index[10:40, 20 * column + 2 : 20 * column + 14] = 1
    for number in range(6):
        save_index(tmp_path / "masks" / f"{number}.png", index)
    (warning,) = sets_of(tmp_path).warnings
    assert "the union of its objects" in warning


def test_a_class_that_is_measured_alone_is_said(tmp_path):
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        file = LAYOUTS["coco"](tmp_path / name, BLOCK)
        content = json.loads(file.read_text())
        content["annotations"][0]["category_id"] = number
        content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        file.write_text(json.dumps(content))
        save_image(tmp_path / name / "images" / "a.jpg", number)
    sets = sets_of(tmp_path / "a" / "a.json", val_data=str(tmp_path / "b" / "a.json"))
    assert sets.warnings == ["Classes that are measured and not learned from: dog."]


def videos(tmp_path, *lengths):
    for video, length in enumerate(lengths):
        for number in range(length):
            save_image(tmp_path / "JPEGImages" / str(video) / f"{number}.jpg", 10 * video + number)
            save_index(tmp_path / "Annotations" / str(video) / f"{number}.png", index_of(BLOCK))
    return tmp_path


def test_videos_that_are_too_short_are_left_out_by_name_or_refused(tmp_path):
    sets = sets_of(videos(tmp_path, 4, 2, 4, 4), frames=3, seed=1)
    kept = [video.name for video in sets.train.videos]
    assert len(kept) == 2 and "1" not in [*kept, sets.val.videos[0].name]
    assert sets.warnings == ["Videos with fewer than frames=3 annotated frames, left out: 1 (2)."]
    with pytest.raises(DataError, match=r"no video of frames=5 annotated frames .* the longest has 4"):
        sets_of(tmp_path, frames=5)
    with pytest.raises(DataError, match="videos, which need SAM 2"):
        open_sets(settings(data=str(tmp_path)), SIZE, tracks=False)


def test_a_broken_mask_of_a_video_is_named(tmp_path):
    videos(tmp_path, 3, 3, 3)
    (tmp_path / "Annotations" / "1" / "2.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1/2\.png cannot be read"):
        sets_of(tmp_path, frames=2)


def test_another_data_set_has_another_fingerprint(tmp_path):
    first = sets_of(several(tmp_path)).fingerprint
    assert sets_of(tmp_path).fingerprint == first
    cv2.imwrite(str(tmp_path / "images" / "0.png"), draw(60, 80, 9))
    assert sets_of(tmp_path).fingerprint != first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_labels_of_the_same_images_have_another_fingerprint(tmp_path, layout):
    folder, seen = tmp_path / "data", []
    for masks in ([BLOCK, OTHER], [BLOCK, OTHER], [OTHER, BLOCK], [BLOCK, np.roll(OTHER, 1, 1)]):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        data = open_data(LAYOUTS[layout](folder, *masks), split="train")
        seen.append(TrainSets(data, data, {}).fingerprint)
    assert seen[0] == seen[1] and len(set(seen)) == 3
    assert len({each.partition("-")[0] for each in seen}) == 1  # the images are the same


def test_long_outlines_that_differ_in_one_corner_have_other_fingerprints(tmp_path):
    corners = np.stack([np.linspace(0.1, 0.9, 3000), 0.5 + 0.2 * np.sin(np.arange(3000))], 1)
    seen = set()
    for row in (None, 1500):
        if row is not None:
            corners[row] += 0.01
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        (tmp_path / "data").mkdir()
        as_yolo(tmp_path / "data", BLOCK)
        (tmp_path / "data" / "labels" / "a.txt").write_text("0 " + " ".join(map(str, corners.ravel())))
        data = open_data(tmp_path / "data", split="train")
        seen.add(TrainSets(data, data, {}).fingerprint)
    assert len(seen) == 2
