"""Results on disk: each picture and label file whole or not there, and only what memory can draw."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from samplug import room
from samplug.files import write_aside
from samplug.host import Results

DRAWING = 36, 24  # bytes of memory for a pixel, measured: of Ultralytics' drawing alone, and of each mask in it


class Saved(Results):
    """`Results` whose label files are never half written."""

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Append the labels to a file, as Ultralytics does, in one step."""
        path = Path(txt_file)
        with TemporaryDirectory() as folder:
            lines = Path(super().save_txt(Path(folder) / "lines.txt", save_conf))
            if lines.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                before = path.read_bytes() if path.exists() else b""
                with write_aside(path, flush=False) as aside:
                    aside.write_bytes(before + lines.read_bytes())
        return str(txt_file)


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
