"""From results to records, which labels are made of; and to the files of `save_format=`, by annotation's writers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from samplug.data.formats import WRITERS, places_of
from samplug.data.formats.base import Writer
from samplug.data.formats.places import check_overlap
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.data.help import check_formats, format_names
from samplug.errors import DataError
from samplug.host import LOGGER, Results
from samplug.masks.iou import stability
from samplug.sources.base_loader import is_image
from samplug.transforms import tensor_of

OBJECT = "object"  # the class of what was given none


def objects_of(
    result: Results, boxes: Sequence[Sequence[float] | None] | None = None, threshold: float = 0.0
) -> tuple[ObjectRecord, ...]:
    """The objects of a result, in its order, those without any pixel too.

    `boxes` are those that each row was prompted with; None: nothing is known of prompts. The threshold is that of the
    logits, where the result has them.
    """
    if result.masks is None or not len(result):
        return ()
    logits, presence = (getattr(result, name, None) for name in ("logits", "presence"))
    stable = None if logits is None else stability(logits.float(), threshold).tolist()
    ids = ids_of(result)
    objects = []
    for i, mask in enumerate(tensor_of(result.masks.data).bool().cpu().numpy()):
        number, name = class_of(result, i, everything=boxes is None)
        row = ObjectRecord.of_mask(
            mask,
            number,
            name,
            iou=round(float(result.boxes.conf[i]), 4),
            stability=None if stable is None else round(stable[i], 4),
            presence=None if presence is None else round(float(presence[i]), 4),
            id=None if ids is None else ids[i],
        )
        box = None if boxes is None else boxes[i]
        objects.append(row if box is None else row.prompted(box))
    return tuple(objects)


def ids_of(result: Results) -> Sequence[int] | None:
    """The id of each row's object, ours or a tracker's of Ultralytics; None where there are none."""
    ids = getattr(result, "obj_ids", None)
    if ids or result.boxes.id is None:
        return ids or None
    return [int(each) for each in result.boxes.id.tolist()]


def class_of(result: Results, row: int, everything: bool) -> tuple[int, str]:
    """The class of a row and its name; where nobody gave one, results number the masks by their ids or prompts."""
    number = int(result.boxes.cls[row])
    name = str(result.names.get(number, number))
    numbered_by = [getattr(result, field, None) for field in ("obj_ids", "prompt_index")]
    own = next((int(column[row]) for column in numbered_by if column is not None and len(column)), number)
    nameless = everything and name == str(own)
    return (0, OBJECT) if nameless else (number, name)


def check_label_places(formats: Any, folder: Path, files: Sequence[str]) -> None:
    """Refuse to write labels over the files of a source, before anything is written: DataError."""
    check_overlap([folder / name for name in places_of(format_names(formats))], files, "project= or name=")


class LabelFiles:
    """Writes the results of a run as they come, and completes the files when it ends, also before its time.

    The folder is made when there is something to write; `save_frames` writes the images of videos' frames too, where
    labels need them. DataError for a format that does not exist.
    """

    def __init__(self, formats: Any, folder: Path, save_frames: bool) -> None:
        self.formats, self.folder, self.save_frames = format_names(formats), folder, save_frames
        check_formats(self.formats, "save_format")
        self.classes: dict[str, int] = {}
        self.paths: dict[str, str] = {}  # by the name that each source goes by
        self._counts: dict[str, int] = {}  # frames of a video that says no numbers
        self._last, self._ended = "", set[str]()  # the current video; those before it, and images
        self._image: np.ndarray | None = None

    def watch(self, results: Any, batch: Callable[[], Sequence[Results]]) -> Iterator[Results]:
        """The results of a generator, each written when the next is asked for: until then it may be corrected.

        Args:
            results: the results.
            batch: gives those of the current batch, a corrected one in place of the one that was handed on.
        """
        with closing(results), ExitStack() as stack:
            writers: list[Writer] = []
            for result in results:
                if not writers:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    LOGGER.info(f"Labels ({', '.join(self.formats)}) are written to {self.folder}")
                    given = (self.folder, self.classes, self.paths.__getitem__, lambda _: self._image)
                    writers = [WRITERS[name](*given) for name in self.formats]
                    for writer in writers:
                        stack.callback(writer.__exit__, None, None, None)  # completed also before the run's time
                place = next(i for i, each in enumerate(batch()) if each is result)
                try:
                    yield result
                finally:
                    self._write(batch()[place], writers)

    def _write(self, result: Results, writers: list[Writer]) -> None:
        """Write one result."""
        source, frame = self._place_of(result)
        if source in self._ended:
            come = "the image comes again" if frame is None else "its frames come by turns with others"
            raise DataError(f"save_format: {source}: {come}. Expected each image once, and one video at a time.")
        if frame is None:
            self._ended.add(source)
        elif source != self._last:
            self._ended.add(self._last)
            self._last = source
        objects = tuple(each for each in objects_of(result) if each.area)
        record = ImageRecord(source, (result.orig_shape[0], result.orig_shape[1]), frame, objects)
        self._image = result.orig_img if frame is None or self.save_frames else None
        rows = [(self._number(each.name, each.cls), each) for each in objects]
        for writer in writers:
            writer.add(record, rows)

    def _place_of(self, result: Results) -> tuple[str, int | None]:
        """The name of a result's image or video among all, and the number of a frame."""
        path, frame = str(result.path), getattr(result, "frame", None)
        if frame is None and is_image(path):
            return self._name(path), None
        if frame is None:
            frame = self._counts[path] = self._counts.get(path, -1) + 1
        return self._name(str(Path(path).parent) if is_image(path) else path), frame

    def _name(self, path: str) -> str:
        """A name for a source that no other has: its own, with as many folders as it takes."""
        parts = Path(os.path.abspath(path)).parts[1:] if path else ("video",)  # none of them ".."
        names = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
        name = next((name for name in names if self.paths.get(name, path) == path), path)
        self.paths[name] = path
        return name

    def _number(self, name: str, wanted: int) -> int:
        """The number of a class: its own where no other name has it, else the lowest that is free."""
        taken = self.classes.values()
        return self.classes.setdefault(name, next(n for n in (wanted, *range(len(taken) + 1)) if n not in taken))
