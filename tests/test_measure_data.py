"""Data sets in files, opened for measuring: YOLO, COCO, folders of index masks, DAVIS."""

import json

import cv2
import numpy as np
import pytest
from conftest import draw
from PIL import Image

from samplug.measure.data import open_data
from samplug.measure.reading import DataError, polygon_mask
from samplug.rle import rle_encode

HEIGHT, WIDTH = 48, 64
BLOCK = np.zeros((HEIGHT, WIDTH), bool)
BLOCK[8:24, 16:40] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[30:40, 4:12] = True


def save_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw(HEIGHT, WIDTH, seed))


def save_index(path, index, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(index.astype(np.uint8), mode="P" if palette else "L")
    if palette:
        picture.putpalette([value for k in range(256) for value in (k * 7 % 256, k * 31 % 256, 200)])
    picture.save(path)


def index_of(*masks):
    index = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, mask in enumerate(masks, 1):
        index[mask] = number
    return index


def outline(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


# Polygons -------------------------------------------------------------------------------------------------------------


def test_a_polygon_along_the_pixels_edges_covers_them_and_no_more():
    (mask,) = [polygon_mask([np.reshape(outline(16, 8, 40, 24), (-1, 2))], (HEIGHT, WIDTH))]
    assert np.array_equal(mask, BLOCK)


def test_a_pixel_belongs_to_a_polygon_that_covers_half_of_it():
    half = polygon_mask([np.reshape(outline(16.4, 8, 39.6, 24.6), (-1, 2))], (HEIGHT, WIDTH))
    assert half[8:25, 16:40].all() and half.sum() == 17 * 24
    triangle = polygon_mask([np.array([[0, 0], [40, 0], [0, 40]])], (HEIGHT, WIDTH))
    assert triangle.sum() == pytest.approx(800, abs=20)  # the pixels on its long side are cut in half


def test_parts_of_a_polygon_add_up_and_what_leaves_the_picture_is_cut_off():
    parts = [np.reshape(outline(-9, 0, 10, 10), (-1, 2)), np.reshape(outline(5, 5, 20, 20), (-1, 2))]
    assert polygon_mask(parts, (HEIGHT, WIDTH)).sum() == 100 + 225 - 25
    assert not polygon_mask([np.array([[3, 3], [9, 3], [6, 3]])], (HEIGHT, WIDTH)).any()


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def yolo(tmp_path):
    """Two pictures, of which one has two objects and the other none."""
    for name in ("a", "b"):
        save_picture(tmp_path / "images" / "val" / f"{name}.png")
    lines = []
    for cls, corners in ((0, outline(16, 8, 40, 24)), (1, outline(4, 30, 12, 40))):
        scaled = [value / (HEIGHT if i % 2 else WIDTH) for i, value in enumerate(corners)]
        lines.append(" ".join(map(str, [cls, *scaled])))
    labels = tmp_path / "labels" / "val"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("\n".join(lines))
    (labels / "b.txt").write_text("")
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: {{0: block, 1: other}}\n"
    )
    return tmp_path


@pytest.mark.host
def test_a_yolo_data_set_is_read_by_its_yaml_or_its_folder(yolo):
    for data in (yolo / "data.yaml", yolo):
        (picture,) = open_data(data).pictures
        assert picture.name == "a.png" and picture.image.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(picture.masks, [BLOCK, OTHER])
    bgr = cv2.imread(str(yolo / "images" / "val" / "a.png"))
    assert np.array_equal(picture.image, bgr[..., ::-1])


@pytest.mark.host
def test_classes_choose_and_their_absence_is_said(yolo):
    (picture,) = open_data(yolo, classes=[1]).pictures
    assert np.array_equal(picture.masks, [OTHER])
    with pytest.raises(DataError, match=r"no object of the classes \[5\]"):
        open_data(yolo, classes=[5])


@pytest.mark.host
def test_a_yolo_data_set_without_outlines_or_pictures_is_refused(yolo):
    with pytest.raises(DataError, match="no split=test; it has train, val"):
        open_data(yolo, split="test")
    (yolo / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="boxes"):
        open_data(yolo)
    (yolo / "data.yaml").write_text("train: none\nval: none\nnames: [a]\n")
    with pytest.raises(DataError, match="none"):
        open_data(yolo)


@pytest.fixture
def coco(tmp_path):
    """One picture with a polygon, two kinds of run lengths, and a crowd; one without objects."""
    save_picture(tmp_path / "val2017" / "a.jpg")
    shapes = [
        [outline(16, 8, 40, 24)],
        rle_encode(OTHER),
        rle_encode(BLOCK, compressed=False),
        [outline(0, 0, 4, 4), outline(50, 40, 54, 44)],
    ]
    annotations = [{"image_id": 7, "category_id": k, "iscrowd": 0, "segmentation": s} for k, s in enumerate(shapes)]
    annotations.append({"image_id": 7, "category_id": 0, "iscrowd": 1, "segmentation": rle_encode(BLOCK)})
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "gone.jpg"}]
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return file


def test_a_coco_file_is_read_with_polygons_and_run_lengths(coco):
    (picture,) = open_data(coco).pictures
    assert np.array_equal(picture.masks[:3], [BLOCK, OTHER, BLOCK]) and picture.masks[3].sum() == 32
    (picture,) = open_data(coco, classes=[1]).pictures
    assert np.array_equal(picture.masks, [OTHER])


def test_pictures_of_a_coco_file_may_be_anywhere_that_source_says(coco):
    (coco.parents[1] / "val2017").rename(coco.parents[1] / "elsewhere")
    with pytest.raises(DataError, match=r"a\.jpg is in none of .*source=FOLDER"):
        open_data(coco)
    assert len(open_data(coco, source=coco.parents[1] / "elsewhere").pictures) == 1


@pytest.mark.parametrize("palette", [True, False])
def test_a_folder_of_pictures_and_index_masks_is_read_whatever_its_colours(tmp_path, palette):
    save_picture(tmp_path / "images" / "deep" / "a.jpg")
    index = index_of(BLOCK, OTHER)
    index[0, :5] = 255
    save_index(tmp_path / "masks" / "deep" / "a.png", index, palette)
    (picture,) = open_data(tmp_path).pictures
    assert np.array_equal(picture.masks, [BLOCK, OTHER])


def test_a_mask_of_0_and_255_is_one_object(tmp_path):
    save_picture(tmp_path / "images" / "a.jpg")
    save_index(tmp_path / "masks" / "a.png", BLOCK * 255, palette=False)
    (picture,) = open_data(tmp_path).pictures
    assert np.array_equal(picture.masks, [BLOCK])


def test_vocs_folders_are_read_and_its_lists_choose(tmp_path):
    for name in ("a", "b"):
        save_picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        save_index(tmp_path / "SegmentationObject" / f"{name}.png", index_of(BLOCK))
    assert len(open_data(tmp_path).pictures) == 2
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    assert [picture.name for picture in open_data(tmp_path).pictures] == ["b.jpg"]


def test_masks_that_cannot_be_are_refused_by_their_file(tmp_path):
    save_picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.png is a picture of 3 colours"):
        list(open_data(tmp_path).pictures)
    save_index(tmp_path / "masks" / "a.png", BLOCK[:10])
    with pytest.raises(DataError, match="64x10, its picture 64x48"):
        list(open_data(tmp_path).pictures)
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.png has no picture"):
        open_data(tmp_path)


def test_what_is_no_data_set_is_told_what_is(tmp_path):
    with pytest.raises(DataError, match="holds no data set: give scenes, a data.yaml"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="of no known kind"):
        open_data(tmp_path / "film.mp4")
    with pytest.raises(DataError, match="cannot be read as json"):
        open_data(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="images and annotations"):
        open_data(tmp_path / "a.json")


# Videos ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path):
    """Two videos of three frames; in the first an object comes on the second frame, and the last has no truth."""
    for name in ("bear", "car"):
        for number in range(3):
            save_picture(tmp_path / "JPEGImages" / "480p" / name / f"{number:05}.jpg", number)
    truth = tmp_path / "Annotations" / "480p"
    void = index_of(BLOCK, OTHER)
    void[0] = 255
    save_index(truth / "bear" / "00000.png", index_of(BLOCK))
    save_index(truth / "bear" / "00001.png", void)
    save_index(truth / "car" / "00000.png", index_of(OTHER))
    save_index(truth / "car" / "00001.png", index_of(OTHER))
    return tmp_path


def test_videos_in_davis_layout_are_read_frame_by_frame(davis):
    data = open_data(davis)
    assert not len(data.pictures) and [video.name for video in data.videos] == ["480p/bear", "480p/car"]
    first, second, last = data.videos[0].frames
    assert np.array_equal(first.masks, [BLOCK, np.zeros_like(OTHER)]) and first.void is None
    assert np.array_equal(second.masks, [BLOCK & ~second.void, OTHER]) and second.void[0].all()
    assert second.void.sum() == WIDTH and last.masks is None
    assert first.image.shape == (HEIGHT, WIDTH, 3)


def test_of_several_resolutions_davis_usual_one_counts_and_lists_choose(davis):
    save_index(davis / "Annotations" / "Full-Resolution" / "bear" / "00000.png", index_of(BLOCK))
    lists = davis / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("car\n")
    assert [video.name for video in open_data(davis).videos] == ["480p/car"]
    (lists / "val.txt").write_text("dog\n")
    with pytest.raises(DataError, match="no video of split=val"):
        open_data(davis)


def test_nothing_is_read_before_it_is_asked_for(davis):
    video = open_data(davis).videos[0]
    (davis / "JPEGImages" / "480p" / "bear" / "00002.jpg").write_bytes(b"broken")
    assert len(video.frames) == 3 and video.frames[0].masks is not None
    with pytest.raises(DataError, match=r"00002\.jpg is not a picture"):
        video.frames[2]
