"""YOLO segmentation data sets, found and read by Ultralytics: data.yaml, images, polygons in text files."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tarfile import is_tarfile
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import is_zipfile

import numpy as np
import yaml
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from ultralytics.data import dataset as data_set
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, polygon2mask, verify_image_label
from ultralytics.utils import ROOT

from samplug import host
from samplug.data.arrays import polygon_mask
from samplug.data.image_file import ImageFile, Labels
from samplug.data.label_boxes import BOX_NUMBERS, read_yaml
from samplug.data.outlines import is_of_yolo_rows
from samplug.data.samples import AnnotatedImage, Lazy
from samplug.errors import DataError, MissingSplitError, names_of, one_line, report_slip
from samplug.sources.image import reason_unreadable
from samplug.transforms import Size

ULTRALYTICS_ERRORS = (KeyError, OSError, SyntaxError, TypeError, ValueError, RuntimeError, AssertionError)


def open_yolo(
    data: str, split: str = "val", classes: Sequence[int] | None = None, strict: bool = False
) -> tuple[Lazy[AnnotatedImage], dict[int, str]]:
    """The images of a split that have objects, and the names of the classes.

    `data` is a yaml file, or the name of one that Ultralytics knows and downloads (`coco8-seg.yaml`); `split`, a key of
    it: `val`, `test` or `train`. `classes` and `strict` are those of `open_data`; what is not refused is left out.

    Raises:
        DataError: Ultralytics refuses the file, or it has boxes alone.
    """
    published = ROOT / "cfg/datasets" / Path(data).with_suffix(".yaml").name
    is_published = Path(data).name == data and not Path(data).exists() and published.is_file()
    try:
        if Path(data).is_file() and (is_zipfile(data) or is_tarfile(data)):
            raise DataError("it is an archive: unpack it, and give its data.yaml")
        with _safe_label_caches(), host.without_plugins(reason_unreadable):
            dataset = _dataset(str(published) if is_published else data, split, classes, is_published)
    except MissingSplitError:
        raise
    except ULTRALYTICS_ERRORS as error:
        raise DataError(f"data={data}: {_reason(error)}") from error
    if strict:
        _check_strictly(dataset)
    elif lost := dataset.lost_files():
        names = names_of(Path(file).name for file in lost)
        report_slip(f"data={data}: left out, as the image or its label cannot be read: {names}.", DataError)
    labels = [label for label in dataset.labels if len(label["cls"])]
    if not labels:
        raise DataError(f"split={split} of {data} has no object" + (f" of the classes {classes}." if classes else "."))
    if not all(len(label["segments"]) for label in labels):
        raise DataError(f"{data} has boxes and no outlines. Expected a data set for segmentation.")
    files = [ImageFile(Path(label["im_file"]), partial(_labels, label)) for label in labels]
    return Lazy(files, ImageFile.load), {int(number): name for number, name in dataset.data["names"].items()}


def _reason(error: Exception) -> str:
    """What Ultralytics says, in one line; of names, whose KeyErrors hold a sentence or the number that is not there."""
    if not isinstance(error, KeyError):
        return one_line(error)
    missing = error.args[0]
    return one_line(Exception(missing)) if " " in str(missing) else f"it has no {missing!r}. Expected names from 0 on."


class _FileListDataset(YOLODataset):
    """Ultralytics' data set, which remembers all files: it drops those that it cannot read."""

    def get_labels(self) -> list[dict[str, Any]]:
        """The labels of the images that can be read."""
        self.all_files = list(self.im_files)
        return super().get_labels()

    def lost_files(self) -> list[str]:
        """The images that it has dropped."""
        readable = {label["im_file"] for label in self.labels}
        return [file for file in self.all_files if file not in readable]


def _check_strictly(dataset: _FileListDataset) -> None:
    """Refuse the first image or label that Ultralytics has dropped, and the first line of a box, by its file's name."""
    lost = set(dataset.lost_files())
    for file, labels in zip(dataset.all_files, dataset.label_files, strict=True):
        if file in lost:
            with host.without_plugins(reason_unreadable):
                reason = verify_image_label((file, labels, "", False, len(dataset.data["names"]), 0, 0, False))[-1]
            text = one_line(Exception(reason)).replace("ignoring corrupt image/label: ", "")  # nothing is ignored
            raise DataError(f"{text.removesuffix('.') or file + ': it cannot be read'} (labels {labels}).")
        lines = Path(labels).read_text(encoding="utf-8").splitlines() if Path(labels).is_file() else []
        for number, line in enumerate(lines, 1):
            if len(line.split()) == BOX_NUMBERS:
                raise DataError(
                    f"{labels}, line {number}: a box. Expected an outline of every object: "
                    "`samplug annotate` makes masks of boxes."
                )


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain values; the cache of labels beside a data set is a pickle, which could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def _load_label_cache(path: str | Path) -> Any:
    """A cache of labels; FileNotFoundError where it is anything else, upon which Ultralytics reads the labels."""
    try:
        with Path(path).open("rb") as file:
            read_header = read_array_header_1_0 if read_magic(file) == (1, 0) else read_array_header_2_0
            read_header(file)
            return _ArrayUnpickler(file).load().item()
    except Exception as error:  # damaged pickles raise anything
        raise FileNotFoundError(f"{path} is no cache of labels") from error


@contextmanager
def _safe_label_caches() -> Iterator[None]:
    """Let Ultralytics read caches of labels without running code in them."""
    before = data_set.load_dataset_cache_file
    data_set.load_dataset_cache_file = _load_label_cache
    try:
        yield
    finally:
        data_set.load_dataset_cache_file = before


def _dataset(data: str, split: str, classes: Sequence[int] | None, download: bool) -> _FileListDataset:
    """Ultralytics' data set. Only its own files are followed to a download: `download:` may be a program."""
    described = _describe(data, split, download)
    if not described.get(split):
        there = ", ".join(name for name in ("train", "val", "test") if described.get(name))
        raise MissingSplitError(f"data={data}: there is no split={split}; it has {there}.")
    options = {"task": "segment", "augment": False, "cache": False, "classes": classes, "prefix": f"{split}: "}
    return _FileListDataset(img_path=described[split], data=described, **options)


def _describe(data: str, split: str, download: bool) -> dict[str, Any]:
    """What a yaml describes; Ultralytics refuses one without `val`, whose other splits can be read all the same."""
    file = Path(data)
    content = read_yaml(file) if file.is_file() else {}
    if content.get("names", True) in ([], {}, None):  # which releases of Ultralytics refuse in words of their own
        raise DataError("names is empty. Expected the names of the classes, such as names: [object]")
    if not content.get("train") or content.get("val") or content.get("validation"):
        return check_det_dataset(data, autodownload=download)
    if split == "val":
        raise MissingSplitError(f"data={data}: there is no split=val.")
    with TemporaryDirectory() as folder:
        completed = Path(folder) / file.name
        content = {"path": str(file.parent.absolute()), **content, "val": content["train"]}
        completed.write_text(yaml.safe_dump(content), encoding="utf-8")
        return check_det_dataset(str(completed), autodownload=False)


def _labels(label: dict[str, Any]) -> Labels:
    return Labels(label["segments"], _outline_mask, [int(number) for number in label["cls"][:, 0]])


def _outline_mask(outline: Any, size: Size) -> np.ndarray:
    """The mask of an outline (K, 2) in shares of the image; of one that samplug wrote, the one it was written from."""
    corners = np.asarray(outline, np.float64) * size[::-1]
    if is_of_yolo_rows(corners, size):
        return polygon2mask(size, [corners.ravel()], 1).astype(bool)
    return polygon_mask([corners], size)
