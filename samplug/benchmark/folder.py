"""Where a benchmark is written: the run's folder, as Ultralytics chooses one."""

from __future__ import annotations

import importlib.util
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from samplug.benchmark.settings import Settings


def run_folder(settings: Settings) -> Path:
    """The folder that `project`, `name`, `exist_ok` and `save_dir` mean; without Ultralytics below runs/segment."""
    given = {name: getattr(settings, name) for name in ("project", "name", "exist_ok", "save_dir")}
    if importlib.util.find_spec("ultralytics") is not None:
        from ultralytics.cfg import get_save_dir

        return Path(get_save_dir(SimpleNamespace(task="segment", mode="benchmark", **given)))
    wanted = Path(settings.save_dir or Path(settings.project or "runs/segment", settings.name or "benchmark"))
    return wanted if settings.exist_ok or settings.save_dir else free(wanted)


def free(wanted: Path) -> Path:
    """The folder, or one with the first number behind its name that is not there."""
    return next(path for n in count(1) if not (path := wanted.with_name(f"{wanted.name}{n if n > 1 else ''}")).exists())
