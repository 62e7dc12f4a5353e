"""`samplug …` and `yolo sam …`: what is asked for, done, and refused in a line.

Nothing heavy is imported before the words are known to be right, so help and refusals come at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from samplug import __version__
from samplug.arguments import OWN, check, split
from samplug.room import ON_A_GPU
from samplug.words import (
    HOST_MODES,
    MODES,
    Refusal,
    flat,
    in_a_line,
    merge,
    read,
)

HOST_TASKS = ("detect", "segment", "semantic", "depth", "classify", "pose", "obb")
HOST_COMMANDS = ("settings", "cfg", "copy-cfg", "login", "logout", "solutions")
HELP = ("help", "h")

EXAMPLE = 'predict source=bus.jpg points="[[500, 375]]"'
YOLO_SECTION = """
    samplug: Segment Anything by prompts (`yolo sam help` tells all arguments)

        yolo sam predict model=sam2.1_t.pt source=bus.jpg points="[[500, 375]]" labels="[1]"
        yolo sam predict source=pictures/ prompts=prompts.json save_txt
"""


def main() -> None:
    """Run the console script `samplug`."""
    with exits("samplug"):
        samplug(merge(sys.argv[1:]))


@contextmanager
def exits(program: str) -> Iterator[None]:
    """Turn a refusal, Ctrl-C and a reader that has seen enough (`… | head`) into the exits that shells know."""
    try:
        yield
        sys.stdout.flush()
    except Refusal as refusal:
        sys.exit(f"{program}: {refusal}")
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted. What was done until here is saved.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the interpreter flushes it once more when it ends
        sys.exit(141)  # 128 + SIGPIPE, which not every system has


def yolo(stock: Callable[[str], Any], debug: str = "") -> None:
    """Run the `yolo` command: the task `sam` here, every other by `stock`, the entry point of Ultralytics.

    Args:
        stock: `ultralytics.cfg.entrypoint` as it came.
        debug: a whole command in place of `sys.argv`, as `stock` takes it.
    """
    words = merge((debug.split(" ") if debug else sys.argv)[1:])
    if not claims(words):
        stock(debug)
        if asks_help(words):
            print(YOLO_SECTION)
        return
    with exits("yolo sam"):
        sam(words, "yolo sam")


def register() -> None:
    """Let `ultralytics.cfg.entrypoint` know `sam` in this program too, as it does in the `yolo` command."""
    import samplug_yolo  # where yolo_hook.py is installed; a wheel has no other copy
    import ultralytics.cfg

    samplug_yolo.attach(ultralytics.cfg)


def claims(words: list[str]) -> bool:
    """Whether merged words are for the task `sam`: its name first or after a mode, or `task=sam`."""
    plain = [word for word in words if "=" not in word]
    first = plain[0] if plain else ""
    return "task=sam" in words or first == "sam" or (first in HOST_MODES and "sam" in plain)


def samplug(words: list[str]) -> None:
    """Do what the words after `samplug` say."""
    first = words[0].lstrip("-") if words else ""
    if first in ("version", "v"):
        print(__version__)
    elif first == "checks":
        from samplug.checks import run_checks

        sys.exit(run_checks())
    elif first == "pick":
        from samplug.predict.pick import pick

        refuse_as_a_line(pick, read(words[1:])[1])
    elif is_for_the_host(words):
        host()
    else:
        sam(words, "samplug")


def is_for_the_host(words: list[str]) -> bool:
    """Whether words name a task or a command of Ultralytics."""
    tasks = {word.removeprefix("task=") for word in words if "=" not in word or word.startswith("task=")}
    return words[:1] != [] and (words[0] in HOST_COMMANDS or not tasks.isdisjoint(HOST_TASKS))


def host() -> None:
    """Hand the command to Ultralytics, under the only program name for which it saves and streams."""
    sys.argv[0] = "yolo"
    from ultralytics.cfg import entrypoint

    entrypoint()


def sam(words: list[str], program: str) -> None:
    """Run the task `sam`, which `words` may name or not."""
    words = [word for word in words if word not in ("sam", "task=sam")]
    if "benchmark" in words or "mode=benchmark" in words:
        benchmark([word for word in words if word not in ("benchmark", "mode=benchmark")], program)
        return
    if "val" in words or "mode=val" in words:
        measure([word for word in words if word not in ("val", "mode=val")], program)
        return
    if asks_help(words):
        print(help_text(program))
        return
    mode, settings = read(words)
    if mode not in MODES:
        raise Refusal(f"there is no mode {mode!r} for sam; it has {', '.join(MODES)}.")
    refuse_as_a_line(partial(run, mode), settings)


def benchmark(words: list[str], program: str) -> None:
    """Measure what the words after `benchmark` ask for; Ultralytics need not be installed."""
    from samplug.benchmark.settings import Settings

    if words and asks_help(words):
        print("\n".join([f"    {program} benchmark model=sam2.1_t imgsz=512", "", *Settings.help()]))
        return
    given = flat(words, Settings.defaults())
    try:
        settings = Settings.read(given)
    except (TypeError, ValueError) as error:
        raise Refusal(in_a_line(error)) from error

    def work(_: dict[str, Any]) -> None:
        from samplug.benchmark.bench import of_file

        of_file(settings)

    refuse_as_a_line(work, given)


def measure(words: list[str], program: str) -> None:
    """Measure a network on the data set that the words after `val` name."""
    from samplug.measure.settings import SCENES, accepted, help_lines
    from samplug.measure.settings import read as read_settings

    if words and asks_help(words):
        print("\n".join([f"    {program} val model=sam2.1_t.pt data={SCENES} device=0", "", *help_lines()]))
        return
    given = flat(words, {"model": None, **accepted()})
    checkpoint = given.pop("model", None)
    try:
        _, own, stock = read_settings(given)
    except (TypeError, ValueError) as error:
        raise Refusal(in_a_line(error)) from error

    def work(given: dict[str, Any]) -> None:
        from samplug.model import SAM

        check_values(own, stock)
        (SAM(checkpoint) if checkpoint else SAM()).val(**given)

    refuse_as_a_line(work, given)


def asks_help(words: list[str]) -> bool:
    """Whether there is no word, or the first or second asks for help, with or without dashes."""
    return not words or any(word.lstrip("-").lower() in HELP for word in words[:2])


# Work -----------------------------------------------------------------------------------------------------------------


def run(mode: str, settings: dict[str, Any]) -> None:
    """Segment or follow, saving and printing as `yolo predict` does, and keeping no result in memory."""
    from samplug.model import SAM

    own, stock = split(settings)
    check_values(own, stock)
    checkpoint = stock.pop("model", None)
    model = SAM(checkpoint) if checkpoint else SAM()
    with closing(getattr(model, mode)(stream=True, **{"save": True, **stock}, **own)) as results:
        for _ in results:
            pass
    if model.predictor and model.predictor.faults.all:
        raise Refusal(model.predictor.faults.summary())


def check_values(own: dict[str, Any], stock: dict[str, Any]) -> None:
    """Refuse values that we or Ultralytics would; its older spellings become the ones it has now, in place."""
    from ultralytics.utils.checks import check_imgsz

    from samplug.host import get_cfg, select_device

    size = stock.get("imgsz") or 640
    try:
        check_imgsz(size, stride=1, max_dim=2)
    except (TypeError, ValueError, SyntaxError, NameError) as error:  # older releases do not say what it is about
        raise Refusal(f"imgsz={size} is no size: give pixels, or [height,width]. {in_a_line(error)}") from error
    try:
        check(own)
        get_cfg(overrides=stock)
        select_device(stock.get("device"), verbose=False)
    except (TypeError, ValueError, SyntaxError) as error:
        raise Refusal(in_a_line(error)) from error


def refuse_as_a_line(work: Callable[[dict[str, Any]], None], settings: dict[str, Any]) -> None:
    """Do the work; turn mistakes of the caller into a line, and let ours keep their traceback."""
    import torch

    from samplug.checkpoints import CheckpointError
    from samplug.measure.reading import DataError
    from samplug.prompts import PromptError

    try:
        work(settings)
    except (PromptError, CheckpointError, DataError, OSError, MemoryError, FloatingPointError) as error:
        # OSError: no file, network, screen, room on the disk; FloatingPointError: answers that are no numbers
        raise Refusal(in_a_line(error)) from error
    except torch.OutOfMemoryError as error:  # where there was nothing left to be halved
        raise Refusal(f"The GPU has not enough memory: {ON_A_GPU}") from error


def help_text(program: str) -> str:
    """Return the help of `samplug` or of `yolo sam`: how to call it, and every argument of our own."""
    lines = [
        f"samplug {__version__}: Segment Anything for Ultralytics",
        "",
        f"    {program} {EXAMPLE}",
        f'    {program} predict source=bus.jpg bboxes="[[20, 230, 800, 750]]" model=sam2.1_t.pt imgsz=512',
        f"    {program} predict source=pictures/ prompts=prompts.json save_txt",
        f'    {program} track model=sam2.1_t.pt source=clip.mp4 bboxes="[[40, 60, 320, 400]]"',
        f"    {program} val data=scenes          how good the network is; data= your own, see `{program} val help`",
        f"    {program} benchmark                   how fast it is, see `{program} benchmark help`",
        "    samplug pick source=bus.jpg     click in a window; prints the command that repeats it",
        "    samplug checks                  what is installed, and what to do about what is not",
        "",
        f"    Modes: {', '.join(MODES)}. `yolo sam …` and `samplug …` are the same command.",
        "    Without model= the small bundled one runs; sam_b.pt, mobile_sam.pt, sam2.1_t.pt … are downloaded.",
        "    Every argument of `yolo predict` is taken too; name=@file.json reads a value from a file.",
    ]
    for group in dict.fromkeys(argument.group for argument in OWN.values()):
        lines += ["", f"    {group}"]
        lines += [help_line(name) for name, argument in OWN.items() if argument.group == group]
    return "\n".join(lines)


def help_line(name: str) -> str:
    """Return the line of one argument of ours."""
    default = OWN[name].default
    shown = "" if default is None else f" ({default:.3g})" if isinstance(default, float) else f" ({default})"
    return f"      {name:<24}{OWN[name].help}{shown}"
