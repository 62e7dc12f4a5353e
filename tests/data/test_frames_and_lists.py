"""The order of a video's frames, and the names that lists in `ImageSets` choose."""

import json

import numpy as np
import pytest
from support.datasets import BLOCK, HEIGHT, OTHER, WIDTH, davis, index_of, save_image, save_index  # noqa: F401

from samplug.data.open import open_data
from samplug.errors import DataError
from samplug.masks.rle import rle_encode

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

NUMBERS = range(1, 13)


def column(number):
    """A mask that tells its number."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, number] = True
    return mask


def numbers_of(video):
    """The frames' numbers by their files, and by their masks."""
    names = [int(file.path.stem) for file in video.frames.keys]
    return names, [int(np.flatnonzero(frame.masks[0].all(0))[0]) for frame in video.frames]


def test_frames_of_davis_layout_are_in_the_order_of_their_numbers_with_their_masks(tmp_path):
    for number in NUMBERS:
        save_image(tmp_path / "JPEGImages" / "a" / f"{number}.png", number)
        save_index(tmp_path / "Annotations" / "a" / f"{number}.png", index_of(column(number)))
    (video,) = open_data(tmp_path).videos
    assert numbers_of(video) == ([*NUMBERS], [*NUMBERS])


def test_frames_of_sav_layout_are_in_the_order_of_their_numbers_with_their_masks(tmp_path):
    for number in NUMBERS:
        save_image(tmp_path / "a" / f"{number}.jpg", number)
    masks = [[rle_encode(column(number))] for number in NUMBERS]
    (tmp_path / "a_manual.json").write_text(json.dumps({"masklet": masks}))
    (video,) = open_data(tmp_path).videos
    assert numbers_of(video) == ([*NUMBERS], [*NUMBERS])


def voc(root, listed, *names):
    for name in names:
        save_image(root / "JPEGImages" / f"{name}.jpg")
        save_index(root / "SegmentationObject" / f"{name}.png", index_of(BLOCK))
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_bytes(listed.encode())
    return [image.name.removesuffix(".jpg") for image in open_data(root).images]


@pytest.mark.parametrize(
    "listed, expected",
    [
        ("my dog\nimg.001\nc\n", "c,img.001,my dog"),
        ("my dog.jpg\r\nimg.001.jpg\r\n", "img.001,my dog"),
        ("\ufeffc\n\n", "c"),
        ("JPEGImages/my dog.jpg\n", "my dog"),
        ("c 1\nimg.001 -1\nmy dog  1\n", "c,img.001"),  # the last is no name and no words that are
        ("/JPEGImages/c.jpg /SegmentationObject/c.png\n", "c"),
        ("/JPEGImages/my dog.jpg /SegmentationObject/my dog.png\n", "my dog"),
        ("c img.001", "c,img.001"),
        ("c.xml", "c"),
    ],
)
def test_a_line_of_a_list_is_a_name_whatever_is_in_it(tmp_path, listed, expected):
    assert ",".join(voc(tmp_path, listed, "my dog", "img.001", "c", "other")) == expected


def test_a_name_as_a_whole_comes_before_its_parts(tmp_path):
    assert voc(tmp_path, "my dog\nimg.001\na.002\n", "my dog", "my", "dog", "img", "img.001", "a") == [
        "img.001",
        "my dog",
    ]


def test_names_that_are_nowhere_are_counted_and_named_once(tmp_path, capture_log):
    assert voc(tmp_path, "c\nmy cat\n" + "".join(f"x{number}\n" for number in range(11)), "c") == ["c"]
    (line,) = [line for line in capture_log if "val.txt" in line]
    assert "12 of 13 lines name no image with a mask: my cat, x0," in line and line.endswith("x8 and 2 more.")


def test_names_of_videos_may_hold_spaces_and_dots(davis, capture_log):
    for folder in ("JPEGImages", "Annotations"):
        (davis / folder / "480p" / "car").rename(davis / folder / "480p" / "my car.v2")
    (davis / "ImageSets").mkdir()
    (davis / "ImageSets" / "val.txt").write_text("my car.v2\n")
    assert [video.name for video in open_data(davis).videos] == ["480p/my car.v2"]
    assert not capture_log
    (davis / "ImageSets" / "val.txt").write_text("my dog\n")
    with pytest.raises(DataError, match="no video of split=val"):
        open_data(davis)
    assert "1 of 1 lines name no video with masks: my dog." in capture_log[0]
