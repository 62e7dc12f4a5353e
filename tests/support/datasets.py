"""Small data sets in files, of every layout."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from support.images import draw

from samplug.data.synthetic import scenes
from samplug.masks.rle import rle_encode
from samplug.train.settings import TrainSettings

HEIGHT, WIDTH = 48, 64
BLOCK = np.zeros((HEIGHT, WIDTH), bool)
BLOCK[8:24, 16:40] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[30:40, 4:12] = True


def save_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw(HEIGHT, WIDTH, seed))


def save_index(path, index, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(index.astype(np.uint8), mode="P" if palette else "L")
    if palette:
        image.putpalette([value for k in range(256) for value in (k * 7 % 256, k * 31 % 256, 200)])
    image.save(path)


def index_of(*masks):
    index = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, mask in enumerate(masks, 1):
        index[mask] = number
    return index


def outline(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def yolo(tmp_path):
    """Two images, of which one has two objects and the other none."""
    for name in ("a", "b"):
        save_image(tmp_path / "images" / "val" / f"{name}.png")
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


@pytest.fixture
def coco(tmp_path):
    """One image with a polygon, two kinds of run lengths, and a crowd; one without objects."""
    save_image(tmp_path / "val2017" / "a.jpg")
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


@pytest.fixture
def davis(tmp_path):
    """Two videos of three frames; in the first an object comes on the second frame, and the last has no truth."""
    for name in ("bear", "car"):
        for number in range(3):
            save_image(tmp_path / "JPEGImages" / "480p" / name / f"{number:05}.jpg", number)
    truth = tmp_path / "Annotations" / "480p"
    void = index_of(BLOCK, OTHER)
    void[0] = 255
    save_index(truth / "bear" / "00000.png", index_of(BLOCK))
    save_index(truth / "bear" / "00001.png", void)
    save_index(truth / "car" / "00000.png", index_of(OTHER))
    save_index(truth / "car" / "00001.png", index_of(OTHER))
    return tmp_path


UNCHANGED = {"fliplr": 0.0, "scale": 0.0, "translate": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def settings(**given):
    return TrainSettings(**{"data": "data", "batch": 1, "verbose": False, **UNCHANGED, **given})


def folder_of(tmp_path, *images, void=False):
    """A folder of images (H, W, 3) BGR, each with two objects."""
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        index = np.zeros((height, width), np.uint8)
        index[height // 8 : height // 2, width // 8 : width // 2] = 1
        index[height // 2 : height * 7 // 8, width // 3 : width * 2 // 3] = 2
        if void:
            index[-height // 8 :] = 255
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
        save_index(tmp_path / "masks" / f"{number}.png", index)
    return tmp_path


def sa1b(tmp_path, *masks):
    save_image(tmp_path / "sa_1.jpg")
    rows = [{"segmentation": rle_encode(mask), "bbox": [0, 0, 1, 1]} for mask in masks]
    content = {"image": {"file_name": "sa_1.jpg", "height": HEIGHT, "width": WIDTH}, "annotations": rows}
    (tmp_path / "sa_1.json").write_text(json.dumps(content))
    return tmp_path


def sav(tmp_path, *masks, frames=9):
    for number in range(frames):
        save_image(tmp_path / "sav_1" / f"{number:05}.jpg", number)
    masklet = [[rle_encode(mask) if number else None for mask in masks] for number in (1, 0, 1)]
    (tmp_path / "sav_1_manual.json").write_text(json.dumps({"masklet": masklet, "masklet_num": len(masks)}))
    return tmp_path


def as_coco(tmp_path, *masks):
    save_image(tmp_path / "images" / "a.jpg")
    rows = [{"image_id": 1, "category_id": 3, "segmentation": rle_encode(mask)} for mask in masks]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": rows}))
    return file


def as_yolo(tmp_path, *masks):
    save_image(tmp_path / "images" / "a.jpg")
    rows = []
    for mask in masks:
        (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
        corners = np.reshape(outline(left, top, right, bottom), (-1, 2)) / (WIDTH, HEIGHT)
        rows.append("0 " + " ".join(map(str, corners.ravel())))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [a]\n")
    return tmp_path


def as_index(tmp_path, *masks):
    save_image(tmp_path / "images" / "a.jpg")
    save_index(tmp_path / "masks" / "a.png", index_of(*masks))
    return tmp_path


def as_davis(tmp_path, *masks):
    for number in range(2):
        save_image(tmp_path / "JPEGImages" / "video" / f"{number}.jpg", number)
        save_index(tmp_path / "Annotations" / "video" / f"{number}.png", index_of(*masks))
    return tmp_path


LAYOUTS = {"coco": as_coco, "yolo": as_yolo, "index": as_index, "sa1b": sa1b, "davis": as_davis, "sav": sav}


def write_drawn(folder, train=3, val=2, side=96, level=0.3, held_out=False, seed=0):
    """Drawn scenes as a YOLO segmentation data set with two splits; returns its data.yaml."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            scene = scenes.draw(rng, side, side, level=level, held_out=held_out)
            path = folder / "images" / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), scene.image[..., ::-1])
            lines = [line for mask in scene.masks if (line := yolo_line(mask))]
            label = folder / "labels" / split / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {{0: shape}}\n")
    return folder / "data.yaml"


def yolo_line(mask):
    """The outline of a mask's largest part as a line of a YOLO label; empty where it has no area."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)[:, 0]
    if cv2.contourArea(outline) < 16:
        return ""
    return " ".join(map(str, [0, *((outline + 0.5) / mask.shape[::-1]).ravel().round(5).tolist()]))
