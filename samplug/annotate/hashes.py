"""Hashes of what the records of a job depend on: another network, or corrected labels, are another job."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from samplug.annotate.plan import Source
from samplug.annotate.settings import Settings
from samplug.annotate.work.prompters import label_files
from samplug.data.label_boxes import LabelBoxes, beside


def hashes(settings: Settings) -> dict[str, str]:
    """The contents of the files, and of the folder of labels, that the records depend on."""
    files = {"model": settings.model, "prompter": settings.prompter}
    paths = {name: Path(file) for name, file in files.items() if isinstance(file, str | Path)}
    known = {f"{name} (sha256)": sha256(path) for name, path in paths.items() if path.is_file()}
    if "prompter" in paths and paths["prompter"].is_dir():
        folder = paths["prompter"]
        labels = ((os.path.relpath(file, folder), file) for file in label_files(folder))
        known["prompter (sha256)"] = sha256_of_all(labels, LabelBoxes.of_yolo(folder).names)
    return known


def hashes_beside(settings: Settings, sources: Iterable[Source]) -> dict[str, str]:
    """The contents of the labels that lie where a data.yaml has them; nothing for any other prompter."""
    prompter = settings.prompter
    if not isinstance(prompter, str | Path) or Path(prompter).suffix not in (".yaml", ".yml"):
        return {}
    labels = sorted((source.name, beside(source.path)) for source in sources)
    return {"labels of the prompter (sha256)": sha256_of_all((each for each in labels if each[1].is_file()), None)}


def sha256(path: str | Path) -> str:
    """The hash of a file, of which little is held at a time."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def sha256_of_all(files: Iterable[tuple[str, str | Path]], more: object) -> str:
    """One hash of files with their names, and of a plain value."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for name, file in files:
        digest.update(json.dumps([name, sha256(file)]).encode())
    return digest.hexdigest()
