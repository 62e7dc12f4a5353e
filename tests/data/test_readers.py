"""Data sets in files, opened for measuring: YOLO, COCO, folders of index masks, DAVIS."""

import cv2
import numpy as np
import pytest
from support.datasets import BLOCK, HEIGHT, OTHER, WIDTH, coco, davis, index_of, outline, save_image, save_index, yolo  # noqa: F401

from samplug.data.arrays import polygon_mask
from samplug.data.open import open_data
from samplug.data.outlines import yolo_rows
from samplug.errors import DataError


def test_a_polygon_along_the_pixels_edges_covers_them_and_no_more():
    (mask,) = [polygon_mask([np.reshape(outline(16, 8, 40, 24), (-1, 2))], (HEIGHT, WIDTH))]
    assert np.array_equal(mask, BLOCK)


def test_a_pixel_belongs_to_a_polygon_that_covers_half_of_it():
    half = polygon_mask([np.reshape(outline(16.4, 8, 39.6, 24.6), (-1, 2))], (HEIGHT, WIDTH))
    assert half[8:25, 16:40].all() and half.sum() == 17 * 24
    triangle = polygon_mask([np.array([[0, 0], [40, 0], [0, 40]])], (HEIGHT, WIDTH))
    assert triangle.sum() == pytest.approx(800, abs=20)  # the pixels on its long side are cut in half


def test_parts_of_a_polygon_add_up_and_what_leaves_the_image_is_cut_off():
    parts = [np.reshape(outline(-9, 0, 10, 10), (-1, 2)), np.reshape(outline(5, 5, 20, 20), (-1, 2))]
    assert polygon_mask(parts, (HEIGHT, WIDTH)).sum() == 100 + 225 - 25
    assert not polygon_mask([np.array([[3, 3], [9, 3], [6, 3]])], (HEIGHT, WIDTH)).any()


@pytest.mark.host
def test_a_yolo_data_set_is_read_by_its_yaml_or_its_folder(yolo):
    for data in (yolo / "data.yaml", yolo):
        (image,) = open_data(data).images
        assert image.name == "a.png" and image.image.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(image.masks, [BLOCK, OTHER])
    bgr = cv2.imread(str(yolo / "images" / "val" / "a.png"))
    assert np.array_equal(image.image, bgr[..., ::-1])


@pytest.mark.host
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (333, 1023), (2160, 3840)])
def test_outlines_that_samplug_wrote_are_the_masks_they_were_written_from(tmp_path, size):
    rng = np.random.default_rng(0)
    masks = [np.zeros(size, bool) for _ in range(5)]
    for mask, side in zip(masks, (1, 2, 5, 20, 30), strict=True):
        top, left = (int(rng.integers(0, length - side)) for length in size)
        mask[top : top + side, left : left + side] = True
    masks[4][5:8, 5:9] = True
    masks[4] &= ~np.roll(masks[3], 3, 1)
    rows = [(mask, row) for mask in masks for row in yolo_rows(mask, 0)]
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((*size, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("".join(f"{row}\n" for _, row in rows))
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a]\n")
    (image,) = open_data(tmp_path / "data.yaml").images
    assert len(image.masks) == len(rows) and np.array_equal(image.masks.any(0), np.any(masks, 0))
    assert np.array_equal(image.masks[:4], masks[:4])


@pytest.mark.host
def test_classes_choose_and_their_absence_is_said(yolo):
    (image,) = open_data(yolo, classes=[1]).images
    assert np.array_equal(image.masks, [OTHER])
    with pytest.raises(DataError, match=r"no object of the classes \[5\]"):
        open_data(yolo, classes=[5])


@pytest.mark.host
def test_a_yolo_data_set_without_outlines_or_images_is_refused(yolo):
    with pytest.raises(DataError, match="no split=test; it has train, val"):
        open_data(yolo, split="test")
    (yolo / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="boxes"):
        open_data(yolo)
    (yolo / "data.yaml").write_text("train: none\nval: none\nnames: [a]\n")
    with pytest.raises(DataError, match="none"):
        open_data(yolo)


def test_a_coco_file_is_read_with_polygons_and_run_lengths(coco):
    (image,) = open_data(coco).images
    assert np.array_equal(image.masks[:3], [BLOCK, OTHER, BLOCK]) and image.masks[3].sum() == 32
    (image,) = open_data(coco, classes=[1]).images
    assert np.array_equal(image.masks, [OTHER])


def test_images_of_a_coco_file_may_be_anywhere_that_source_says(coco):
    (coco.parents[1] / "val2017").rename(coco.parents[1] / "elsewhere")
    with pytest.raises(DataError, match=r"a\.jpg is in none of .*source=FOLDER"):
        open_data(coco)
    assert len(open_data(coco, source=coco.parents[1] / "elsewhere").images) == 1


@pytest.mark.parametrize("palette", [True, False])
def test_a_folder_of_images_and_index_masks_is_read_whatever_its_colours(tmp_path, palette):
    save_image(tmp_path / "images" / "deep" / "a.jpg")
    index = index_of(BLOCK, OTHER)
    index[0, :5] = 255
    save_index(tmp_path / "masks" / "deep" / "a.png", index, palette)
    (image,) = open_data(tmp_path).images
    assert np.array_equal(image.masks, [BLOCK, OTHER])


def test_a_mask_of_0_and_255_is_one_object(tmp_path):
    save_image(tmp_path / "images" / "a.jpg")
    save_index(tmp_path / "masks" / "a.png", BLOCK * 255, palette=False)
    (image,) = open_data(tmp_path).images
    assert np.array_equal(image.masks, [BLOCK])


def test_vocs_folders_are_read_and_its_lists_choose(tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        save_index(tmp_path / "SegmentationObject" / f"{name}.png", index_of(BLOCK))
    assert len(open_data(tmp_path).images) == 2
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    assert [image.name for image in open_data(tmp_path).images] == ["b.jpg"]


def test_masks_that_cannot_be_are_refused_by_their_file(tmp_path):
    save_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.png has 3 channels"):
        list(open_data(tmp_path).images)
    save_index(tmp_path / "masks" / "a.png", BLOCK[:10])
    with pytest.raises(DataError, match="64x10, its image 64x48"):
        list(open_data(tmp_path).images)
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.png has no image"):
        open_data(tmp_path)


def test_what_is_no_data_set_is_told_what_is(tmp_path):
    with pytest.raises(DataError, match="holds no data set. Expected scenes, a data.yaml"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="not a known kind"):
        open_data(tmp_path / "film.mp4")
    with pytest.raises(DataError, match="cannot be read as json"):
        open_data(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="images and annotations"):
        open_data(tmp_path / "a.json")


def test_videos_in_davis_layout_are_read_frame_by_frame(davis):
    data = open_data(davis)
    assert not len(data.images) and [video.name for video in data.videos] == ["480p/bear", "480p/car"]
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
    with pytest.raises(DataError, match=r"00002\.jpg cannot be read: it is no"):
        video.frames[2]
