"""Adds the task `sam` to the `yolo` command, without touching a file of Ultralytics.

`import torch` calls every entry point of the group `torch.backends`, and `yolo` imports torch before `ultralytics.cfg`;
`hook` is such an entry point. In a program called `yolo` or `ultralytics` it waits for that module and wraps the one
function the script calls; in any other program it does nothing. `SAMPLUG_YOLO=0` switches it off.

A hook that failed would take `import torch` with it. So this file is installed as the top-level module
`samplug_yolo`, which stays importable when the package is not; it needs the standard library only, and never raises.
"""

import contextlib
import functools
import os
import sys

PROGRAMS = ("yolo", "ultralytics")
TARGET = "ultralytics.cfg"


def hook():
    """Wait for `ultralytics.cfg`, if this program is the `yolo` command; called by `import torch`."""
    with contextlib.suppress(Exception):  # no argv, a frozen program: not the `yolo` command then
        if is_yolo(sys.argv[0]) and os.environ.get("SAMPLUG_YOLO") != "0":
            sys.meta_path.insert(0, Watcher())


def is_yolo(program):
    """Whether the path `program` is the `yolo` script, by its exact name (a user's `yolo.py` is not)."""
    name = os.path.basename(program)
    return (name[:-4] if name.endswith(".exe") else name) in PROGRAMS


class Watcher:
    """A finder that calls `attach` on `ultralytics.cfg` once it has been imported. It works once."""

    def find_spec(self, name, path=None, target=None):
        """Find `ultralytics.cfg` as the other finders do, with a loader that calls `attach` at the end."""
        if name != TARGET:
            return None
        try:
            sys.meta_path.remove(self)
            specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
            spec = next(spec for spec in specs if spec is not None)
            spec.loader.exec_module = followed_by_attach(spec.loader.exec_module)  # type: ignore
            return spec
        except Exception:
            return None  # the import goes on without us


def followed_by_attach(exec_module):
    """Return a loader's `exec_module` that wraps the entry point of the module it has run."""

    def run(module):
        exec_module(module)
        with contextlib.suppress(Exception):  # an entry point that has moved: `yolo` goes on without us
            attach(module)

    return run


def attach(cfg):
    """Wrap `entrypoint` of the module `cfg`: samplug gets `sam` commands, the original function all others."""
    original = cfg.entrypoint
    if getattr(original, "knows_sam", False):
        return

    @functools.wraps(original)
    def entrypoint(debug=""):
        try:
            from samplug.cli.main import yolo
        except Exception as error:
            print("`yolo sam` is off, because samplug cannot be imported: " + repr(error), file=sys.stderr)
            return original(debug)
        return yolo(original, debug)

    entrypoint.knows_sam = True  # type: ignore
    cfg.entrypoint = entrypoint
