"""One picture, whatever it comes as: a file, an array, a tensor; or the reason why it is none."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from samplug import host, room
from samplug.predict.faults import SourceError

MOST_PIXELS = 2**30  # what OpenCV decodes unless CV_IO_MAX_IMAGE_PIXELS says otherwise
DECODING = 6  # bytes of memory for a pixel, measured: the picture and, while it is turned or converted, a copy


def as_picture(item: Any) -> np.ndarray:
    """Read a file, a PIL picture, a (3, H, W) RGB tensor in 0-1 or a BGR array as (H, W, 3) BGR bytes.

    Of an animated picture this is the first frame.

    Raises:
        SourceError: it cannot be read, is empty, holds NaN, or would not fit into memory; the message says why.
        TypeError: it is nothing of these.
    """
    if isinstance(item, str | Path):
        return opened(item)
    if isinstance(item, Tensor):
        return in_bytes(item.reshape(-1, *item.shape[-3:])[:1])
    if hasattr(item, "convert"):
        return from_pil(item)
    if not isinstance(item, np.ndarray) or item.ndim not in (2, 3):
        raise TypeError(f"a frame is an array (H, W, 3), a PIL picture, a (3, H, W) tensor or a file, not {item!r:.80}")
    if not item.size:
        raise SourceError(f"a picture of {'x'.join(map(str, item.shape))} has no pixels.")
    return in_bytes([item])


def in_bytes(batch: list[np.ndarray] | Tensor) -> np.ndarray:
    """The one picture of a batch as (H, W, 3) BGR bytes.

    Raises:
        SourceError: it holds NaN or infinity.
    """
    try:
        return np.ascontiguousarray(host.pictures(batch)[0])
    except ValueError as error:
        raise SourceError(str(error)) from error


def from_pil(picture: Any) -> np.ndarray:
    """A PIL picture, turned as its EXIF says; files are decoded only now."""
    from PIL import ImageOps

    check_size(*picture.size)
    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I;16"):  # PIL would clip at 255
            return in_bytes([np.asarray(picture).astype(np.uint16)])
        if picture.mode == "F":  # here too, also where 1 is white
            return in_bytes([np.asarray(picture)])
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
    except SourceError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # PIL calls a damaged PNG a syntax error
        raise SourceError(f"it cannot be decoded: {error}.") from error


def opened(file: str | Path) -> np.ndarray:
    """Read a picture file as (H, W, 3) BGR bytes.

    Raises:
        SourceError: that fails, in whichever way.
    """
    if not Path(file).is_file():
        raise SourceError(f"{file}: it is a folder." if Path(file).is_dir() else f"{file}: there is no such file.")
    with host.pil_picture(file) or nullcontext() as known:
        if known is not None:
            check_size(*known.size)
        picture = decoded(file)
        if picture is not None:
            return in_bytes([picture])
        if known is not None:
            return from_pil(known)
    raise SourceError(f"{file}: {what_it_is(Path(file))}")


def decoded(file: str | Path) -> np.ndarray | None:
    """A picture file as the host reads it; None where it cannot, in whichever way."""
    floats = Path(file).suffix.lower() == ".pfm"  # which the host rounds to bytes before anyone sees that 1 is white
    try:
        return host.imread(str(file), cv2.IMREAD_UNCHANGED if floats else cv2.IMREAD_COLOR)
    except (cv2.error, OSError, ImportError):  # old releases let a broken file raise, new ones miss a plugin for it
        return None


def check_size(width: int, height: int) -> None:
    """Refuse a picture that nothing here could decode, by the size in its header: a few bytes may claim any size.

    Raises:
        SourceError: it is too large for OpenCV, or for the memory that is free.
    """
    if width * height > MOST_PIXELS:
        raise SourceError(f"it says to be {width}x{height} pixels, more than {MOST_PIXELS} in all: cut it into tiles.")
    try:
        room.check(DECODING * width * height, f"a picture of {width}x{height}", "make it smaller, or cut it into tiles")
    except room.RoomError as error:
        raise SourceError(str(error)) from error


def what_it_is(file: Path) -> str:
    """What a file is that is no picture."""
    with file.open("rb") as stream:
        head = stream.read(256).lstrip().lower()
    if not head:
        return "it is empty."
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "it is a web page, not a picture."
    return "it is no picture, damaged or cut short."
