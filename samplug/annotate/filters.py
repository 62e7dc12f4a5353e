"""Which objects become labels, and under which class: applied to records, so that it can change without the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from samplug.annotate.settings import Settings
from samplug.data.formats.records import ImageRecord, ObjectRecord
from samplug.errors import names_of


def reason_to_drop(record: ObjectRecord, settings: Settings) -> str:
    """Why an object is no label, in a word; empty if it is one."""
    checks: dict[str, tuple[float | None, float | None]] = {
        "area": (record.area, settings.min_area),
        "iou": (record.iou, settings.min_iou),
        "stability": (record.stability, settings.min_stability),
        "presence": (record.presence, settings.min_presence),
        "agreement": (record.agreement, settings.min_agreement),
    }
    for name, (value, least) in checks.items():
        if value is not None and least is not None and value < least:
            return name
    return "" if new_name(record.name, settings.class_names) is not None else "class"


def new_name(name: str, class_names: Any) -> str | None:
    """The name that a class has in the labels; None if it is dropped."""
    return (class_names or {}).get(name, name)


def labelled(records: Iterable[ImageRecord], settings: Settings) -> Iterator[ImageRecord]:
    """The images that were annotated, with the objects that become labels; a new name has no number yet: -1."""
    for record in records:
        if not record.error:
            kept = [each for each in record.objects if not reason_to_drop(each, settings)]
            yield record.with_objects([renamed(each, settings.class_names) for each in kept])


def renamed(each: ObjectRecord, class_names: Any) -> ObjectRecord:
    """An object under its new name."""
    name = new_name(each.name, class_names)
    return each if name in (None, each.name) else replace(each, name=name, cls=-1)


@dataclass
class Tally:
    """What there is in records, and how much of it becomes labels."""

    images: int = 0
    found: int = 0  # objects
    kept: int = 0  # of them in the labels
    filled: int = 0  # images with any of these
    names: set[str] = field(default_factory=set)  # of classes that were found

    def watch(self, records: Iterable[ImageRecord], settings: Settings) -> Iterator[ImageRecord]:
        """The same records, counted as they pass."""
        for record in records:
            kept = sum(not reason_to_drop(each, settings) for each in record.objects)
            self.images, self.filled = self.images + 1, self.filled + (kept > 0)
            self.found, self.kept = self.found + len(record.objects), self.kept + kept
            self.names.update(each.name for each in record.objects)
            yield record

    def __str__(self) -> str:
        dropped = f" ({self.found - self.kept} more are dropped: see review.csv)" if self.found > self.kept else ""
        return f"{self.kept} objects on {self.filled} of {self.images} images and frames{dropped}"


def unknown_classes(class_names: Any, found: Iterable[str]) -> str:
    """Which classes are to have new names and do not occur, in words; "" if all do."""
    there = sorted(found)
    unknown = [name for name in class_names or {} if name not in there]
    if not unknown or not there:
        return ""
    return f"class_names: no object is of the class {names_of(unknown)}. There are {names_of(there)}."


def class_table(records: Callable[[], Iterator[ImageRecord]], settings: Settings) -> dict[str, int]:
    """A number for each class name of the labels.

    A class keeps its number; names that came from others, and names of one number, get the next free ones.
    """
    found: dict[str, int | None] = {}
    for record in labelled(records(), settings):
        for each in record.objects:
            if found.get(each.name) is None:
                found[each.name] = each.cls if each.cls >= 0 else None
    table: dict[str, int] = {}
    for name, number in sorted(found.items(), key=lambda item: (item[1] is None, item[1] or 0, item[0])):
        wanted, taken = () if number is None else (number,), set(table.values())
        table[name] = next(n for n in (*wanted, *range(len(found) + 1)) if n not in taken)
    return table
