"""What measuring is asked for. Standard library only, so that a wrong word is refused at once."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from samplug.arguments import EVERYTHING, OWN

ASK = ("mask", "box", "click")
SCENES = "scenes"
KINDS = "scenes, a data.yaml, a COCO json, or a folder of pictures or videos with masks"
OF_PREDICT = (*EVERYTHING, "policy", "non_overlap")  # arguments of `predict` and `track` that mean the same here
OF_HOST = ("imgsz", "device", "half", "quantize", "project", "name", "exist_ok", "save_dir", "verbose")

LAYOUTS = """    data=scenes              drawn pictures and clips that training never sees; no file needed
    data=data.yaml           a YOLO segmentation data set, or the name of one that Ultralytics downloads: coco8-seg.yaml
    data=instances.json      COCO's format, polygons or run lengths; source=FOLDER where the pictures are not beside it
    data=FOLDER              images/ and masks/, or VOC's JPEGImages/ and SegmentationObject/: a PNG a picture, in which
                             a pixel is the number of its object, 0 of none
    data=FOLDER              videos as DAVIS keeps them: JPEGImages/video/*.jpg and Annotations/video/*.png"""


def option(default: Any, text: str) -> Any:
    """A field with its line of help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """The arguments of `SAM.val` and `yolo sam val`, besides those of Ultralytics and of `predict` that they share.

    Raises:
        ValueError: a value that cannot be.
    """

    data: str | None = option(None, KINDS)
    source: str | None = option(None, "folder of a COCO file's pictures, where they are not beside it")
    split: str = option("val", "part of a data set that has several")
    classes: Any = option(None, "classes that count, in YOLO's and COCO's data sets")
    batch: int | None = option(None, "pictures at once; left out: 8 on a GPU, 1 on a CPU")
    ask: Any = option(
        None, "how objects are asked for: click, box, in videos also mask; left out: click,box, in videos mask"
    )
    clicks: int = option(20, "most clicks on an object, each in the middle of the largest error")
    feedback: bool = option(True, "give each mask back with the next click")
    objects: int | None = option(None, "most objects of a picture; left out: all, of scenes 3")
    pictures: int | None = option(None, "most pictures; left out: all, of scenes 500")
    clips: int | None = option(None, "most videos; left out: all, of scenes 60")
    baselines: bool | None = option(
        None, "also what one gets without a network, or without memory; left out: of scenes"
    )
    everything: bool = option(False, "also how many objects segmenting everything finds")
    plots: bool = option(True, "save curves and worst cases as pictures")
    side: int = option(256, "side of drawn pictures and clips, in pixels")
    frames: int = option(24, "frames of a drawn clip")
    level: float = option(0.5, "of drawn scenes: 0 few large plain objects, 1 clutter")
    held_out: bool = option(False, "draw outlines and surfaces that training never uses")

    def __post_init__(self) -> None:
        if self.data is None:
            raise ValueError(f"val needs data=: {KINDS}.")
        for name in ("batch", "clicks", "objects", "side", "frames"):
            self._at_least(name, 1)
        for name in ("pictures", "clips"):
            self._at_least(name, 0)
        if not 0 <= self.level <= 1:
            raise ValueError(f"level={self.level!r}: give a number from 0 to 1.")
        if self.frames < 3:
            raise ValueError(f"frames={self.frames}: the first and the last one do not count, so give 3 or more.")
        if not all(way in ASK for way in self.asked()) or self.ask in ((), []):
            raise ValueError(f"ask={self.ask!r}: give some of {', '.join(ASK)}, as ask=box or ask=mask,box.")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and (type(value) is not int or value < least):
            raise ValueError(f"{name}={value!r}: give a whole number of {least} or more.")

    def asked(self) -> tuple[str, ...]:
        """The ways of asking that were named; none where it was left out."""
        if isinstance(self.ask, str):
            return tuple(word.strip(" []'\"") for word in self.ask.split(","))
        return tuple(self.ask or ())


def read(given: Mapping[str, Any]) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """Part the arguments of a call into settings, arguments of `predict` and those of Ultralytics.

    Raises:
        TypeError: a name that is none of theirs; the message has the nearest.
        ValueError: a value that cannot be.
    """
    for name in given.keys() - accepted().keys():
        near = difflib.get_close_matches(name, accepted(), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"It takes {', '.join(accepted())}."
        raise TypeError(f"{name!r} is no argument of val. {hint}")
    settings = Settings(**{each.name: given[each.name] for each in fields(Settings) if each.name in given})
    of_predict, of_host = ({name: given[name] for name in names if name in given} for names in (OF_PREDICT, OF_HOST))
    return settings, of_predict, of_host


def help_lines() -> list[str]:
    """The help: what `data` may be, and a line for every argument of our own."""
    lines = []
    for each in fields(Settings):
        shown = "" if each.default is None else f" ({each.default})"
        lines.append(f"      {each.name:<24}{each.metadata['help']}{shown}")
    shared = ", ".join((*OF_HOST, *OF_PREDICT))
    return [LAYOUTS, "", *lines, "", "    Also, as for predict: " + "\n      ".join(textwrap.wrap(shared, 90))]


def accepted() -> dict[str, Any]:
    """Every argument with its default."""
    shared = {name: OWN[name].default for name in OF_PREDICT}
    own = {each.name: each.default for each in fields(Settings)}
    switches = {"half": False, "exist_ok": False, "verbose": True}
    return {**own, **shared, **dict.fromkeys(OF_HOST), **switches}
