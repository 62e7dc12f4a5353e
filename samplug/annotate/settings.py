"""The arguments of an annotation job. Nothing heavy is imported, so that errors come at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from samplug.arguments import CommandSettings, arguments_of, check_values, setting
from samplug.data.help import LABEL_FORMATS, check_formats, format_names
from samplug.errors import JobError
from samplug.values import IMGSZ, PATH, PROMPTER, SHARE, SWITCH, Choice, Condition, Range, as_list, count_of, is_path

SECONDS = Range("seconds, 1 or more", 1)
LOGIT = Range("a number", -math.inf)
PATHS = Condition("the name of a file or folder, or a list of some", lambda given: all(map(is_path, as_list(given))))
NEW_NAMES = Condition(
    "a dict of names to new ones, or to None",
    lambda given: isinstance(given, dict) and all(isinstance(name, str | None) for name in (*given, *given.values())),
)
ENGINES = ("local", "ray")
MOST_PROCESSES = 256  # on one machine
# What records do not depend on: it acts at export, or says how a job runs.
NOT_IN_RECORDS = (
    *("out", "format", "class_names", "min_iou", "min_stability", "min_presence", "min_area", "min_agreement"),
    *("max_failures", "review", "sheet", "save_frames", "part", "verbose", "source"),
    *("device", "workers", "engine", "address", "timeout"),
)
OF_ONE_RUN = ("source", "out", "part", "verbose")  # what a job that is gone on with does not take from the run before


@dataclass(frozen=True)
class Settings(CommandSettings):
    """The arguments of `SAM.annotate`, `samplug.annotate` and `samplug annotate`.

    Raises:
        ValueError: a value that none of them takes.
    """

    source: Any = setting(None, "folder (with its subfolders), glob, list, data.yaml, image or video", PATHS)
    prompter: Any = setting(
        None,
        "what says where objects are: a detector, labels that exist, prompts.json, a function; none: everything",
        PROMPTER,
    )
    model: str = setting("samplug-nano.pt", "the checkpoint of the network", PATH)
    out: str = setting("labels", "folder of the job; alone it goes on with the job there", PATH)
    format: tuple[str, ...] = setting(("yolo",), f"formats of the labels: {','.join(LABEL_FORMATS)}")
    class_names: Any = setting(
        None, 'new names of classes, {"car": "vehicle", "dog": None}; None drops a class', NEW_NAMES
    )
    frames: bool = setting(False, "the images of each folder are the frames of a video", SWITCH)
    imgsz: Any = setting(None, "size of the network's input", IMGSZ)
    device: Any = setting(None, "as in predict")
    half: bool = setting(False, "fp16 on a GPU", SWITCH)
    bf16: bool = setting(False, "bfloat16", SWITCH)
    conf: float = setting(0.25, "confidence from which a detector's boxes count", SHARE)
    batch: int = setting(4, "images that are encoded together", count_of("images"))
    shard: int = setting(256, "images that are committed together; each video is a shard by itself", count_of("images"))
    prompt_every: int = setting(30, "frames from one detection in a video to the next", count_of("frames"))
    min_iou: float = setting(0.0, "predicted IoU below which a mask is dropped from the labels", SHARE)
    min_stability: float = setting(0.0, "stability below which it is dropped", SHARE)
    min_presence: float | None = setting(None, "presence (logit) below which it is dropped, in videos", LOGIT)
    min_area: int = setting(1, "pixels below which it is dropped", count_of("pixels"))
    min_agreement: float = setting(0.0, "IoU of the mask's box and the prompt's below which it is dropped", SHARE)
    max_failures: float = setting(0.01, "share of images and videos that may fail before the job ends", SHARE)
    review: int = setting(500, "rows of review.csv, the riskiest masks", count_of("rows", 0))
    sheet: int = setting(60, "masks shown in review.html, the riskiest of review.csv; 0 for none", count_of("masks", 0))
    save_frames: bool = setting(
        False, "write the images of videos' frames too, which format=yolo needs for training", SWITCH
    )
    part: str = setting("", "K/N: shards K, K+N, … of the job alone, for N processes on one folder")
    workers: Any = setting(
        None,
        "processes: one a GPU, one for 4 cores; 0: this process alone; with engine=ray also the least and most, 4..32",
    )
    timeout: float = setting(1800.0, "seconds without an image after which a process hangs and is replaced", SECONDS)
    engine: str = setting("local", "local, or ray (pip install samplug[ray]): actors on a cluster", Choice(ENGINES))
    address: str | None = setting(None, "of the Ray cluster, auto for the one around; none: on this machine", PATH)
    verbose: bool = setting(True, "show progress and the summary", SWITCH)

    command: ClassVar[str] = "annotate"
    given: ClassVar[frozenset[str]] = frozenset()  # the arguments that somebody gave, where `read` made the settings

    def __post_init__(self) -> None:
        check_values(vars(self), arguments_of(Settings))
        check_formats(self.format, "format")
        self.shard_part, self.worker_range  # noqa: B018  # refuse wrong ones
        if self.engine == "local" and (self.worker_range or (0, 0))[1] > MOST_PROCESSES:
            raise ValueError(f"workers={self.workers}: give at most {MOST_PROCESSES} on one machine.")

    @property
    def shard_part(self) -> tuple[int, int]:
        """(index from 0, number) of the shards that this process takes."""
        if not self.part:
            return 0, 1
        first, _, count = str(self.part).partition("/")
        if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
            raise ValueError(f"part={self.part}. Expected K/N with 1 <= K <= N, for example 3/64.")
        return int(first) - 1, int(count)

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """The least and the most processes; None leaves it to the machine."""
        if self.workers is None:
            return None
        least, dots, most = str(self.workers).partition("..")
        if not least.isdecimal() or not (most.isdecimal() if dots else True) or int(least) > int(most or least):
            raise ValueError(f"workers={self.workers}. Expected a number, or with engine=ray two, for example 4..32.")
        return int(least), int(most or least)

    @property
    def of_run(self) -> dict[str, Any]:
        """What a job that is gone on with takes from this run, besides what the records depend on."""
        kept = {name: getattr(self, name) for name in NOT_IN_RECORDS if name not in OF_ONE_RUN}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
        return {name: value for name, value in lists.items() if is_json(value)}

    @property
    def of_records(self) -> dict[str, Any]:
        """What the records depend on, as JSON can hold it."""
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_IN_RECORDS}
        return {name: value if is_json(value) else {"name": name_of(value)} for name, value in kept.items()}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Settings:
        """Read arguments as people write them: `format` as text with commas or as a list."""
        settings = super().read(given)
        object.__setattr__(settings, "given", frozenset(name for name, value in given.items() if value is not None))
        return settings

    @staticmethod
    def read_value(name: str, value: Any) -> Any:
        """A value in the type that the settings keep."""
        if name == "format":
            return format_names(value)
        return str(value) if name in ("part", "source") and isinstance(value, int) else value


def is_json(value: Any) -> bool:
    """Whether JSON holds a value as it is."""
    if isinstance(value, list):
        return all(is_json(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_json(item) for name, item in value.items())
    return isinstance(value, int | float | str | None)


def name_of(value: Any) -> str:
    """A value as text that is the same in another process: the name of a function, a path or a model's file."""
    for attribute in ("ckpt_path", "model_name", "__qualname__"):
        if isinstance(getattr(value, attribute, None), str):
            return f"{attribute}={getattr(value, attribute)}"
    return type(value).__qualname__ if type(value).__module__ not in ("builtins", "pathlib") else str(value)


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], out: str) -> None:
    """Refuse to go on with other settings than those that the records were made with."""
    changed = [f"{name}: {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise JobError(f"{out} was begun with other settings ({'; '.join(changed)}). Use them, or another out=.")
