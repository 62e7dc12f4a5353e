"""What a benchmark is asked for. Standard library only, so that a wrong word is refused at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PARTS = ("encoder", "decoder", "everything", "video", "switches", "memory", "startup")
PEERS = ("ultralytics", "sam2", "vos_optimized", "segment-anything", "transformers")
MODES = ("default", "reduce-overhead", "max-autotune")
LISTS = ("parts", "peers", "prompts", "objects")


def choice(default: Any, help: str) -> Any:
    """A field with its line of help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """The arguments of `SAM.benchmark` and of `samplug benchmark`.

    Raises:
        ValueError: a value that none of them takes.
    """

    model: str = choice("samplug-nano.pt", "a checkpoint, or the name of a network, then with random weights")
    device: str = choice("", "cpu, cuda, 0, mps; left out: a GPU where there is one")
    imgsz: int | None = choice(None, "side of the input; left out: the network's own")
    parts: tuple[str, ...] = choice(PARTS, f"what is measured: {','.join(PARTS)}")
    peers: tuple[str, ...] = choice(PEERS, f"beside whom, if installed: {','.join(PEERS)}, or none")
    rounds: int = choice(3, "timed runs of each, by turns, after one that is not timed")
    prompts: tuple[int, ...] = choice((1, 8, 64, 256), "how many prompts the decoder answers at once")
    objects: tuple[int, ...] = choice((1, 5, 16), "how many objects are followed through a video")
    frames: int = choice(10, "frames of the video; from the eighth on the memory is full")
    points_stride: int = choice(32, "clicks along a side of the grid of everything")
    threads: int | None = choice(None, "of the CPU, for everybody; left out: all cores")
    half: bool = choice(False, "fp16, on a GPU")
    bf16: bool = choice(False, "bfloat16, for those who have it")
    compile: bool | str = choice(
        False, "samplug through torch.compile, True or a mode; sam2's own way is the peer vos_optimized"
    )
    channels_last: bool = choice(False, "maps with channels last, samplug alone")
    project: str | None = choice(None, "folder of the run's folder")
    name: str | None = choice(None, "name of the run's folder")
    exist_ok: bool = choice(False, "write into a folder that exists")
    save_dir: str | None = choice(None, "the run's folder itself")
    save: bool = choice(True, "write the table, JSON and a plot into the run's folder")
    verbose: bool = choice(True, "say how far it is, and the table")

    def __post_init__(self) -> None:
        among("parts", self.parts, PARTS)
        among("peers", self.peers, PEERS)
        for name in ("prompts", "objects"):
            if not getattr(self, name) or not all(type(n) is int and n > 0 for n in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r}: give counts above 0, as {name}=1,8.")
        for name in ("rounds", "frames", "points_stride"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a whole number above 0.")
        among("compile", () if isinstance(self.compile, bool) else (self.compile,), MODES)
        if self.half and self.bf16:
            raise ValueError("half=True and bf16=True: give one of the two.")

    @staticmethod
    def read(given: Mapping[str, Any]) -> Settings:
        """Read arguments as people write them: lists with or without brackets, peers=none for none.

        Raises:
            TypeError: an argument that there is not.
            ValueError: a value that it does not take.
        """
        known = {each.name: each for each in fields(Settings)}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3)
                hint = f"Did you mean {' or '.join(near)}?" if near else f"It takes {', '.join(known)}."
                raise TypeError(f"{name!r} is no argument of benchmark. {hint}")
        read: dict[str, Any] = {}
        said = {name: value for name, value in given.items() if value is not None or name == "peers"}
        read |= {name: listed(value) if name in LISTS else value for name, value in said.items()}
        read |= {name: str(read[name]) for name in ("model", "device") if name in read}
        return Settings(**read)

    @staticmethod
    def defaults() -> dict[str, Any]:
        """Every argument with its default."""
        return {each.name: each.default for each in fields(Settings)}

    @staticmethod
    def help() -> list[str]:
        """A line for each argument."""
        return [f"{each.name:<24}{each.metadata['help']}{shown(each.default)}" for each in fields(Settings)]


def listed(value: Any) -> tuple[Any, ...]:
    """A list from one value, several, or words with commas; nothing from "none", "" and False."""
    if value in (None, False) or (isinstance(value, str) and value.lower() in ("none", "")):
        return ()
    if isinstance(value, str):
        words = [word.strip() for word in value.strip("[]()").split(",")]
        return tuple(int(word) if word.isdigit() else word for word in words)
    return tuple(value) if isinstance(value, Iterable) else (value,)


def among(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse words that are none of the known ones."""
    for word in given:
        if word not in known:
            raise ValueError(f"{name}={word}: give some of {','.join(known)}.")


def shown(default: Any) -> str:
    """A default, as help shows it."""
    if default in (None, "") or (isinstance(default, tuple) and isinstance(default[0], str)):
        return ""
    return f" ({','.join(map(str, default))})" if isinstance(default, tuple) else f" ({default})"
