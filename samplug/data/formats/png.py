"""Index masks as DAVIS and YouTube-VOS have them: a PNG an image, a palette index an object."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image

from samplug.data.formats.base import Named, Writer, file_for, join, track_of
from samplug.data.formats.records import ImageRecord
from samplug.host import LOGGER

MOST = 255  # objects that an index of a byte can tell apart


class PngWriter(Writer):
    """0 is no object. In videos the index is the id where that is from 1 to 255 and free, else the lowest free one.

    On images the index is the number in order from 1. A pixel of several objects belongs to the one of the highest
    predicted IoU. Objects beyond the 255th are left out with a warning. masks/meta.json is YouTube-VOS': the class of
    each object of a video, and the frames that show it.
    """

    place = "masks"

    def _open(self) -> None:
        self._video, self._indices = "", dict[int, int]()  # of the current video, by id
        self._objects, self._meta = dict[int, dict[str, Any]](), self.part()

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Write an index mask."""
        if record.frame is None or record.source != self._video:
            self._end_video()
            self._video, self._indices = record.source, {}
        indices = np.zeros(record.size, np.uint8)
        rows = [(self._index(record, track_of(objects, place)), each) for place, (_, each) in enumerate(objects)]
        for index, each in sorted(rows, key=lambda row: row[1].iou):
            if index:
                indices[each.mask] = index
        path = file_for(record, self.target, ".png")
        for index, each in rows if record.frame is not None else ():
            if index and (indices == index).any():
                self._objects.setdefault(index, {"category": each.name, "frames": []})["frames"].append(path.stem)
        image = Image.fromarray(indices, mode="P")
        image.putpalette(palette())
        image.save(path)

    def _index(self, record: ImageRecord, obj_id: int) -> int:
        """The index of an object of the current image or video; 0 where none is left."""
        if obj_id not in self._indices:
            taken = {*self._indices.values()}
            wanted = [obj_id] if record.frame is not None and 0 < obj_id <= MOST else []
            free = [index for index in (*wanted, *range(1, MOST + 1)) if index not in taken]
            if not free:
                LOGGER.warning(f"{record.source}: more than {MOST} objects; object {obj_id} is in no PNG.")
            self._indices[obj_id] = free[0] if free else 0
        return self._indices[obj_id]

    def _end_video(self) -> None:
        """Write what meta.json says of a video."""
        if self._objects:
            comma = ",\n" if self._meta.tell() else ""
            self._meta.write(f"{comma}{json.dumps(self._video)}: {json.dumps({'objects': self._objects})}")
            self._objects = {}

    def close(self) -> None:
        """Write meta.json, if there are videos."""
        self._end_video()
        if self._meta.tell():
            with (self.target / "meta.json").open("w", encoding="utf-8") as whole:
                whole.write('{"videos": {\n')
                join(self._meta, whole)
                whole.write("\n}}\n")


def palette() -> list[int]:
    """DAVIS' colours, 256 times R, G, B: the bits of the index, spread over the three."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1  # (256, 8), lowest first
    channels = np.arange(8) % 3
    weights = 128 >> np.arange(8) // 3
    colours = np.stack([(bits * weights)[:, channels == channel].sum(1) for channel in range(3)], 1)
    return colours.ravel().tolist()
