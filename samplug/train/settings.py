"""The arguments of `SAM.train`. Standard library only."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from samplug.arguments import CommandSettings, arguments_of, check_values, help_lines, setting
from samplug.data.help import KINDS, LAYOUTS, SCENES
from samplug.errors import one_line
from samplug.values import NAME, SHARE, SWITCH, Choice, Condition, Range, are_classes, count_of, is_size


def is_batch(value: Any) -> bool:
    """Whether a value is a number of images, or asks for as many as fit."""
    return value in ("auto", -1) or count_of("images").holds(value)


def is_level(value: Any) -> bool:
    """Whether a value is a level of drawn scenes, or that of the first and that of the last step."""
    given = value if isinstance(value, list | tuple) else [value]
    return len(given) in (1, 2) and all(each is not None and SHARE.holds(each) for each in given)


LEARN = ("token", "decoder", "late", "memory", "all")
REFUSED = {  # arguments of Ultralytics' training that mean nothing here, and why
    **dict.fromkeys(("mosaic", "mixup", "cutmix", "copy_paste", "copy_paste_mode", "close_mosaic"),
        "images are not pasted together: prompts point at objects of one image"),
    **dict.fromkeys(("erasing", "auto_augment", "augmentations", "bgr", "perspective", "degrees", "shear"),
        "this augmentation does not exist here; fliplr, flipud, scale, translate, hsv_h, hsv_s and hsv_v do"),
    **dict.fromkeys(("box", "cls", "cls_pw", "dfl", "pose", "kobj", "rle", "angle", "dlog", "dgrad", "dlam", "dis"),
        "it weighs a loss that SAM does not have: masks, predicted IoU and presence are trained"),
    **dict.fromkeys(("overlap_mask", "mask_ratio"), "masks stay apart; full_masks=True trains at the input's size"),
    **dict.fromkeys(("momentum", "warmup_momentum", "warmup_bias_lr"), "AdamW's momentum stays as it is: give lr0"),
    **dict.fromkeys(("single_cls", "cls_remap"), "SAM predicts no classes"),
    "nbs": "steps are not gathered up to a nominal batch: accumulate=N adds up the gradients of N batches",
    "rect": "imgsz=[height,width] makes a rectangle of all inputs",
    "dropout": "the networks keep their own dropout",
    "profile": "`yolo sam benchmark` measures times",
    "distill_model": "there is no teacher network",
    "compile": "training runs without torch.compile; predict has it",
    "quantize": "training computes in fp32, or with amp=True in bfloat16 where the device has it",
    "half": "training computes in fp32, or with amp=True in bfloat16 where the device has it",
    "optimizer": "the optimizer is AdamW",
    "tune": "there is no search for settings",
}  # fmt: skip
OF_RUN = (  # settings that do not change the weights: a resumed run may have others
    *("device", "workers", "project", "name", "exist_ok", "save_dir", "save_period", "save", "verbose", "plots"),
    *("resume", "time", "dry", "cache", "anchor"),
)
OF_SCENES = ("steps", "level", "clips", "multi_scale", "pretrained")
OF_FILES = (
    *("source", "split", "val_data", "holdout", "classes", "fraction", "cache", "features"),
    *("fliplr", "flipud", "scale", "translate", "hsv_h", "hsv_s", "hsv_v"),
)
ARRAYS = tuple | list | set | range
RATE = Range("a learning rate above 0", 1e-12, 1e3)


@dataclass(frozen=True)
class TrainSettings(CommandSettings):
    """The arguments of `SAM.train` and `yolo sam train`.

    Raises:
        ValueError: a value that an argument does not take.
    """

    command: ClassVar[str] = "train"

    # fmt: off
    data: Any = setting(None, KINDS)
    source: str | None = setting(None, "folder of a COCO file's images, where they are not beside it")
    split: str = setting("val", "part of the data set that is measured after every epoch")
    val_data: str | None = setting(None, "data set that is measured, where it is not a part of data")
    holdout: float = setting(0.2, "share that is held out for measuring where the data set has no such part", SHARE)
    classes: Any = setting(None, "classes that count, in YOLO's and COCO's data sets",
        Condition("the number of a class, or a list of them", are_classes))
    fraction: float = setting(1.0, "share of the images or videos to learn from", SHARE)
    cache: Any = setting(False, "ram or disk keeps decoded images", Choice((False, True, "ram", "disk")))
    steps: int = setting(200, "batches of an epoch, of drawn scenes, which never come twice", count_of("batches"))
    level: Any = setting(0.5,
        "of drawn scenes: 0 few large plain objects, 1 clutter; two: of the first and the last batch",
        Condition("a number from 0 to 1, or two", is_level))
    clips: float = setting(0.0, "share of the drawn batches that are clips, a quarter as many as images", SHARE)
    multi_scale: float = setting(0.0, "drawn inputs are smaller and larger than imgsz by up to this share",
        Range("a share, 0 or more and below 1", 0, 0.99, switch=True))
    pretrained: bool = setting(True, "False: drawn scenes teach samplug-nano from nothing", SWITCH)
    learn: str = setting("decoder",
        "token: output tokens and heads; decoder; late: also the last half of the encoder; memory; all", Choice(LEARN))
    lora: int = setting(0, "rank of low-rank updates in place of whole matrices of encoder and memory; 0: none",
        count_of("ranks", 0, most=1024))
    freeze: Any = setting(None, "also frozen: first N blocks of the encoder, or beginnings of parameters' names")
    epochs: int = setting(50, "epochs", count_of("epochs"))
    time: float | None = setting(None, "most hours; epochs= says how rates fall then",
        Range("a number of hours above 0", 1e-9))
    patience: int = setting(10, "epochs without a better result after which training ends; 0: never",
        count_of("epochs", 0))
    batch: Any = setting(4, "images a step; auto (or -1): as many as fit into memory",
        Condition("a number of images, or auto", is_batch))
    accumulate: int = setting(1, "batches whose gradients are added up for one step", count_of("batches"))
    objects: int = setting(8, "most objects of an image in one step, drawn anew each time", count_of("objects"))
    frames: int = setting(4, "frames of a clip, of videos", count_of("frames", 2))
    corrections: int = setting(3, "most clicks that correct a mask, each on an error; 0 to so many are drawn",
        count_of("clicks", 0))
    full_masks: bool = setting(False, "the loss at the input's size, not at a quarter; 16 times its memory", SWITCH)
    imgsz: Any = setting(None, "size of the input; left out: the network's own",
        Condition("pixels, or [height, width], each up to 32768", is_size))
    lr0: float | None = setting(None, "learning rate of the decoder; left out: by the network and what learns", RATE)
    encoder_rate: float | None = setting(None,
        "rate of the encoder's last block in rates of the decoder; left out: likewise", Range("a factor, 0 or more", 0))
    lrf: float = setting(0.05, "last rate as a share of the first", SHARE)
    cos_lr: bool = setting(True, "rates fall by a cosine; False: linearly", SWITCH)
    cooldown: float = setting(1.0, "last share of all steps in which rates fall; 1: as soon as they have risen", SHARE)
    warmup_epochs: float = setting(1.0, "epochs over which rates rise, at most a fifth of all",
        Range("epochs, 0 or more", 0))
    weight_decay: float = setting(0.01, "of matrices, not of biases, norms and embeddings", Range("0 or more", 0))
    layer_decay: float | None = setting(None,
        "factor of the rate from each block of the encoder to the one before; left out: likewise", SHARE)
    max_norm: float = setting(1.0, "largest norm of the gradient", Range("a number above 0", 1e-9))
    ema: float = setting(0.998, "decay of the running mean of the weights, which is what is kept; 0: no mean",
        Range("a decay, 0 or more and below 1", 0, 0.999999))
    fliplr: float = setting(0.5, "share of the images that are mirrored", SHARE)
    flipud: float = setting(0.0, "share that is turned upside down", SHARE)
    scale: float = setting(0.5, "images are scaled by up to so much, 0.5: to between a half and one and a half", SHARE)
    translate: float = setting(0.1, "images are moved by up to this share", SHARE)
    hsv_h: float = setting(0.015, "hue changes by up to this share", SHARE)
    hsv_s: float = setting(0.4, "saturation likewise", SHARE)
    hsv_v: float = setting(0.4, "brightness likewise", SHARE)
    features: str = setting("auto", "where a frozen encoder's features are kept: auto, disk, ram, off",
        Choice(("auto", "disk", "ram", "off")))
    anchor: Any = setting(SCENES, "data set that is measured before and after, to see what is forgotten; False: none")
    keep: float = setting(0.0, "share of the loss that holds answers to other images, like the anchor's, where they "
        "were; 0.2 forgets less", Range("a share, 0 or more and below 1", 0, 0.99))
    val: bool = setting(True, "measure after every epoch; False: the last weights are the best", SWITCH)
    amp: Any = setting(True, "bfloat16 where the device has it; 'bf16' everywhere, False nowhere",
        Choice((True, False, "bf16")))
    seed: int = setting(0, "of everything that is drawn", Range("a whole number, 0 or more", 0, 2**32 - 1, whole=True))
    deterministic: bool = setting(True, "the same numbers every time on a GPU too, where torch can", SWITCH)
    device: Any = setting(None, "as in predict; 0,1: several, which share every batch")
    workers: int | None = setting(None, "processes that read images ahead; left out: 8 on a GPU, none on a CPU",
        count_of("processes", 0, most=256))
    project: Any = setting(None, "folder of the run's folder", NAME)
    name: Any = setting(None, "name of the run's folder", NAME)
    exist_ok: bool = setting(False, "use that folder again; an unfinished run of the same settings there goes on",
        SWITCH)
    save_dir: Any = setting(None, "the run's folder itself, in place of project and name")
    save: bool = setting(True, "save weights while training, to be able to go on", SWITCH)
    save_period: int = setting(-1, "keep the weights of every so many epochs too; -1: none",
        Range("a number of epochs, or -1", 1, whole=True, also=-1))
    plots: bool = setting(True, "save curves and images", SWITCH)
    verbose: bool = setting(True, "show progress", SWITCH)
    resume: Any = setting(False, "True goes on with the last unfinished run, a path with the run of that last.pt")
    dry: bool = setting(False, "say what would learn, how much memory and time it takes, and train nothing", SWITCH)
    # fmt: on

    def __post_init__(self) -> None:
        check_values(vars(self), arguments_of(TrainSettings))
        if self.data is None and not self.resume:
            raise ValueError(f"train needs data=: {KINDS}.")
        kind, foreign = ("files", OF_SCENES) if self.data != SCENES else (SCENES, OF_FILES)
        for name in foreign if self.data is not None else ():
            if getattr(self, name) not in (TrainSettings.defaults()[name], "off"):
                raise ValueError(f"{name}={getattr(self, name)} means nothing where data={kind}. Expected no {name}=.")
        sides = self.imgsz if self.data == SCENES and isinstance(self.imgsz, list | tuple) else []
        if len(set(sides)) > 1:
            raise ValueError(f"imgsz={self.imgsz}: drawn inputs are squares. Expected a number of pixels.")
        count = len(self.devices)
        if count > 1 and self.data == SCENES:
            raise ValueError(f"device={self.device}: drawn data are learned from on one device. Expected one.")
        if count > 1 and self.batch not in ("auto", -1) and self.batch < count:
            raise ValueError(f"batch={self.batch} on {count} devices: give a number of images, at least one a device.")

    @property
    def devices(self) -> list[str]:
        """The devices to train on, a process each; a single one, or none, is left to Ultralytics to choose.

        Raises:
            ValueError: several that cannot train together.
        """
        names = [name.strip(" '\"").removeprefix("cuda:") for name in str(self.device).strip("[]() ").split(",")]
        names = [name for name in names if name]
        different_gpus = all(map(str.isdigit, names)) and len({*names}) == len(names)
        if len(names) > 1 and set(names) != {"cpu"} and not different_gpus:
            raise ValueError(f"device={self.device}: give one device, numbers of GPUs as in 0,1, or cpu,cpu.")
        return names

    @property
    def levels(self) -> tuple[float, float]:
        """The level of drawn scenes at the first and at the last step."""
        given = self.level if isinstance(self.level, list | tuple) else [self.level]
        return given[0], given[-1]

    @property
    def of_weights(self) -> dict[str, Any]:
        """The settings that determine the weights: runs in which these are equal are equal, interrupted or not."""
        own = [name for name in OF_RUN if name != "anchor" or not self.keep]  # it is rehearsed on
        return {name: value for name, value in vars(self).items() if name not in own}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> TrainSettings:
        """Read arguments as people write them, also those of a file `cfg`; the others win.

        Raises:
            TypeError: an argument that does not exist, or that makes no sense here.
            ValueError: a value that it does not take.
        """
        for name in given:
            if name in REFUSED:
                raise TypeError(f"{name!r} is not an argument of SAM's training: {REFUSED[name]}.")
        return super().read({**_of_file(given.get("cfg")), **{n: value for n, value in given.items() if n != "cfg"}})

    @staticmethod
    def read_value(name: str, value: Any) -> Any:
        """A value as YAML and a checkpoint can hold it: paths become text, tuples and arrays lists."""
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, PathLike):
            return str(value)
        return [TrainSettings.read_value(name, each) for each in value] if isinstance(value, ARRAYS) else value

    @classmethod
    def accepted(cls) -> dict[str, Any]:
        """What a command line may name: also what `read` refuses with a reason."""
        return {**cls.defaults(), "cfg": None, **dict.fromkeys(REFUSED, False)}

    @classmethod
    def help(cls) -> list[str]:
        """What `data` may be, a line for every argument, and the refused ones."""
        refused = ", ".join(sorted(REFUSED))
        return [
            LAYOUTS,
            "",
            *help_lines(arguments_of(cls)),
            "",
            "    Refused, with the reason: " + "\n      ".join(textwrap.wrap(refused, 90)),
        ]


def _of_file(path: Any) -> dict[str, Any]:
    """The settings in a run's args.yaml."""
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        return {name: value for name, value in content.items() if name in TrainSettings.defaults()}
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"cfg={path} is no file of settings: {one_line(error)}") from error
