"""The programs `samplug …` and `yolo sam …`: which part of the package, or of Ultralytics, runs a command."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from samplug import __version__
from samplug.cli.help import YOLO_SECTION, asks_help
from samplug.cli.modes import run_sam, user_errors
from samplug.cli.parse import HOST_MODES, merge, read
from samplug.errors import UsageError

HOST_TASKS = ("detect", "segment", "semantic", "depth", "classify", "pose", "obb")
HOST_COMMANDS = ("settings", "cfg", "copy-cfg", "login", "logout", "solutions")


def main() -> None:
    """Run the console script `samplug`."""
    with exit_codes("samplug"):
        samplug(merge(sys.argv[1:]))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: a run ends as with Ctrl-C, and what was written is kept."""

    signal = signal.SIGTERM


class HungUp(Terminated):
    """SIGHUP."""

    signal = getattr(signal, "SIGHUP", signal.SIGTERM)


def raise_on_signals() -> None:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does, unless somebody handles or ignores them (nohup)."""
    for kind in (Terminated, HungUp):
        with suppress(ValueError):  # not in the main thread: whoever runs us there handles signals
            if signal.getsignal(kind.signal) == signal.SIG_DFL:
                signal.signal(kind.signal, partial(_interrupt, kind))


def _interrupt(kind: type[Terminated], *_: Any) -> None:
    raise kind


def open_streams() -> None:
    """Give a process whose standard streams are closed others, and let what a terminal cannot show become a `?`."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # else the next file that is opened would take what C libraries print
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open to the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


@contextmanager
def exit_codes(program: str) -> Iterator[None]:
    """Turn a refusal, Ctrl-C, SIGTERM, SIGHUP and a closed pipe (`… | head`) into the exits that shells know."""
    open_streams()
    raise_on_signals()
    try:
        yield
        sys.stdout.flush()
    except UsageError as error:
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt as interrupt:
        with suppress(OSError):  # after a hang-up there is no terminal
            print(f"\n{program}: interrupted. What was done until here is saved.", file=sys.stderr)
        sys.exit(128 + (interrupt.signal if isinstance(interrupt, Terminated) else signal.SIGINT))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the interpreter flushes it once more when it ends
        sys.exit(141)  # 128 + SIGPIPE, which not every system has


def yolo(original: Callable[[str], Any], debug: str = "") -> None:
    """Run the `yolo` command: the task `sam` here, every other by `original`, Ultralytics' entry point as it came.

    `debug` is a whole command in place of `sys.argv`, as `original` takes it.
    """
    args = merge((debug.split(" ") if debug else sys.argv)[1:])
    if not is_for_sam(args):
        original(debug)
        if asks_help(args):
            print(YOLO_SECTION)
        return
    with exit_codes("yolo sam"):
        run_sam(args, "yolo sam")


def register() -> None:
    """Let `ultralytics.cfg.entrypoint` know `sam` in this program too, as it does in the `yolo` command."""
    import samplug_yolo  # where yolo_hook.py is installed; a wheel has no other copy
    import ultralytics.cfg

    samplug_yolo.attach(ultralytics.cfg)


def is_for_sam(args: list[str]) -> bool:
    """Whether merged arguments are for the task `sam`: its name first or after a mode, or `task=sam`."""
    names = [arg for arg in args if "=" not in arg]
    first = names[0] if names else ""
    return "task=sam" in args or first == "sam" or (first in HOST_MODES and "sam" in names)


def is_for_host(args: list[str]) -> bool:
    """Whether arguments name a task or a command of Ultralytics."""
    tasks = {arg.removeprefix("task=") for arg in args if "=" not in arg or arg.startswith("task=")}
    return args[:1] != [] and (args[0] in HOST_COMMANDS or not tasks.isdisjoint(HOST_TASKS))


def samplug(args: list[str]) -> None:
    """Run `samplug` with these arguments."""
    first = args[0].lstrip("-") if args else ""
    if first in ("version", "v"):
        print(__version__)
    elif first == "checks":
        from samplug.cli.checks import run_checks

        sys.exit(run_checks())
    elif first == "pick":
        from samplug.cli.pick import pick

        _, options = read(args[1:])
        with user_errors():
            pick(options)
    elif is_for_host(args):
        sys.argv[0] = "yolo"  # the only program name for which Ultralytics saves and streams
        from ultralytics.cfg import entrypoint

        entrypoint()
    else:
        run_sam(args, "samplug")
