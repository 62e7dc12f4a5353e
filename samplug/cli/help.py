"""What `samplug help` and `yolo sam help` print."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from samplug import __version__
from samplug.arguments import HELP_GROUPS, help_lines
from samplug.errors import UsageError

TOPICS = {path.stem: path for path in sorted((Path(__file__).parent / "topics").glob("*.md"))}

YOLO_SECTION = """
    samplug: Segment Anything by prompts (`yolo sam help` tells all arguments)

        yolo sam predict model=sam2.1_t.pt source=bus.jpg points="[[500, 375]]" labels="[1]"
        yolo sam predict source=images/ prompts=prompts.json save_txt
"""


def asks_help(args: list[str]) -> bool:
    """Whether there is no argument, or the first or second asks for help, with or without dashes."""
    return not args or any(arg.lstrip("-").lower() in ("help", "h") for arg in args[:2])


def topic_text(args: list[str], modes: Iterable[str]) -> str | None:
    """The page of `help TOPIC`, or None where no topic is named; a mode is none. UsageError if there is no such one."""
    topics = [arg.lower() for arg in args if not asks_help([arg]) and "=" not in arg and arg not in modes]
    if not asks_help(args[:1]) or not topics:
        return None
    if topics[0] not in TOPICS:
        near = difflib.get_close_matches(topics[0], TOPICS, n=1)
        raise UsageError(
            f"there is no help on {topics[0]!r}. Expected a mode or one of {', '.join(TOPICS)}."
            + (f" Did you mean {near[0]}?" if near else "")
        )
    return TOPICS[topics[0]].read_text(encoding="utf-8").rstrip()


def help_text(program: str, modes: Iterable[str], examples: Iterable[str]) -> str:
    """The help of `samplug` or of `yolo sam`: how to call it, and every argument of our own."""
    lines = [
        f"samplug {__version__}: Segment Anything for Ultralytics",
        "",
        *(f"    {program} {example.format(program=program)}" for example in examples),
        "    samplug pick source=bus.jpg     prompt images or a video in a window; prints the command",
        "    samplug checks                  what is installed, and what to do about what is not",
        "",
        f"    Modes: {', '.join(modes)}. `yolo sam …` and `samplug …` are the same command.",
        "    Without model= the small bundled one runs; sam_b.pt, mobile_sam.pt, sam2.1_t.pt … are downloaded.",
        "    Every argument of `yolo predict` is taken too; name=@file.json reads a value from a file.",
        f"    More: {program} help TOPIC, of {', '.join(TOPICS)}.",
    ]
    for group, arguments in HELP_GROUPS.items():
        lines += ["", f"    {group}", *help_lines(arguments)]
    return "\n".join(lines)
