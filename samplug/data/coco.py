"""COCO json: polygons and run lengths of the objects of images.

SA-1B has a json of this kind beside each image; SA-V, the frames of a video in a folder of its name, and a json of
masks of every fourth frame.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from samplug.data.arrays import IMAGE_SUFFIXES, polygon_mask
from samplug.data.image_file import MALFORMED, ImageFile, Labels, frame_files, refuse_malformed
from samplug.data.samples import AnnotatedImage, AnnotatedVideo, Lazy
from samplug.errors import DataError, report_slip
from samplug.masks.rle import rle_decode
from samplug.transforms import Size

LABEL_SUFFIXES = ("_manual", "_auto")  # the manual masks count where a video has both
FRAME_FOLDERS = ("", "JPEGImages_24fps", "JPEGImages")  # below the data set's folder
ANNOTATED_EVERY = 4  # frames


def open_coco(
    file: Path, folder: str | Path | None = None, classes: Sequence[int] | None = None, strict: bool = False
) -> tuple[Lazy[AnnotatedImage], dict[int, str]]:
    """The images of a COCO file that have objects, and the names of its categories; crowds are no objects.

    The images are in `folder`; without one in the file's, the one above, or a folder `images` or of the file's split
    (`val2017` for `instances_val2017.json`) in one of these. `classes` and `strict` are those of `open_data`.

    Raises:
        DataError: the file, or an image, cannot be found or read.
    """
    folders = [Path(folder)] if folder else _image_folders(file)
    content = read_json_object(file)
    if not {"images", "annotations"} <= content.keys():
        raise DataError(f"{file} is not a COCO file. Expected the lists images and annotations.")
    with refuse_malformed(f"{file} is not a COCO file", (*MALFORMED, OSError)):
        check_images(file, content, strict)
        files = _image_files(content, folders, classes)
        names = {int(each["id"]): str(each["name"]) for each in content.get("categories", [])}
        boxes = [each.get("id") for each in content["annotations"] if strict and not each.get("segmentation")]
    if not files:
        of_classes = f" of the classes {classes}" if classes else ""
        raise DataError(f"{file} has no object with a segmentation{of_classes}.")
    if boxes:
        raise DataError(
            f"{file}: {len(boxes)} annotations have a box and no segmentation, the first with the id {boxes[0]}. "
            "Expected outlines or run lengths: `samplug annotate` makes masks of boxes."
        )
    return Lazy(files, ImageFile.load), names


def check_images(file: Path, content: dict[str, Any], strict: bool) -> None:
    """Refuse two images of one id; with `strict`, annotations of images that are not listed too, else report them."""
    counts = Counter(image["id"] for image in content["images"])
    if double := [number for number, count in counts.items() if count > 1]:
        raise DataError(f"{file}: {len(double)} ids belong to several images, the first is {double[0]!r}.")
    if lost := [each["image_id"] for each in content["annotations"] if each["image_id"] not in counts]:
        line = f"{file}: {len(lost)} annotations are of images that it does not list, the first of the id {lost[0]!r}."
        if strict:
            raise DataError(line)
        report_slip(line, DataError)


def _image_files(content: dict[str, Any], folders: Sequence[Path], classes: Sequence[int] | None) -> list[ImageFile]:
    objects: dict[int, list[tuple[Any, Any]]] = {}
    crowds: dict[int, list[Any]] = {}
    for annotation in content["annotations"]:
        chosen = classes is None or annotation.get("category_id") in classes
        if not chosen or not annotation.get("segmentation"):
            continue
        number, shape = annotation["image_id"], annotation["segmentation"]
        if annotation.get("iscrowd"):
            crowds.setdefault(number, []).append(shape)
        else:
            objects.setdefault(number, []).append((shape, annotation.get("category_id", 0)))
    files = []
    for image in content["images"]:
        if (number := image["id"]) in objects:
            stated = (image["height"], image["width"]) if image.get("height") and image.get("width") else None
            labels = partial(_labels, objects[number], crowds.get(number, ()), stated)
            files.append(ImageFile(_find_image(image["file_name"], folders), labels))
    return files


def _labels(objects: Sequence[tuple[Any, Any]], crowds: Sequence[Any], stated: Size | None) -> Labels:
    shapes, categories = zip(*objects, strict=True)
    return Labels(shapes, partial(segmentation_mask, stated=stated), categories, crowds)


def read_json_object(file: Path) -> dict[str, Any]:
    """The object in a json file; empty where it holds anything else."""
    if not os.path.isfile(file):
        raise DataError(f"{file} cannot be read as json: it is no file.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as json: {error}") from error
    return content if isinstance(content, dict) else {}


def _image_folders(file: Path) -> list[Path]:
    split = file.stem.rpartition("_")[2]
    names = ("", "images", split, f"images/{split}")
    return [base / name for base in (file.parent, file.parent.parent) for name in names]


def _find_image(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"The image {name} is in none of {', '.join(map(str, folders))}: give its folder as source=FOLDER.")


def segmentation_mask(shape: Any, size: Size, stated: Size | None = None) -> np.ndarray:
    """The mask (H, W) of a COCO segmentation: a list of polygons that belong together, or run lengths.

    `stated` is the size of the image that it was drawn on, where its file says so; ValueError if it is another.
    """
    if stated not in (None, size):
        raise ValueError(f"drawn on an image of (height, width) {stated}, expected the image's {size}")
    if isinstance(shape, dict):
        if tuple(shape["size"]) != size:  # before it is unpacked: a few bytes can claim any size
            raise ValueError(f"run lengths of the size {shape['size']}, expected the image's {list(size)}")
        return rle_decode(shape)
    return polygon_mask([np.reshape(part, (-1, 2)).astype(float) for part in shape], size)


def open_sa1b(folder: Path) -> Lazy[AnnotatedImage] | None:
    """The images of a folder that have a json of their own beside them, as SA-1B does; None where the first has not."""
    files = sorted(folder.rglob("*.json"))
    if not files or not {"image", "annotations"} <= read_json_object(files[0]).keys():
        return None
    return Lazy([ImageFile(_image_beside(file), partial(_sa1b_labels, file), file) for file in files], ImageFile.load)


def _image_beside(file: Path) -> Path:
    for suffix in sorted(IMAGE_SUFFIXES):
        if file.with_suffix(suffix).is_file():
            return file.with_suffix(suffix)
    raise DataError(f"{file} has no image. Expected {file.with_suffix('.jpg')}.")


def _sa1b_labels(file: Path) -> Labels:
    with refuse_malformed(f"{file} is not a label of SA-1B"):
        return Labels([each["segmentation"] for each in read_json_object(file)["annotations"]], segmentation_mask)


def open_sav(root: Path) -> Lazy[AnnotatedVideo] | None:
    """The videos of a folder in SA-V's layout, `video_manual.json` and `video/*.jpg`; None where there is none."""
    files: dict[str, Path] = {}
    for suffix in reversed(LABEL_SUFFIXES):
        files |= {file.stem.removesuffix(suffix): file for file in sorted(root.rglob(f"*{suffix}.json"))}
    return Lazy(sorted(files.items()), partial(_load_video, root)) if files else None


def _load_video(root: Path, entry: tuple[str, Path]) -> AnnotatedVideo:
    name, file = entry
    frames = _frames_of(name, [file.parent, *(root / folder for folder in FRAME_FOLDERS)], file)
    with refuse_malformed(f"{file} is not a label of SA-V"):
        masks = [list(of_frame) for of_frame in read_json_object(file)["masklet"]]
    every = ANNOTATED_EVERY if len(frames) > len(masks) else 1
    annotated = {number * every: partial(Labels, shapes, _frame_mask) for number, shapes in enumerate(masks)}
    keys = [ImageFile(path, annotated.get(number), file) for number, path in enumerate(frames)]
    return AnnotatedVideo(name, Lazy(keys, ImageFile.load_frame))


def _frames_of(name: str, folders: Sequence[Path], file: Path) -> list[Path]:
    for folder in folders:
        if found := frame_files(folder / name):
            return found
    raise DataError(
        f"{file} has no frames. Expected images in a folder {name} beside it: "
        f"ffmpeg -i {name}.mp4 -start_number 0 -q:v 2 {name}/%05d.jpg"
    )


def _frame_mask(shape: Any, size: Size) -> np.ndarray:
    """A mask of run lengths; empty where the object is not on the frame."""
    return segmentation_mask(shape, size) if shape else np.zeros(size, bool)
