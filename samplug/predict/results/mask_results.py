"""Ultralytics' `Results` with fields of ours, which belong to their rows and stay with them; files written whole."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from ultralytics.utils.files import increment_path
from ultralytics.utils.plotting import save_one_box

from samplug.data.outlines import rings_of, without_straight
from samplug.files.atomic import atomic_write, name_in_errors, short_stem
from samplug.host import Results
from samplug.masks.rle import rle_encode
from samplug.predict.results.saved import write_image
from samplug.runtime.torch_state import default_torch_state
from samplug.transforms import tensor_of

ROW_FIELDS = ("obj_ids", "presence", "iou", "prompt_index", "logits")  # an entry a row; none of them need exist
IMAGE_FIELDS = ("frame", "save_ids")
CROP_NUMBER_BYTES = 8  # Ultralytics numbers the crops of one name
PATH_CHARACTERS = re.compile(r"[/\\\0]|^\.+$")  # in the name of a class, which is that of a folder of crops
SHORTENED_NUMBER = 10**6  # Ultralytics writes six digits of a number: 1e+06


class MaskResults(Results):
    """`Results` whose fields of ours survive indexing, moves and copies; their labels say each thing once.

    Label files are never half written, and hold ids to their last digit, or none.
    """

    save_ids = True
    crops: Sequence[Path] = ()  # the files that `save_crop` wrote last

    def new(self) -> MaskResults:
        """A copy without boxes and masks, which Ultralytics fills: on another device, or with some of the rows."""
        made = super().new()
        made.__class__ = type(self)
        vars(made).update({name: vars(self)[name] for name in (*ROW_FIELDS, *IMAGE_FIELDS) if name in vars(self)})
        return made

    def _apply(self, fn: str, *args: Any, **kwargs: Any) -> MaskResults:
        """Apply a method of the boxes and masks to the fields as well: `__getitem__`, or a move to another device."""
        made = super()._apply(fn, *args, **kwargs)
        for name in ROW_FIELDS:
            if name in vars(self):
                value = vars(self)[name]
                moved = some_rows(value, *args) if fn == "__getitem__" else move(value, fn, *args, **kwargs)
                setattr(made, name, moved)
        return made

    def __getitem__(self, index: Any) -> MaskResults:
        """Some of the rows: by a number, a slice, a list or an array of numbers, or a mask of the rows."""
        return super().__getitem__(row_index(index))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Replace boxes and masks, as Ultralytics does; fields of another number of rows go with those replaced."""
        super().update(*args, **kwargs)
        for name in ROW_FIELDS:
            if len(vars(self).get(name, ())) != len(self):
                self.__dict__.pop(name, None)

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """Draw as Ultralytics does, without empty masks; an object that has no name but its id is labelled once."""
        shown = self.visible()
        if shown.boxes is not None and shown.boxes.id is not None:
            shown = shown if shown is not self else self[:]
            shown.names = self.names | dict.fromkeys(self._nameless(), BlankName())
        with default_torch_state():  # Ultralytics makes tensors on torch's default device
            return Results.plot(shown, *args, **kwargs)

    def save(self, filename: str | Path | None = None, *args: Any, **kwargs: Any) -> str:
        """Save what `plot` draws, as Ultralytics does, but whole or not at all.

        Args:
            filename: ends as an image's does; None for results_ and the name of the source, as .jpg for a video's.
            *args: of `plot`.
            **kwargs: of `plot`.

        Returns:
            The file's path.

        Raises:
            ValueError: another ending.
            OSError: the disk is full, or the folder not ours to write; what was there before stays.
        """
        path = Path(filename or f"results_{Path(self.path).name}")
        path = path if filename or cv2.haveImageWriter(path.name) else path.with_suffix(".jpg")
        drawn = self.plot(*args, **kwargs)  # BGR, or with pil=True an image of Pillow's, RGB
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, drawn if isinstance(drawn, np.ndarray) else np.asarray(drawn)[..., ::-1])
        return str(path)

    def to_rle(self) -> list[dict[str, Any]]:
        """The mask of each row as COCO's run lengths, without loss."""
        return [rle_encode(mask) for mask in self._mask_arrays()]

    def to_polygons(self) -> list[list[list[np.ndarray]]]:
        """The outlines of each row's separate parts: the outer ring (K, 2) xy of a part, then those of its holes.

        They run through the centres of the mask's outermost pixels; GeoJSON and shapely order rings so.
        """
        return [[[*map(without_straight, part)] for part in rings_of(mask)] for mask in self._mask_arrays()]

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO's annotation of each row, numbered from `first_id`; `category_id` is the class plus 1."""
        from samplug.data.formats.coco import coco_object  # here: few runs need the writers
        from samplug.predict.results.labels import objects_of

        classes = [] if self.masks is None else integers(self.boxes.cls)
        rows = [coco_object(cls, each) for cls, each in zip(classes, objects_of(self), strict=True)]
        return [{"id": first_id + i, "image_id": image_id, **row} for i, row in enumerate(rows)]

    def _mask_arrays(self) -> Any:
        """(N, H, W) bool on the CPU."""
        return () if self.masks is None else tensor_of(self.masks.data).bool().cpu().numpy()

    def visible(self) -> MaskResults:
        """The rows whose masks have a pixel."""
        if self.masks is None or self.boxes is None or len(self.boxes) != len(self.masks):
            return self
        x1, y1, x2, y2 = tensor_of(self.boxes.xyxy).T
        flat = ((x1 == x2) & (y1 == y2)).nonzero()[:, 0].tolist()  # the box of an empty mask, or of a single pixel
        empty = {row for row in flat if not self.masks.data[row].any()}
        return self[[row for row in range(len(self)) if row not in empty]] if empty else self

    def verbose(self) -> str:
        """What the log says of an image, as Ultralytics has it; objects without a name are counted together."""
        if self.boxes is None or not len(self):
            return super().verbose()
        nameless = self._nameless()
        count = Counter("object" if cls in nameless else self.names[cls] for cls in sorted(integers(self.boxes.cls)))
        return "".join(f"{number} {name}{'s' * (number > 1)}, " for name, number in count.items())

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Append the labels to a file, as Ultralytics does, in one step; without ids where `save_ids=False` ran."""
        path, lines = Path(txt_file), (self if self.save_ids else self.without_ids())._labels(save_conf)
        if lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_bytes() if path.exists() else b""
            with atomic_write(path, flush=False) as aside:
                aside.write_bytes(before + lines)
        return str(txt_file)

    def _labels(self, save_conf: bool) -> bytes:
        """Ultralytics' lines, with ids written out where it would shorten one: row by row, as it leaves some out."""
        ids = [] if self.boxes is None or self.boxes.id is None else integers(self.boxes.id)
        if max(map(abs, ids), default=0) < SHORTENED_NUMBER:
            return self._lines(save_conf)
        rows = zip((self[i]._lines(save_conf) for i in range(len(ids))), ids, strict=True)
        return b"".join(line.rpartition(b" ")[0] + b" %d\n" % each for line, each in rows if line)

    def without_ids(self) -> MaskResults:
        """A copy without the column of ids, whose labels are those that YOLO is trained on."""
        made = self[:]
        if made.boxes is not None and made.boxes.is_track:
            data = made.boxes.data
            made.boxes = type(made.boxes)(data[:, [0, 1, 2, 3, 5, 6]], made.orig_shape)
        return made

    def _lines(self, save_conf: bool) -> bytes:
        with TemporaryDirectory() as folder:
            written = Path(super().save_txt(Path(folder) / "lines.txt", save_conf))
            return written.read_bytes() if written.exists() else b""

    def save_crop(self, save_dir: str | Path, file_name: str | Path = Path("im.jpg")) -> None:
        """Save an image of each mask's box, as Ultralytics does; an error of the disk names the file."""
        shown, name = self.visible(), short_stem(Path(file_name).with_suffix(".jpg"), CROP_NUMBER_BYTES)
        crops: list[Path] = []
        self.crops = crops
        for row in shown.boxes.cpu() if shown.boxes is not None else ():
            folder = Path(save_dir) / PATH_CHARACTERS.sub("_", str(self.names[int(row.cls.item())]))
            file = increment_path(folder / f"{name}.jpg")
            crops.append(file)
            with name_in_errors(Path(save_dir) / f"{name}.jpg"):
                save_one_box(row.xyxy, self.orig_img, file=file, BGR=True)

    def _nameless(self) -> set[int]:
        """The classes that have no name but a number: their own, or the id of their object."""
        assert self.boxes is not None
        classes = integers(self.boxes.cls)
        numbers = classes if self.boxes.id is None else integers(self.boxes.id)
        return {cls for cls, number in zip(classes, numbers, strict=True) if self.names[cls] in (str(cls), str(number))}


class BlankName(str):
    """The empty name of an object, whose label is its id alone."""

    def __radd__(self, label: str) -> str:
        return label.rstrip()


def integers(column: Tensor | np.ndarray) -> list[int]:
    """A column of ids or classes as whole numbers."""
    return [int(each) for each in column.tolist()]


def row_index(index: Any) -> Any:
    """An index with one entry a row, which torch and numpy read alike: a tensor of uint8 is a mask, an array is not.

    Raises:
        IndexError: it has several columns.
    """
    if not isinstance(index, Tensor | np.ndarray) or index.ndim == 0:
        return index
    if math.prod(index.shape[1:]) != 1:
        raise IndexError(f"Got rows by an index of shape {tuple(index.shape)}. Expected one number, or True, a row.")
    index = index.reshape(-1)
    if isinstance(index, Tensor):
        return index.bool() if index.dtype == torch.uint8 else index
    return index.astype(np.int64) if index.dtype == np.uint8 else index


def some_rows(value: Any, index: Any) -> Any:
    """The entries of chosen rows; a number chooses one row, as everywhere in Ultralytics' results."""
    index = index.cpu().numpy() if isinstance(index, Tensor) else index
    rows = np.atleast_1d(np.arange(len(value))[index])
    if isinstance(value, tuple):
        return tuple(value[row] for row in rows.tolist())
    return value[torch.from_numpy(rows) if isinstance(value, Tensor) else rows]


def move(value: Any, to: str, *args: Any, **kwargs: Any) -> Any:
    """Numbers on another device, of another type, or as an array; ids and indices are no tensors and stay."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and to not in ("cpu", "numpy"):
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor):
        return value
    return value.cpu().numpy() if to == "numpy" else getattr(value, to)(*args, **kwargs)
