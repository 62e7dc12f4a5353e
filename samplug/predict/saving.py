"""Results on disk: each picture and label file whole or not there, and only what memory can draw."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from samplug import room
from samplug.files import naming, write_aside
from samplug.host import Results

SHORTENED = 10**6  # Ultralytics writes six digits of a number: 1e+06
DRAWING = 36, 24  # bytes of memory for a pixel, measured: of Ultralytics' drawing alone, and of each mask in it


class Saved(Results):
    """`Results` whose label files are never half written, and hold ids to their last digit."""

    def new(self) -> Saved:
        """One without boxes and masks, which Ultralytics fills: on another device, or with some of the rows."""
        made = super().new()
        made.__class__ = Saved
        return made

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Append the labels to a file, as Ultralytics does, in one step."""
        path, lines = Path(txt_file), self._labels(save_conf)
        if lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_bytes() if path.exists() else b""
            with write_aside(path, flush=False) as aside:
                aside.write_bytes(before + lines)
        return str(txt_file)

    def _labels(self, save_conf: bool) -> bytes:
        """Ultralytics' lines, with ids written out where it would shorten one: row by row, as it leaves some out."""
        ids = [] if self.boxes is None or self.boxes.id is None else [int(each) for each in self.boxes.id.tolist()]
        if max(map(abs, ids), default=0) < SHORTENED:
            return self._lines(save_conf)
        rows = zip((self[i]._lines(save_conf) for i in range(len(ids))), ids, strict=True)
        return b"".join(line.rpartition(b" ")[0] + b" %d\n" % each for line, each in rows if line)

    def _lines(self, save_conf: bool) -> bytes:
        with TemporaryDirectory() as folder:
            written = Path(super().save_txt(Path(folder) / "lines.txt", save_conf))
            return written.read_bytes() if written.exists() else b""

    def save_crop(self, save_dir: str | Path, file_name: str | Path = Path("im.jpg")) -> None:
        """Save a picture of each box, as Ultralytics does; an error of the disk says where."""
        with naming(Path(save_dir) / file_name):
            super().save_crop(save_dir, file_name)


def check_drawing(result: Results) -> None:
    """Refuse to draw what would not fit into memory.

    Raises:
        RoomError: it would not.
    """
    height, width = result.orig_shape
    rows = 0 if result.masks is None else len(result.masks)
    need = (DRAWING[0] + DRAWING[1] * rows) * height * width
    room.check(need, f"drawing {rows} masks on {width}x{height} pixels", "save_txt=True saves outlines without drawing")


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture in the format of its name.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what was there before stays.
    """
    whole, data = cv2.imencode(path.suffix, picture)
    if not whole:
        raise OSError(f"{path} cannot be written: OpenCV has no {path.suffix}.")
    with write_aside(path, flush=False) as aside:
        aside.write_bytes(data.tobytes())


def fitted(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A frame (H, W, 3) at another size: a video has one for all of its frames."""
    return picture if picture.shape[:2] == shape else cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
