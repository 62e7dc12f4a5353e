"""Segment Anything for Ultralytics: SAM, MobileSAM, SAM 2 and 2.1 as predictors. Names load when they are used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "SAM": "samplug.model",
    "Predictor": "samplug.predict",
    "SAM2Predictor": "samplug.predict",
    "SAM2VideoPredictor": "samplug.predict",
    "SAM2CameraPredictor": "samplug.predict",
    "SAM2DynamicInteractivePredictor": "samplug.predict",
    "Prompts": "samplug.prompts.objects",
    "PromptError": "samplug.errors",
    "CheckpointError": "samplug.errors",
    "Embedding": "samplug.files.embedding",
    "load_model": "samplug.checkpoints.load",
    "register": "samplug.cli.main",
    "annotate": "samplug.annotate",
    "auto_annotate": "samplug.annotate",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'samplug' has no attribute {name!r}; it has {', '.join(_MODULES)}")
    if name == "annotate":  # the package is called like its verb
        return importlib.import_module("samplug.annotate")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
