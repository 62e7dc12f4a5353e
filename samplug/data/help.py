"""The layouts of data sets and the formats of labels, as help shows them. Nothing heavy is imported."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from samplug.errors import DataError
from samplug.values import as_list

SCENES = "scenes"
KINDS = "scenes, a data.yaml, a COCO json, or a folder of images or videos with masks"
LAYOUTS = """    data=scenes              drawn images and clips that training never sees; no file needed
    data=data.yaml           a YOLO segmentation data set, or the name of one that Ultralytics downloads: coco8-seg.yaml
    data=instances.json      COCO's format, polygons or run lengths; source=FOLDER where the images are not beside it
    data=FOLDER              annotations/instances_val2017.json, or valid/_annotations.coco.json, of each split
    data=FOLDER              images/ and masks/, or VOC's JPEGImages/ and SegmentationObject/: a PNG an image, in which
                             a pixel is the number of its object, 0 of none
    data=FOLDER              SA-1B: a json of run lengths beside each image
    data=FOLDER              videos as DAVIS keeps them: JPEGImages/video/*.jpg and Annotations/video/*.png
    data=FOLDER              videos as SA-V: video_manual.json, and the frames in a folder video/"""
LABEL_FORMATS = (
    *("yolo", "coco", "png", "lvis", "ytvis", "burst"),
    *("mots", "sa", "cvat", "labelstudio", "datumaro", "parquet"),
)


def format_names(given: Any) -> tuple[str, ...]:
    """The formats of labels in a text with commas, or in a list."""
    names = given.strip("[]()").split(",") if isinstance(given, str) else [] if given is None else as_list(given)
    return tuple(str(name).strip() for name in names if str(name).strip())


def check_formats(names: Iterable[str], argument: str) -> None:
    """Raise DataError for a format of labels that does not exist, or that lacks what it needs."""
    for name in names:
        if name not in LABEL_FORMATS:
            raise DataError(f"{argument}={name}: give some of {','.join(LABEL_FORMATS)}.")
        if name == "parquet" and find_spec("pyarrow") is None:
            raise DataError(f"{argument}=parquet needs pyarrow: pip install samplug[parquet].")
