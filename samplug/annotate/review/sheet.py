"""A contact sheet of the riskiest masks: one HTML file with the images in it, which needs no server."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from samplug.annotate.review.table import Row
from samplug.data.formats.base import FileOf
from samplug.data.formats.frames import FrameImages
from samplug.data.formats.records import ObjectRecord
from samplug.errors import DataError
from samplug.files.atomic import atomic_write

THUMBNAIL = 220  # pixels of a thumbnail, at most
SURROUND = 0.3  # of the mask's box, around it
COLOUR = (60, 60, 255)  # BGR
STYLE = (
    "body{font:13px sans-serif;margin:16px}figure{display:inline-block;width:240px;margin:4px;vertical-align:top}"
    "img{max-width:100%}figcaption{overflow-wrap:anywhere}"
)


def write_sheet(rows: Sequence[Row], file_of: FileOf, file: Path) -> None:
    """Write the masks of some rows of the review list, in their order."""
    images = dict(thumbnails(rows, file_of))
    figures = "\n".join(figure(row, images.get(place)) for place, row in enumerate(rows))
    head = f'<!doctype html><meta charset="utf-8"><title>{len(rows)} masks to review</title><style>{STYLE}</style>'
    with atomic_write(file) as temporary:
        temporary.write_text(f"{head}\n<h1>The {len(rows)} riskiest masks</h1>\n{figures}\n", encoding="utf-8")


def thumbnails(rows: Sequence[Row], file_of: FileOf) -> Iterator[tuple[int, bytes]]:
    """The place of a row, and its image as JPEG; none where the image cannot be read any more."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].image.source, rows[i].image.frame or 0))
    images = FrameImages(file_of)
    for _, places in groupby(order, key=lambda i: rows[i].image):
        few = list(places)
        with suppress(DataError, OSError):
            image = images(rows[few[0]].image)
            for place in few:
                if image.shape[:2] == rows[place].image.size:
                    yield place, thumbnail(image, rows[place].object)


def thumbnail(image: np.ndarray, each: ObjectRecord) -> bytes:
    """What is around a mask, with its outline, as JPEG."""
    height, width = image.shape[:2]
    left, top, right, bottom = each.box if each.area else each.prompt_box or (0, 0, width, height)
    margin = SURROUND * max(right - left, bottom - top)
    rows = slice(max(0, int(top - margin)), int(bottom + margin) + 1)
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    part, mask = image[rows, columns], each.mask[rows, columns].astype(np.uint8)
    scale = THUMBNAIL / max(part.shape[:2])
    size = [max(1, round(side * scale)) for side in part.shape[1::-1]]
    shown = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours(
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(shown, outlines, -1, COLOUR, 1)
    return cv2.imencode(".jpg", shown)[1].tobytes()


def figure(row: Row, image: bytes | None) -> str:
    """A mask with its columns of the review list."""
    data = base64.b64encode(image or b"").decode()
    shown = f'<img src="data:image/jpeg;base64,{data}">' if image else "<p>The image cannot be read.</p>"
    text = ", ".join(f"{name} {value}" for name, value in row.columns.items() if value not in (None, "", 0))
    return f"<figure>{shown}<figcaption>{html.escape(text)}</figcaption></figure>"
