"""The arguments of `val`. Standard library only, so that a wrong one is refused at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samplug import arguments
from samplug.arguments import setting
from samplug.data.help import KINDS, LAYOUTS
from samplug.values import CLASSES, PATH, SWITCH, Choice, Range, as_list, count_of

PROMPT_KINDS = ("mask", "box", "click")
FROM_PREDICT = (*arguments.EVERYTHING, "policy", "non_overlap")  # they mean what they mean in `predict` and `track`
FROM_ULTRALYTICS = ("imgsz", "device", "half", "quantize", "project", "name", "exist_ok", "save_dir", "verbose")


@dataclass(frozen=True)
class Settings:
    """The arguments of `SAM.val` and `yolo sam val`, besides those of Ultralytics and of `predict` that they share.

    Raises:
        ValueError: a value that an argument does not take.
    """

    data: str | None = setting(None, KINDS, PATH)
    source: str | None = setting(None, "folder of a COCO file's images, where they are not beside it", PATH)
    split: str = setting("val", "part of a data set that has several", PATH)
    classes: Any = setting(None, "classes that count, in YOLO's and COCO's data sets", CLASSES)
    batch: int | None = setting(None, "images at once; left out: 8 on a GPU, 1 on a CPU", count_of("images"))
    ask: Any = setting(None, "prompts: click, box, in videos also mask; left out: click,box, in videos mask")
    clicks: int = setting(20, "most clicks on an object, each in the middle of the largest error", count_of("clicks"))
    feedback: bool = setting(True, "give each mask back with the next click", SWITCH)
    objects: int | None = setting(None, "most objects of an image; left out: all, of scenes 3", count_of("objects"))
    pictures: int | None = setting(None, "most images; left out: all, of scenes 500", count_of("images", 0))
    clips: int | None = setting(None, "most videos; left out: all, of scenes 60", count_of("videos", 0))
    baselines: bool | None = setting(
        None,
        "also what one gets without a network, or without memory; left out: of scenes",
        Choice((None, False, True)),
    )
    everything: bool = setting(False, "also how many objects segmenting everything finds", SWITCH)
    plots: bool = setting(True, "save curves and worst cases as images", SWITCH)
    side: int = setting(256, "side of drawn images and clips, in pixels", count_of("pixels", 8, most=1 << 15))
    frames: int = setting(24, "frames of a drawn clip; the first and the last do not count", count_of("frames", 3))
    level: float = setting(
        0.5, "of drawn scenes: 0 few large plain objects, 1 clutter", Range("a number from 0 to 1", 0, 1)
    )
    held_out: bool = setting(False, "draw outlines and surfaces that training never uses", SWITCH)

    def __post_init__(self) -> None:
        if self.data is None:
            raise ValueError(f"val needs data=: {KINDS}.")
        arguments.check_values(vars(self), arguments.arguments_of(Settings))
        prompts = self.prompts()
        if not all(kind in PROMPT_KINDS for kind in prompts) or self.ask is not None and not prompts:
            raise ValueError(
                f"ask={self.ask!r:.200}: give some of {', '.join(PROMPT_KINDS)}, as ask=box or ask=mask,box."
            )

    def prompts(self) -> tuple[str, ...]:
        """The kinds of prompts in `ask`; none where it was left out."""
        if isinstance(self.ask, str):
            return tuple(word.strip(" []'\"") for word in self.ask.split(","))
        return () if self.ask is None else tuple(as_list(self.ask))


def read(options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """Split the arguments of a call into settings, arguments of `predict` and those of Ultralytics.

    Raises:
        TypeError: a name that is not among them; the message has the nearest.
        ValueError: a value that an argument does not take.
    """
    arguments.check_names(options, accepted(), "val")
    own, of_predict, of_ultralytics = (
        {name: options[name] for name in names if name in options}
        for names in (arguments.arguments_of(Settings), FROM_PREDICT, FROM_ULTRALYTICS)
    )
    return Settings(**own), of_predict, of_ultralytics


def help() -> list[str]:
    """The help: what `data` may be, and a line for every argument of our own."""
    shared = ", ".join((*FROM_ULTRALYTICS, *FROM_PREDICT))
    return [
        LAYOUTS,
        "",
        *arguments.help_lines(arguments.arguments_of(Settings)),
        "",
        "    Also, as for predict: " + "\n      ".join(textwrap.wrap(shared, 90)),
    ]


def accepted() -> dict[str, Any]:
    """Every argument with its default."""
    own = arguments.defaults(arguments.arguments_of(Settings))
    shared = {name: arguments.OWN[name].default for name in FROM_PREDICT}
    switches = {"half": False, "exist_ok": False, "verbose": True}
    return {**own, **shared, **dict.fromkeys(FROM_ULTRALYTICS), **switches}
