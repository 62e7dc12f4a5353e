"""Reading one image: a file, an array, a PIL image or a tensor."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from samplug import errors, host, resources
from samplug.errors import SourceError
from samplug.sources.base_loader import is_address
from samplug.sources.download import download_image
from samplug.sources.pixels import as_bgr, tensor_as_bgr

MAX_PIXELS = 2**30  # what OpenCV decodes unless CV_IO_MAX_IMAGE_PIXELS says otherwise
DECODED_PIXEL_BYTES = 6  # measured: the image and, while it is turned or converted, a copy


def read_image(item: Any) -> np.ndarray:
    """Read a file, a PIL image, a (3, H, W) RGB tensor in 0-1 or a BGR array as (H, W, 3) BGR bytes; else a TypeError.

    A file may lie on the web. The first frame of an animated image is read. SourceError where it cannot be read, is
    empty, holds NaN or values of no known range, or would not fit into memory; the message says why.
    """
    try:
        return np.ascontiguousarray(_read(item))
    except ValueError as error:  # of its values or channels
        raise SourceError(str(error)) from error


def _read(item: Any) -> np.ndarray:
    if isinstance(item, str | Path):
        return from_pil(download_image(str(item))) if is_address(item) else read_file(item)
    if isinstance(item, Tensor):
        return tensor_as_bgr(item)
    if hasattr(item, "convert"):
        return from_pil(item)
    if not isinstance(item, np.ndarray) or item.ndim not in (2, 3):
        came = f"{item!r:.80} is not an image"
        raise TypeError(f"{came}. Expected an array (H, W, 3), a PIL image, a (3, H, W) tensor or a file.")
    if not item.size:
        raise SourceError(f"an image of {'x'.join(map(str, item.shape))} has no pixels.")
    return as_bgr(item)


def from_pil(image: Any) -> np.ndarray:
    """A PIL image, turned as its EXIF says; files are decoded only now."""
    from PIL import ImageOps

    check_pil(image)
    try:
        image = ImageOps.exif_transpose(image)
        is_wide = image.mode[0] in "IF"  # integers and floats, which PIL would clip at 255
        pixels = np.asarray(image) if is_wide else np.asarray(image.convert("RGB"))[..., ::-1]
    except (OSError, SyntaxError, ValueError, IndexError) as error:  # PIL calls a damaged PNG a syntax error
        raise SourceError(f"it cannot be decoded: {error}.") from error
    return as_bgr(pixels)


def check_pil(image: Any) -> None:
    """Refuse a PIL image that is too large, or of a format that a program of its own decodes; SourceError."""
    if image.format not in (None, *host.PIL_FORMATS):
        raise SourceError(f"{image.format} files are not decoded: save it as PNG first.")
    check_size(*image.size)


def check_header(file: str | Path) -> None:
    """Refuse an image file by the size in its header; SourceError."""
    with host.pil_image(file) or nullcontext() as known:
        if known is not None:
            check_size(*known.size)


def read_file(file: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) BGR bytes; SourceError where that fails, in whichever way."""
    host.require_regular_file(file)
    if not os.path.isfile(file):
        raise SourceError(f"{file}: it is a folder." if os.path.isdir(file) else f"{file}: there is no such file.")
    if is_postscript(file):
        raise SourceError(f"{file}: it is a PostScript program, not an image.")
    with host.pil_image(file) or nullcontext() as known:
        if known is not None:
            check_size(*known.size)
        image = decode(file, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image is None and known is not None:
            return from_pil(known)
        image = decode(file, cv2.IMREAD_UNCHANGED) if image is None else image  # one channel of float64
        if image is not None:
            return as_bgr(image)
    raise SourceError(f"{file}: {reason_unreadable(Path(file))}")


def is_postscript(file: str | Path) -> bool:
    """Whether a file is a program that PIL would have Ghostscript run, whatever its name."""
    with open(file, "rb") as stream:
        return stream.read(4) in (b"%!PS", b"\xc5\xd0\xd3\xc6")


def decode(file: str | Path, flags: int) -> np.ndarray | None:
    """An image file as Ultralytics reads it; None where it cannot, in whichever way."""
    try:
        return host.imread(str(file), flags)
    except (cv2.error, OSError, ImportError):  # old releases let a broken file raise, new ones miss a plugin for it
        return None


def check_size(width: int, height: int) -> None:
    """Refuse an image that cannot be decoded, by the size in its header: a few bytes may claim any size.

    SourceError where it is too large for OpenCV, or for the memory that is free.
    """
    if width * height > MAX_PIXELS:
        raise SourceError(f"its header claims {width}x{height} pixels (limit {MAX_PIXELS}): split it into tiles.")
    try:
        need = DECODED_PIXEL_BYTES * width * height
        resources.require_memory(need, f"an image of {width}x{height}", "make it smaller, or split it into tiles")
    except errors.OutOfMemoryError as error:
        raise SourceError(str(error)) from error


def reason_unreadable(file: Path) -> str:
    """Why a file is not an image."""
    with file.open("rb") as stream:
        head = stream.read(256).lstrip().lower()
    if not head:
        return "it is empty."
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "it is a web page, not an image."
    return "it is not an image, damaged or cut short."
