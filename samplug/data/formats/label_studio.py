"""Label Studio's json: tasks with brush masks, as predictions to be corrected there.

A brush is a string of bits, as thi.ng's rle-pack writes them: 32 of the number of bytes, 5 of the bits a byte less one,
four times 4 of a width less one; then runs: 1, two bits that choose a width, so many bits of the length less one, and
the byte. 0 in place of 1: so many bytes as they are. The bytes are the four channels of each pixel, row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from samplug.data.arrays import polygon_mask
from samplug.data.formats.base import Named, Writer, image_name, join
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.masks.rle import rle_encode, rle_size

WIDTHS = (3, 4, 8, 16)  # bits of a length, of which each run takes the fewest
RGBA = 4
LOCAL_FILES = "/data/local-files/?d="  # what Label Studio serves of its own disk begins so
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what it puts before the names of files
REGIONS = ("brushlabels", "polygonlabels", "rectanglelabels")  # of regions that are read


class LabelStudioWriter(Writer):
    """label_studio/: tasks.json, and config.xml, the labeling interface that it belongs to."""

    place = "label_studio"

    def _open(self) -> None:
        self._part, self._count = self.part(), 0

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write a task."""
        results = [result_of(record, f"{self._count}-{i}", each) for i, (_, each) in enumerate(objects)]
        address, predicted = LOCAL_FILES + quote(image_name(record)), {"model_version": "samplug", "result": results}
        task = json.dumps({"data": {"image": address}, "predictions": [predicted]})
        self._part.write((",\n" if self._count else "") + task)
        self._count += 1

    def close(self) -> None:
        """Complete the list of tasks, and write the interface."""
        with (self.target / "tasks.json").open("w", encoding="utf-8") as whole:
            whole.write("[\n")
            join(self._part, whole)
            whole.write("\n]\n")
        labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in self.classes)
        brush = f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n'
        view = f'<View>\n  <Image name="image" value="$image"/>\n{brush}</View>\n'
        (self.target / "config.xml").write_text(view, "utf-8")


def result_of(record: ImageRecord, name: str, each: ObjectRecord) -> dict[str, Any]:
    """A brush region."""
    height, width = record.size
    value = {"format": "rle", "rle": pack_brush(each.mask), "brushlabels": [each.name]}
    sides = {"original_width": width, "original_height": height, "image_rotation": 0}
    place = {"id": name, "from_name": "tag", "to_name": "image", "type": "brushlabels"}
    more = {} if each.id is None else {"meta": {"track_id": each.id}}
    return {**place, **sides, "value": value, "score": each.iou, **more}


def pack_brush(mask: np.ndarray) -> list[int]:
    """A mask (H, W) bool as the bytes of a brush."""
    bits = [f"{RGBA * mask.size:032b}", f"{8 - 1:05b}", *(f"{width - 1:04b}" for width in WIDTHS)]
    for place, run in enumerate(rle_encode(mask.T, compressed=False)["counts"]):  # COCO's go down the columns
        left = RGBA * run
        while left:
            length = min(left, 1 << WIDTHS[-1])
            choice = next(i for i, width in enumerate(WIDTHS) if length <= 1 << width)
            bits.append(f"1{choice:02b}{length - 1:0{WIDTHS[choice]}b}{255 * (place % 2):08b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def unpack_brush(data: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of the bytes of a brush: where a pixel's last channel, its opacity, is on."""
    bits, at = "".join(f"{byte:08b}" for byte in data), 0

    def read(width: int) -> int:
        nonlocal at
        at += width
        return int(bits[at - width : at], 2)

    count, word, widths = read(32), read(5) + 1, [read(4) + 1 for _ in WIDTHS]
    if count != RGBA * size[0] * size[1]:
        raise ValueError(f"a brush of {count} bytes on {size[1]}x{size[0]} pixels")
    values, done = np.zeros(count, np.uint8), 0
    while done < count:
        is_run = read(1)
        length = read(widths[read(2)]) + 1
        values[done : done + length] = read(word) if is_run else [read(word) for _ in range(length)]
        done += length
    return values.reshape(*size, RGBA)[..., -1] > 0


def read_label_studio(content: Sequence[dict[str, Any]]) -> Iterator[ImageRecord]:
    """The images of tasks: what people drew, else what was predicted. Without regions their size is (0, 0)."""
    numbers: dict[str, int] = {}
    for task in content:
        addresses = [value for value in task["data"].values() if isinstance(value, str)]
        drawn = task.get("annotations") or task.get("predictions") or [{"result": []}]
        rows = [row for row in drawn[0]["result"] if row["type"] in REGIONS]
        objects = [read_region(row, numbers) for row in rows]
        size = (rows[0]["original_height"], rows[0]["original_width"]) if rows else (0, 0)
        yield ImageRecord(local_name(addresses[0]), size, None, tuple(objects))


def read_region(row: dict[str, Any], numbers: dict[str, int]) -> ObjectRecord:
    """The object of a region, whose coordinates are percent; a new class gets the next number."""
    kind, value, track = row["type"], row["value"], row.get("meta", {}).get("track_id")
    name = value[kind][0]
    number = numbers.setdefault(name, len(numbers))
    height, width = size = rle_size({"size": [row["original_height"], row["original_width"]]})
    if kind == "rectanglelabels":
        left, right = (width / 100 * x for x in (value["x"], value["x"] + value["width"]))
        top, bottom = (height / 100 * y for y in (value["y"], value["y"] + value["height"]))
        return ObjectRecord.of_box((left, top, right, bottom), number, name, id=track)
    if kind == "polygonlabels":
        mask = polygon_mask([np.array(value["points"], float) / 100 * (width, height)], size)
    else:
        mask = unpack_brush(value["rle"], size)
    return ObjectRecord.of_mask(mask, number, name, iou=row.get("score") or 1.0, id=track)


def local_name(address: str) -> str:
    """The name of an image behind its address: below the local files, else the file's own."""
    path = unquote(address)
    return path.partition("?d=")[2] if "?d=" in path else UPLOADED.sub("", PurePosixPath(path).name)
