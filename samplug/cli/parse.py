"""Command lines to options: `name=value` as `yolo` reads it, files of options, near misses.

Nothing heavy is imported: what is wrong is refused at once.
"""

import ast
import difflib
import importlib.util
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from samplug.arguments import HOST, HOST_ALIASES, OWN, OWN_DEFAULTS, Handling, handling_of
from samplug.errors import UsageError, one_line

HOST_MODES = ("train", "val", "predict", "export", "track", "benchmark")
TEXTS = ("model", "data", "val_data", "split", "save_dir", "out", "tuned")  # a file or folder called 2024 is no number


def merge(args: list[str]) -> list[str]:
    """Join what the shell tore apart: spaces round `=` and inside brackets, as `yolo` joins them.

    Never fails: what follows a bracket that stays open becomes one argument, which `read_value` refuses.
    """
    line = re.sub(r"\0=\0|\0=|=\0(?=[^\0=]*(\0|$))", "=", "\0".join(args))
    merged: list[str] = []
    depth = 0
    for arg in line.split("\0") if args else []:
        if depth:
            merged[-1] += arg
        else:
            merged.append(arg)
        depth += arg.count("[") - arg.count("]")
    return merged


def read(args: list[str], modes: Collection[str] = HOST_MODES) -> tuple[str, dict[str, Any]]:
    """Turn merged arguments, `name=value`, switches and a mode, into a mode and checked options.

    They win over those of a file in `cfg=`. `modes` are those that a near miss may mean.
    """
    known = known_options()
    given = read_options(args, known, modes)
    options = {**cfg_file(given.pop("cfg", None)), **given}
    check_known(options, known, modes)
    if isinstance(options.get("boxes"), (list, tuple)):
        raise UsageError("'boxes' switches the drawing of boxes; did you mean bboxes?")
    if "task" in given:
        raise UsageError(f"there is no task {given['task']!r}.")
    options.pop("task", None)  # a file made by `yolo copy-cfg` has one
    return options.pop("mode", "predict"), options


def read_settings(args: list[str], known: dict[str, Any], mode: str) -> dict[str, Any]:
    """Read the arguments of a mode that has its own, given their defaults."""
    given = read_options(args, known)
    check_known(given, known, help=f"{mode} help")
    return given


def read_options(args: list[str], known: dict[str, Any], modes: Collection[str] = ()) -> dict[str, Any]:
    """Read `name=value` by the known names and their defaults; switches, and modes where there are any, stand alone."""
    given: dict[str, Any] = {}
    for arg in args:
        name, equals, text = arg.strip().rstrip(",").partition("=")
        name = name.lstrip("-").strip()
        if equals:
            given[name] = read_value(name, text.strip())
        elif modes and name in HOST_MODES:
            given["mode"] = name
        elif isinstance(known.get(name), bool):
            given[name] = True
        else:
            check_known([name], known, modes)
            raise UsageError(f"{name!r} needs a value: write {name}=… in one word.")
    return given


def check_known(names: Iterable[str], known: dict[str, Any], modes: Collection[str] = (), help: str = "help") -> None:
    """Refuse names that are not known, with the nearest ones; `help` is what to type behind `samplug` for all."""
    for name in names:
        if name not in known:
            if name in OWN or name in HOST:
                raise UsageError(f"{name!r} is an argument of predict and track, and without meaning here.")
            near = difflib.get_close_matches(name, [*known, *modes], n=3, cutoff=0.65)
            hint = f"Similar arguments: {', '.join(near)}." if near else f"`samplug {help}` lists the arguments."
            raise UsageError(f"{name!r} is not an argument. {hint}")


def read_value(name: str, text: str) -> Any:
    """Read the text after `name=`: a Python literal, none, true or false in any case, a file of prompts, else text."""
    if not text:
        raise UsageError(f"'{name}=' has no value.")
    if text.count("[") != text.count("]"):
        raise UsageError(f"{name}={text} has a bracket without its partner.")
    if name in OWN and text.startswith("@"):
        from samplug.prompts.raw import decode_json  # here: it is heavy, and few commands need it

        return read_file(text[1:], text[1:], "JSON", decode_json, ValueError)
    if name in ("name", "project") and text.lower() != "none":  # a run called 007 is not a number
        return text
    try:
        value = ast.literal_eval(text.title() if text.lower() in ("none", "true", "false") else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return text if name in TEXTS and type(value) in (int, float, complex) else value


def read_file(name: str, path: str, kind: str, parse: Callable[[str], Any], fault: type[Exception]) -> Any:
    """Parse a file of some kind, whose parser raises `fault`; `name` is what messages call it."""
    if Path(path).exists() and not Path(path).is_file():
        raise UsageError(f"{name} is a folder or a device. Expected a file.")
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply.") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from error
    except fault as error:
        raise UsageError(f"{name} is not {kind}: {one_line(error)}") from error


def cfg_file(path: str | None) -> dict[str, Any]:
    """Read the arguments of a YAML file, less the ones without a value and those of other modes."""
    if path is None:
        return {}
    import yaml

    settings = read_file(f"cfg={path}", str(path), "YAML", yaml.safe_load, yaml.YAMLError) or {}
    if not isinstance(settings, dict):
        raise UsageError(f"cfg={path} is not a list of 'name: value' lines.")
    foreign = {name for name in host_defaults() if handling_of(name) == Handling.OTHER_MODE}
    return {name: item for name, item in settings.items() if item is not None and name not in foreign}


def known_options() -> dict[str, Any]:
    """Return every argument with its default: the host's, those of its other releases, our own."""
    return {**dict.fromkeys(HOST), **HOST_ALIASES, **host_defaults(), **OWN_DEFAULTS}


def host_defaults() -> dict[str, Any]:
    """Read the names and defaults of Ultralytics' arguments from its own table, without importing it (seconds)."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise UsageError("Ultralytics is not installed: pip install ultralytics")
    table = Path(spec.origin).with_name("cfg") / "default.yaml"
    lines = re.findall(r"^(\w+):[ \t]*([^#\n]*)", table.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: read_value(name, text.strip()) if text.strip() else None for name, text in lines}
