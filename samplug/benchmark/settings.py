"""The arguments of a benchmark. Standard library only, so that errors come at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from samplug.arguments import COMPILE_MODES, CommandSettings, arguments_of, check_values, setting
from samplug.values import MOST_THREADS, PATH, PIXELS, SWITCH, Choice, Condition, count_of

PARTS = ("encoder", "decoder", "everything", "video", "switches", "memory", "startup")
PEERS = ("ultralytics", "sam2", "vos_optimized", "segment-anything", "transformers")
LIST_ARGUMENTS = ("parts", "peers", "prompts", "objects")

FILE_OR_NETWORK = Condition("the name of a file or network", lambda value: isinstance(value, str))  # opened, or refused


@dataclass(frozen=True)
class Settings(CommandSettings):
    """The arguments of `SAM.benchmark` and of `samplug benchmark`.

    Raises:
        ValueError: a value that none of them takes.
    """

    command: ClassVar[str] = "benchmark"

    model: str = setting(
        "samplug-nano.pt", "a checkpoint, or the name of a network, then with random weights", FILE_OR_NETWORK
    )
    device: str = setting("", "cpu, cuda, 0, mps; left out: a GPU where there is one")
    imgsz: int | None = setting(None, "side of the input; left out: the network's own", PIXELS)
    parts: tuple[str, ...] = setting(PARTS, f"what is measured: {','.join(PARTS)}")
    peers: tuple[str, ...] = setting(PEERS, f"beside whom, if installed: {','.join(PEERS)}, or none")
    rounds: int = setting(3, "timed runs of each, by turns, after one that is not timed", count_of("rounds"))
    prompts: tuple[int, ...] = setting((1, 8, 64, 256), "how many prompts the decoder answers at once")
    objects: tuple[int, ...] = setting((1, 5, 16), "how many objects are followed through a video")
    frames: int = setting(10, "frames of the video; from the eighth on the memory is full", count_of("frames"))
    points_stride: int = setting(32, "clicks along a side of the grid of everything", count_of("clicks"))
    threads: int | None = setting(
        None, "of the CPU, for everybody; left out: all cores", count_of("threads", most=MOST_THREADS)
    )
    neighbour: int = setting(
        0,
        "busy processes beside it, each of one thread in a session of its own",
        count_of("processes", 0, most=MOST_THREADS),
    )
    half: bool = setting(False, "fp16, on a GPU", SWITCH)
    bf16: bool = setting(False, "bfloat16, for those who have it", SWITCH)
    compile: bool | str = setting(
        False,
        "samplug through torch.compile, True or a mode; sam2's own way is the peer vos_optimized",
        Choice((False, True, *COMPILE_MODES)),
    )
    channels_last: bool = setting(False, "maps with channels last, samplug alone", SWITCH)
    project: str | None = setting(None, "folder of the run's folder", PATH)
    name: str | None = setting(None, "name of the run's folder", PATH)
    exist_ok: bool = setting(False, "write into a folder that exists", SWITCH)
    save_dir: str | None = setting(None, "the run's folder itself", PATH)
    save: bool = setting(True, "write the table, JSON and a plot into the run's folder", SWITCH)
    verbose: bool = setting(True, "say how far it is, and the table", SWITCH)

    def __post_init__(self) -> None:
        check_values(vars(self), arguments_of(Settings))
        for name, known in {"parts": PARTS, "peers": PEERS}.items():
            for item in getattr(self, name):
                if item not in known:
                    raise ValueError(f"{name}={item}: give some of {','.join(known)}.")
        for name in ("prompts", "objects"):
            counts = getattr(self, name)
            if not counts or not all(type(count) is int and count > 0 for count in counts):
                raise ValueError(f"{name}={counts!r}: give counts above 0, as {name}=1,8.")
        if self.half and self.bf16:
            raise ValueError("half=True and bf16=True: give one of the two.")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Settings:
        """Read arguments as people write them: lists with or without brackets, peers=none for none."""
        return super().read({name: () if name == "peers" and value is None else value for name, value in given.items()})

    @staticmethod
    def read_value(name: str, value: Any) -> Any:
        """A value in the type that the settings keep."""
        return as_list(value) if name in LIST_ARGUMENTS else str(value) if name == "device" else value


def as_list(value: Any) -> tuple[Any, ...]:
    """A list from one value, several, or text with commas; nothing from "none", "" and False."""
    if value in (None, False) or (isinstance(value, str) and value.lower() in ("none", "")):
        return ()
    if isinstance(value, str):
        items = [item.strip() for item in value.strip("[]()").split(",")]
        return tuple(int(item) if item.isdigit() else item for item in items)
    return tuple(value) if isinstance(value, Iterable) else (value,)
