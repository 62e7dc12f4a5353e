"""Words of a command line to arguments: `name=value` as `yolo` reads it, files of arguments, near misses.

Nothing heavy is imported: what is wrong is refused at once.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from samplug.arguments import ELSEWHERE, HOST, OWN, fate

MODES = ("predict", "track", "val", "benchmark")
HOST_MODES = ("train", "val", "predict", "export", "track", "benchmark")
# spelled so by older releases; the newest take them too, some with a warning
HOST_ALIASES = {"hide_labels": False, "hide_conf": False, "line_thickness": None, "half": False, "int8": False}


class Refusal(Exception):
    """What was typed cannot be done; the message says why, in a line."""


def merge(words: list[str]) -> list[str]:
    """Join what the shell tore apart: spaces round `=` and inside brackets, as `yolo` joins them.

    Never fails: words after a bracket that stays open become one, which `value` refuses.
    """
    line = re.sub(r"\0=\0|\0=|=\0(?=[^\0=]*(\0|$))", "=", "\0".join(words))
    merged: list[str] = []
    depth = 0
    for word in line.split("\0") if words else []:
        if depth:
            merged[-1] += word
        else:
            merged.append(word)
        depth += word.count("[") - word.count("]")
    return merged


def read(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Turn merged words into a mode and checked arguments; the words win over those of a file in `cfg=`."""
    known = accepted()
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.strip().rstrip(",").partition("=")
        name = name.lstrip("-").strip()
        if equals:
            given[name] = value(name, text.strip())
        elif name in HOST_MODES:
            given["mode"] = name
        elif isinstance(known.get(name), bool):
            given[name] = True
        elif name in known:
            raise Refusal(f"{name!r} needs a value: write {name}=… in one word.")
        else:
            refuse_unknown(name, known)
    settings = {**cfg_file(given.pop("cfg", None)), **given}
    for name in settings:
        if name not in known:
            refuse_unknown(name, known)
    if isinstance(settings.get("boxes"), (list, tuple)):
        raise Refusal("'boxes' switches the drawing of boxes; did you mean bboxes?")
    if "task" in given:
        raise Refusal(f"there is no task {given['task']!r}.")
    settings.pop("task", None)  # a file made by `yolo copy-cfg` has one
    return settings.pop("mode", "predict"), settings


def flat(words: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Read `name=value` words, of which a switch may stand alone, by the names there are and their defaults."""
    given = {}
    for word in words:
        name, equals, text = word.strip().rstrip(",").lstrip("-").partition("=")
        if name not in known and (name in OWN or fate(name) != ELSEWHERE):
            raise Refusal(f"{name!r} is an argument of predict and track, and without meaning here.")
        if name not in known:
            refuse_unknown(name, known)
        if not equals and not isinstance(known[name], bool):
            raise Refusal(f"{name!r} needs a value: write {name}=… in one word.")
        given[name] = value(name, text.strip()) if equals else True
    return given


def value(name: str, text: str) -> Any:
    """Read the text after `name=`: a Python literal, none, true or false in any case, a file of prompts, else text."""
    if not text:
        raise Refusal(f"'{name}=' has no value.")
    if text.count("[") != text.count("]"):
        raise Refusal(f"{name}={text} has a bracket without its partner.")
    if name in OWN and text.startswith("@"):
        return json_file(text[1:])
    if name in ("name", "project") and text.lower() != "none":  # a run called 007 is not a number
        return text
    try:
        return ast.literal_eval(text.title() if text.lower() in ("none", "true", "false") else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def json_file(path: str) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Refusal(f"{path} is not JSON: {error}.") from error


def cfg_file(path: str | None) -> dict[str, Any]:
    """Read the arguments of a YAML file, less the ones without a value and those of other modes."""
    if path is None:
        return {}
    import yaml

    try:
        settings = yaml.safe_load(Path(str(path)).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise Refusal(f"cfg={path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise Refusal(f"cfg={path} is not YAML: {in_a_line(error)}") from error
    if not isinstance(settings, dict):
        raise Refusal(f"cfg={path} is not a list of 'name: value' lines.")
    foreign = {name for name in host_settings() if fate(name) == ELSEWHERE}
    return {name: item for name, item in settings.items() if item is not None and name not in foreign}


def accepted() -> dict[str, Any]:
    """Return every argument with its default: the host's, those of its other releases, our own."""
    own = {name: argument.default for name, argument in OWN.items()}
    return {**dict.fromkeys(HOST), "boxes": True, "save_dir": None, **HOST_ALIASES, **host_settings(), **own}


def host_settings() -> dict[str, Any]:
    """Read the names and defaults of Ultralytics' arguments from its own table, without importing it (seconds)."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise Refusal("Ultralytics is not installed: pip install ultralytics")
    table = Path(spec.origin).with_name("cfg") / "default.yaml"
    lines = re.findall(r"^(\w+):[ \t]*([^#\n]*)", table.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: value(name, text.strip()) if text.strip() else None for name, text in lines}


def refuse_unknown(name: str, known: dict[str, Any]) -> NoReturn:
    """Refuse a word that is no argument, with the nearest ones."""
    near = difflib.get_close_matches(name, [*known, *MODES], n=3, cutoff=0.65)
    hint = f"Similar arguments: {', '.join(near)}." if near else "`samplug help` lists the arguments."
    raise Refusal(f"{name!r} is not an argument. {hint}")


def in_a_line(error: Exception) -> str:
    """Return the message of an error, whatever its line breaks."""
    return " ".join(str(error).split())


# Help -----------------------------------------------------------------------------------------------------------------
