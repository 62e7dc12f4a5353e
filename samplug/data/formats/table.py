"""Parquet, which pandas, DuckDB and Hugging Face's data sets read: a row an image, with a list of its objects."""

from __future__ import annotations

from typing import Any

from samplug.data.formats.base import Named, Writer, image_name
from samplug.data.formats.records import ImageRecord, ObjectRecord

ROWS = 1024  # that are written at once


class ParquetWriter(Writer):
    """labels.parquet; masks are COCO's run lengths, at the size of their image."""

    place = "labels.parquet"

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number, text, real = pa.int64(), pa.string(), pa.float64()
        box = pa.list_(real, 4)
        scores = dict.fromkeys(("iou", "stability", "presence", "agreement"), real)
        row = {"class_id": number, "class": text, "track_id": number, "box": box, "area": number, "rle": text, **scores}
        image = {"file_name": text, "source": text, "frame": number, "height": number, "width": number}
        self._schema = pa.schema({**image, "objects": pa.list_(pa.struct(list(row.items())))})
        self._table = self.files.enter_context(pq.ParquetWriter(self.target, self._schema))
        self._rows: list[dict[str, Any]] = []

    def add(self, record: ImageRecord, objects: Named) -> None:
        """Keep a row until there are enough."""
        height, width = record.size
        image = {"source": record.source, "frame": record.frame, "height": height, "width": width}
        rows = [object_row(number, each) for number, each in objects]
        self._rows.append({"file_name": image_name(record), **image, "objects": rows})
        if len(self._rows) == ROWS:
            self.close()

    def close(self) -> None:
        """Write the rows that are left."""
        import pyarrow as pa

        self._table.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def object_row(number: int, each: ObjectRecord) -> dict[str, Any]:
    """The columns of an object."""
    scores = {name: getattr(each, name) for name in ("area", "iou", "stability", "presence", "agreement")}
    names = {"class_id": number, "class": each.name, "track_id": each.id}
    return {**names, "box": list(each.box), "rle": each.rle["counts"], **scores}
