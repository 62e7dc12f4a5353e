"""What `predict` takes: our own arguments, and how each of Ultralytics' is handled. Standard library only.

One table serves Python, the predictors, the command line and its help, so that a name means the same in all of them.
The settings of other modes are dataclasses whose fields are made by `setting`: checked and explained in the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar

from samplug.errors import shown
from samplug.values import (
    AREA,
    CLASSES,
    IMGSZ,
    MOST_THREADS,
    NAME,
    PROMPTER,
    SHARE,
    SWITCH,
    THRESHOLD,
    Accepts,
    Choice,
    Condition,
    Range,
    are_grids,
    as_list,
    count_of,
    is_accepted,
)

Settings = TypeVar("Settings", bound="CommandSettings")


@dataclass(frozen=True)
class Argument:
    """An argument: its default, one line of help, and which values it takes, where these can be told in advance."""

    default: Any
    help: str
    accepts: Accepts | None = None


COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
POLICY_NAMES = ("reference", "presence", "motion", "distractors", "hybrid")
NON_OVERLAP_DEFAULT = {"images": False, "videos": True}  # what non_overlap is where it is left out

# fmt: off
HELP_GROUPS: dict[str, dict[str, Argument]] = {  # a heading of the help each, a row an argument
    "prompts": {
        "points": Argument(None,
            "clicks in pixels: [[x, y], …] one an object, [[[x, y], [x, y]], …] several an object"),
        "labels": Argument(None, "1 on the object, 0 off it, shaped like points; left out means 1"),
        "bboxes": Argument(None, "boxes in pixels, [[x1, y1, x2, y2], …], one an object"),
        "masks": Argument(None, "a mask an object: arrays, an image file, or logits of an earlier answer"),
        "prompts": Argument(None, "the four above in one dict, a JSON file, a YOLO result, or one of these an image"),
        "cls": Argument(None, "class of each object; left out: its place in the list"),
        "names": Argument(None, "names of the classes, a dict or a list"),
        "obj_ids": Argument(None, "id of each object, shown as the track id"),
        "embedding": Argument(None, "features saved by SAM.embed(...), in place of running the encoder"),
    },
    "answers": {
        "multimask": Argument(False, "False: one mask a prompt; 'best': the likeliest of three; 'all': all three",
            Choice((False, "best", "all"))),
        "multimask_output": Argument(False, "True is multimask='all', as Ultralytics and Meta spell it", SWITCH),
        "logits": Argument(False, "True keeps the low-resolution logits in result.logits, to give back as masks=",
            SWITCH),
        "fill_holes": Argument(0,
            "holes of fewer pixels are filled; below 1: a share of the mask's area; True: all holes", AREA),
        "min_area": Argument(0,
            "parts of fewer pixels are dropped, never the largest; below 1: a share of the mask's area", AREA),
        "non_overlap": Argument(None, "True leaves each pixel to one object; left out: True in videos alone",
            Choice((None, False, True))),
        "save_format": Argument(None, "labels of the whole run in the formats of annotate: coco, or yolo,cvat,…",
            Condition("names, in a list or a text", lambda value: {*map(type, as_list(value))} <= {str})),
        "resize": Argument("letterbox",
            "'letterbox' as Ultralytics; as Meta: 'stretch' for SAM 2, 'pad' for SAM and MobileSAM",
            Choice(("letterbox", "stretch", "pad"))),
    },
    "video": {
        "track": Argument(None,
            "True follows objects through memory, everything when nothing is prompted; False prompts every frame",
            Choice((None, False, True))),
        "keep_lost": Argument(False, "True keeps a lost object as an empty row, False leaves it out", SWITCH),
        "keep_corrections": Argument(False,
            "True remembers a corrected frame as a prompted one; False as Meta: a correction may fade later",
            SWITCH),
        "save_ids": Argument(True, "False writes label files (save_txt=True) without ids, as training YOLO reads them",
            SWITCH),
        "expire_after": Argument(None, "objects lost for so many frames are forgotten; left out: never",
            count_of("frames")),
        "prompter": Argument(None,
            "finds objects by itself: a YOLO model or file, {'model': file, 'conf': 0.4}, or a function",
            PROMPTER),
        "prompt_every": Argument(None,
            "the prompter runs on every so many frames; left out: until it has found something", count_of("frames")),
        "iou_match": Argument(0.5, "a find that overlaps a tracked object by so much is that object",
            Range("a number above 0 and up to 1", 1e-6, 1)),
        "max_objects": Argument(None, "most objects at once that are found by themselves; left out: 32 of everything",
            count_of("objects")),
        "max_prompted": Argument(8, "most prompted frames of an object that the memory attention reads, -1 for all",
            Range("a number of frames, 2 or more, or -1 for all", 2, whole=True, also=-1)),
        "policy": Argument(None, "which memories are used, of samplug.tracking; left out: SAM 2's own rule",
            Choice((None, *POLICY_NAMES), "a class of yours")),
        "start": Argument(None, "number of the first frame, from 0; left out: the beginning, or the end backwards",
            Range("the number of a frame, from 0", 0, whole=True)),
        "reverse": Argument(False,
            "True runs a file backwards; 'both' runs from start= both ways, its results come in the order of time",
            Choice((False, True, "both"))),
    },
    "mistakes": {
        "on_error": Argument(None,
            "'skip' leaves out what cannot be read or prompted, 'raise' ends the run there; left out: skip if several",
            Choice((None, "skip", "raise"))),
        "strict": Argument(False,
            "True makes errors of warnings of slips: prompts never used, coordinates in 0-1, files cut short", SWITCH),
    },
    "teaching": {
        "update_memory": Argument(False,
            "True shows the prompted objects to SAM2DynamicInteractivePredictor, which then finds them", SWITCH),
    },
    "speed": {
        "bf16": Argument(False, "True computes in bfloat16, norms and softmax in fp32; half=True is fp16, on a GPU",
            SWITCH),
        "compile": Argument(False, "True runs through torch.compile, if that answers alike; or a mode of it",
            Choice((False, True, *COMPILE_MODES))),
        "channels_last": Argument(False, "True keeps maps in memory with their channels last", SWITCH),
        "threads": Argument(None, "threads of the CPU; left out: all cores", count_of("threads", most=MOST_THREADS)),
    },
    "everything": {
        "points_stride": Argument(32, "clicks along a side of the grid, when nothing is prompted",
            count_of("clicks", most=4096)),
        "points_batch_size": Argument(64, "clicks answered in one call", count_of("clicks")),
        "point_grids": Argument(None, "own grids, one (N, 2) array in 0-1 for each layer of crops",
            Condition("a list of arrays (N, 2) of points in 0-1, one for each layer of crops", are_grids)),
        "conf_thres": Argument(0.88, "lowest predicted IoU of a mask that is kept", THRESHOLD),
        "stability_score_thresh": Argument(0.95, "lowest stability of a mask that is kept", THRESHOLD),
        "stability_score_offset": Argument(0.95, "how far the threshold moves, in logits, to judge stability",
            Range("a number of 0 or more", 0)),
        "crop_n_layers": Argument(0, "layers of crops; layer i has 2^i crops a side", count_of("layers", 0, most=6)),
        "crop_overlap_ratio": Argument(512 / 1500, "overlap of crops in the first layer, halved each layer",
            Range("a share of the image, 0 up to 1", 0, 1)),
        "crop_downscale_factor": Argument(1, "the grid of layer i has points_stride / factor^i clicks a side",
            Range("a factor of 1 or more", 1)),
        "crop_nms_thresh": Argument(0.7, "IoU of boxes above which a mask of a larger crop is dropped",
            Range("an IoU, 0 to 1", 0, 1)),
        "min_mask_region_area": Argument(0, "holes and islands below this area, in pixels, are removed",
            Range("a number of pixels, or 0 for none", 0)),
        "tile": Argument(None, "a large image in tiles of so many pixels a side, each an image to the network",
            count_of("pixels", 32)),
        "overlap": Argument(0.25, "what neighbouring tiles share, in pixels; below 1: a share of a tile",
            Range("a number of pixels, or a share of a tile below 1", 0)),
        "outlines": Argument("smooth",
            "'smooth' draws masks at the image's size; 'grid' at the network's, in steps, as Ultralytics",
            Choice(("smooth", "grid"))),
        "rules": Argument("ultralytics",
            "'ultralytics' judges masks at the network's size; 'meta' as Meta, at the image's",
            Choice(("ultralytics", "meta"))),
    },
}
# fmt: on
OWN = {name: argument for group in HELP_GROUPS.values() for name, argument in group.items()}
OWN_DEFAULTS = {name: argument.default for name, argument in OWN.items()}
PROMPT_ARGUMENTS = tuple(name for name in HELP_GROUPS["prompts"] if name != "embedding")
SPATIAL_PROMPTS = ("points", "bboxes", "masks", "prompts")  # those that say where an object is
EVERYTHING = tuple(HELP_GROUPS["everything"])


class Handling(Enum):
    """What `predict` does with an argument of Ultralytics."""

    HONOURED = "honoured"
    FIXED = "always on"
    SHARED = "an argument of ours as well"
    IGNORED = "without effect"
    OTHER_MODE = "belongs to another mode"


_HONOURED = """task mode model source data imgsz batch device half quantize conf iou classes save project name exist_ok
    save_txt save_conf save_crop save_frames show show_labels show_conf show_boxes line_width line_thickness verbose
    stream_buffer vid_stride tracker cfg show_masks"""
IGNORED = "agnostic_nms augment visualize embed dnn nms max_det rect int8"

HOST: dict[str, Handling] = {
    **dict.fromkeys(_HONOURED.split(), Handling.HONOURED),
    **dict.fromkeys(IGNORED.split(), Handling.IGNORED),
    **dict.fromkeys(("compile", "channels_last"), Handling.SHARED),  # the same in all releases of Ultralytics
    "retina_masks": Handling.FIXED,
}

HOST_ALIASES = {  # names in older releases; the newest take them too, some with a warning
    "hide_labels": False, "hide_conf": False, "line_thickness": None, "half": False, "int8": False,
    "boxes": True, "save_dir": None, "augmentations": None,
}  # fmt: skip
HOST_VALUES = {  # those of Ultralytics' arguments whose values it does not look at itself
    "imgsz": Argument(None, "size of the input", IMGSZ),
    "classes": Argument(None, "classes that are kept", CLASSES),
    "conf": Argument(None, "lowest score", SHARE),
    "iou": Argument(0.7, "of duplicates", SHARE),
    "batch": Argument(1, "images at once", count_of("images")),
    "vid_stride": Argument(1, "every so many frames", count_of("frames")),
    "project": Argument(None, "folder of the run's folder", NAME),
    "name": Argument(None, "name of the run's folder", NAME),
}


def handling_of(name: str) -> Handling:
    """What `predict` does with an argument of Ultralytics."""
    return HOST.get(name, Handling.OTHER_MODE)


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments as (our own, Ultralytics'); the dict itself stays as it is."""
    own = {name: value for name, value in arguments.items() if name in OWN}
    return own, {name: value for name, value in arguments.items() if name not in OWN}


def check(options: Mapping[str, Any]) -> None:
    """Refuse arguments that a predictor does not take (TypeError), and values that they do not take (ValueError)."""
    check_names(options, OWN, "this predictor")
    check_values(options, OWN)
    grids, layers = options.get("point_grids"), options.get("crop_n_layers") or 0
    if grids is not None and len(grids) <= layers:
        raise ValueError(
            f"point_grids: got {len(grids)} for crop_n_layers={layers}. Expected {layers + 1}, one for each layer of "
            "crops and one for the whole image."
        )


def check_host(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse arguments that neither we nor Ultralytics take (TypeError), and values that would fail later (ValueError).

    `options` are none of ours; `known` are Ultralytics' in the release that is installed.
    """
    check_names(options, {**dict.fromkeys((*OWN, *HOST, *HOST_ALIASES, *known))}, "predict")
    check_values({name: value for name, value in options.items() if name in HOST_VALUES}, HOST_VALUES)


def check_names(names: Iterable[str], known: Collection[str], taker: str) -> None:
    """Refuse names that are not among the known ones: the TypeError has the nearest ones, or all of them."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            takes = f"It takes {', '.join(known)}." if len(known) <= len(OWN) else "`yolo sam help` lists them."
            hint = f"Did you mean {' or '.join(near)}?" if near else takes
            raise TypeError(f"{name!r} is not an argument of {taker}. {hint}")


def check_values(options: Mapping[str, Any], known: Mapping[str, Argument]) -> None:
    """Refuse values that their arguments do not take, by a ValueError that says what they take."""
    for name, value in options.items():
        accepts = known[name].accepts
        if accepts is not None and not is_accepted(value, accepts):
            raise ValueError(f"{name}={shown(value)}: give {accepts.expected}.")


def setting(default: Any, help: str, accepts: Accepts | None = None) -> Any:
    """A field of a dataclass of settings, which `arguments_of` reads back."""
    return field(default=default, metadata={"argument": Argument(default, help, accepts)})


def arguments_of(settings: type[Any]) -> dict[str, Argument]:
    """The arguments that are the fields of a dataclass, by name."""
    return {each.name: each.metadata["argument"] for each in fields(settings)}


def defaults(known: Mapping[str, Argument]) -> dict[str, Any]:
    """Every argument with its default."""
    return {name: argument.default for name, argument in known.items()}


def help_lines(known: Mapping[str, Argument]) -> list[str]:
    """A line of help for each argument."""
    return [f"      {name:<24}{argument.help}{_default_in_help(argument.default)}" for name, argument in known.items()]


class CommandSettings:
    """The settings of a command: the base of a dataclass whose fields are made by `setting`."""

    command: ClassVar[str] = "this command"

    @classmethod
    def read(cls: type[Settings], given: Mapping[str, Any]) -> Settings:
        """Read arguments as people write them, None for one left out; errors are those of `check_names` and values."""
        check_names(given, cls.defaults(), cls.command)
        return cls(**{name: cls._read(name, value) for name, value in given.items() if value is not None})

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        try:
            return cls.read_value(name, value)
        except RuntimeError as error:  # a list within itself, a tensor without values
            expected = f"`yolo sam {cls.command} help` says what it takes"
            raise ValueError(
                f"{name}={shown(value)}: it is nested too deeply, or without values. {expected}."
            ) from error

    @staticmethod
    def read_value(name: str, value: Any) -> Any:
        """A value in the type that the settings keep."""
        return value

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every argument with its default."""
        return defaults(arguments_of(cls))

    accepted = defaults  # what a command line may name

    @classmethod
    def help(cls) -> list[str]:
        """A line for each argument."""
        return [line.lstrip() for line in help_lines(arguments_of(cls))]


def _default_in_help(default: Any) -> str:
    if default in (None, "") or (isinstance(default, tuple) and isinstance(default[0], str)):
        return ""  # a list of words is in the help already
    if isinstance(default, tuple):
        return f" ({','.join(map(str, default))})"
    return f" ({default:.3g})" if isinstance(default, float) else f" ({default})"
