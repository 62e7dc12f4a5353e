"""What `predict` takes: our own arguments, and what becomes of each of Ultralytics'. Standard library only.

One table serves Python, the predictors, the command line and its help, so that a name means the same in all of them.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Argument:
    """One argument of ours: the heading it stands under in the help, its default and one line of help."""

    group: str
    default: Any
    help: str


OWN: dict[str, Argument] = {
    "points": Argument(
        "prompts", None, "clicks in pixels: [[x, y], …] one an object, [[[x, y], [x, y]], …] several an object"
    ),
    "labels": Argument("prompts", None, "1 on the object, 0 off it, shaped like points; left out means 1"),
    "bboxes": Argument("prompts", None, "boxes in pixels, [[x1, y1, x2, y2], …], one an object"),
    "masks": Argument("prompts", None, "a mask an object: arrays, a picture file, or logits of an earlier answer"),
    "prompts": Argument(
        "prompts", None, "the four above in one dict, a JSON file, a YOLO result, or one of these a picture"
    ),
    "cls": Argument("prompts", None, "class of each object; left out: its place in the list"),
    "names": Argument("prompts", None, "names of the classes, a dict or a list"),
    "obj_ids": Argument("prompts", None, "id of each object, shown as the track id"),
    "embedding": Argument("prompts", None, "features saved by SAM.embed(...), in place of running the encoder"),
    "multimask": Argument(
        "answers", False, "False: one mask a prompt; 'best': the likeliest of three; 'all': all three"
    ),
    "multimask_output": Argument("answers", False, "True is multimask='all', as Ultralytics and Meta spell it"),
    "logits": Argument(
        "answers", False, "True keeps the low-resolution logits in result.logits, to give back as masks="
    ),
    "fill_holes": Argument(
        "answers", 0, "holes of fewer pixels are filled; below 1: a share of the mask's area; True: all holes"
    ),
    "min_area": Argument(
        "answers", 0, "parts of fewer pixels are dropped, never the largest; below 1: a share of the mask's area"
    ),
    "non_overlap": Argument("answers", None, "True leaves each pixel to one object; left out: True in videos alone"),
    "resize": Argument(
        "answers", "letterbox", "'letterbox' as Ultralytics; as Meta: 'stretch' for SAM 2, 'pad' for SAM and MobileSAM"
    ),
    "track": Argument(
        "video",
        None,
        "True follows objects through memory, everything when nothing is prompted; False prompts every frame",
    ),
    "keep_lost": Argument("video", False, "True keeps a lost object as an empty row, False leaves it out"),
    "expire_after": Argument("video", None, "objects lost for so many frames are forgotten; left out: never"),
    "prompter": Argument(
        "video", None, "finds objects by itself: a YOLO model or file, {'model': file, 'conf': 0.4}, or a function"
    ),
    "prompt_every": Argument(
        "video", None, "the prompter looks at every so many frames; left out: until it has found something"
    ),
    "iou_match": Argument("video", 0.5, "a find that overlaps a followed object by so much is that object"),
    "max_objects": Argument("video", None, "most objects that are found by themselves; left out: 32 of everything"),
    "max_prompted": Argument("video", 8, "prompted frames of an object that are looked back at, -1 for all"),
    "policy": Argument("video", None, "which memories are used, of samplug.tracking; left out: SAM 2's own rule"),
    "start": Argument(
        "video", None, "number of the first frame, from 0; left out: the beginning, or the end backwards"
    ),
    "reverse": Argument(
        "video", False, "True walks a file backwards, 'both' forwards from the start and then backwards"
    ),
    "on_error": Argument(
        "mistakes",
        None,
        "'skip' leaves out what cannot be read or prompted, 'raise' ends the run there; left out: skip among several",
    ),
    "update_memory": Argument(
        "teaching", False, "True shows the prompted objects to SAM2DynamicInteractivePredictor, which then finds them"
    ),
    "bf16": Argument(
        "speed", False, "True computes in bfloat16, norms and softmax in fp32; half=True is fp16, on a GPU"
    ),
    "compile": Argument("speed", False, "True runs through torch.compile, if that answers alike; or a mode of it"),
    "channels_last": Argument("speed", False, "True keeps maps in memory with their channels last"),
    "threads": Argument("speed", None, "threads of the CPU; left out: all cores"),
    "points_stride": Argument("everything", 32, "clicks along a side of the grid, when nothing is prompted"),
    "points_batch_size": Argument("everything", 64, "clicks answered in one call"),
    "point_grids": Argument("everything", None, "own grids, one (N, 2) array in 0-1 for each layer of crops"),
    "conf_thres": Argument("everything", 0.88, "lowest predicted IoU of a mask that is kept"),
    "stability_score_thresh": Argument("everything", 0.95, "lowest stability of a mask that is kept"),
    "stability_score_offset": Argument(
        "everything", 0.95, "how far the threshold moves, in logits, to judge stability"
    ),
    "crop_n_layers": Argument("everything", 0, "layers of crops; layer i has 2^i crops a side"),
    "crop_overlap_ratio": Argument("everything", 512 / 1500, "overlap of crops in the first layer, halved each layer"),
    "crop_downscale_factor": Argument(
        "everything", 1, "the grid of layer i has points_stride / factor^i clicks a side"
    ),
    "crop_nms_thresh": Argument("everything", 0.7, "IoU of boxes above which a mask of a larger crop is dropped"),
    "min_mask_region_area": Argument("everything", 0, "holes and islands below this area, in pixels, are removed"),
    "tile": Argument(
        "everything", None, "a large picture in tiles of so many pixels a side, each a picture to the network"
    ),
    "overlap": Argument("everything", 0.25, "what neighbouring tiles share, in pixels; below 1: a share of a tile"),
    "rules": Argument(
        "everything",
        "ultralytics",
        "'ultralytics' judges masks at the network's size; 'meta' as Meta, at the picture's",
    ),
}
CHOICES = {
    "bf16": (False, True),
    "channels_last": (False, True),
    "compile": (False, True, "default", "reduce-overhead", "max-autotune"),
    "multimask": (False, "best", "all"),
    "resize": ("letterbox", "stretch", "pad"),
    "reverse": (False, True, "both"),
    "non_overlap": (None, False, True),
    "on_error": (None, "skip", "raise"),
    "rules": ("ultralytics", "meta"),
}
POLICIES = ("reference", "presence", "motion", "distractors", "hybrid")


@dataclass(frozen=True)
class Limit:
    """Which numbers an argument takes: from `least` up to `most`, whole ones alone or not, and one besides."""

    accepted: str
    least: float
    most: float = math.inf
    whole: bool = False
    besides: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        kind = isinstance(value, int if self.whole else int | float)
        return kind and (self.least <= value <= self.most or value == self.besides)


LIMITS = {
    **dict.fromkeys(
        ("fill_holes", "min_area"), Limit("a number of pixels, a share of the mask below 1, or 0 for none", 0)
    ),
    "prompt_every": Limit("a number of frames, 1 or more", 1, whole=True),
    "iou_match": Limit("a number above 0 and up to 1", 1e-6, 1),
    "expire_after": Limit("a number of frames, 1 or more", 1, whole=True),
    "start": Limit("the number of a frame, from 0", 0, whole=True),
    "max_objects": Limit("a number of objects, 1 or more", 1, whole=True),
    "max_prompted": Limit("a number of frames, 2 or more, or -1 for all", 2, whole=True, besides=-1),
    "tile": Limit("a number of pixels, 32 or more", 32, whole=True),
    "overlap": Limit("a number of pixels, or a share of a tile below 1", 0),
    "points_stride": Limit("a number of clicks, 1 or more", 1, whole=True),
    "points_batch_size": Limit("a number of clicks, 1 or more", 1, whole=True),
    "crop_n_layers": Limit("a number of layers, 0 or more", 0, 10, whole=True),
    "crop_overlap_ratio": Limit("a share of the picture, 0 up to 1", 0, 1),
    "crop_downscale_factor": Limit("a factor of 1 or more", 1),
    "crop_nms_thresh": Limit("an IoU, 0 to 1", 0, 1),
    "min_mask_region_area": Limit("a number of pixels, or 0 for none", 0),
    "threads": Limit("a number of threads, 1 or more", 1, whole=True),
}
PROMPTS = tuple(name for name, argument in OWN.items() if argument.group == "prompts" and name != "embedding")
EVERYTHING = tuple(name for name, argument in OWN.items() if argument.group == "everything")

HONOURED = "honoured"
ALWAYS = "always so"
OURS = "an argument of ours too"
IGNORED = "without effect"
ELSEWHERE = "belongs to another mode"

_HONOURED = """task mode model source data imgsz batch device half quantize conf iou classes save project name exist_ok
    save_txt save_conf save_crop save_frames show show_labels show_conf show_boxes line_width line_thickness verbose
    stream_buffer vid_stride tracker cfg show_masks"""
_OURS = "compile channels_last"  # the same in all releases of Ultralytics
_IGNORED = "agnostic_nms augment visualize embed dnn nms max_det rect int8"

HOST: dict[str, str] = {
    **dict.fromkeys(_HONOURED.split(), HONOURED),
    **dict.fromkeys(_OURS.split(), OURS),
    **dict.fromkeys(_IGNORED.split(), IGNORED),
    "retina_masks": ALWAYS,
}


def fate(name: str) -> str:
    """Say what `predict` does with an argument of Ultralytics: one of the five words above."""
    return HOST.get(name, ELSEWHERE)


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part arguments into (ours, the host's), leaving the dict that came untouched."""
    ours = {name: value for name, value in arguments.items() if name in OWN}
    return ours, {name: value for name, value in arguments.items() if name not in OWN}


def check(said: dict[str, Any]) -> None:
    """Refuse arguments that a predictor does not take (TypeError), and values that are none of a few (ValueError)."""
    for name, value in said.items():
        if name not in OWN:
            near = difflib.get_close_matches(name, OWN, n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"It takes {', '.join(OWN)}."
            raise TypeError(f"{name!r} is no argument of this predictor. {hint}")
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, CHOICES[name]))}.")
        if name == "policy" and isinstance(value, str) and value not in POLICIES:
            raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, POLICIES))}, or a class of yours.")
        if name in LIMITS and value is not None and not LIMITS[name].holds(value):
            raise ValueError(f"{name}={value!r}: give {LIMITS[name].accepted}.")
