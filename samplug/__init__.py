"""Segment Anything for Ultralytics: SAM, MobileSAM, SAM 2 and 2.1 as predictors. Names load when they are used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "SAM": "samplug.model",
    "Predictor": "samplug.predict",
    "SAM2Predictor": "samplug.predict",
    "SAM2VideoPredictor": "samplug.predict",
    "SAM2CameraPredictor": "samplug.predict",
    "SAM2DynamicInteractivePredictor": "samplug.predict",
    "Prompts": "samplug.prompts",
    "PromptError": "samplug.prompts",
    "CheckpointError": "samplug.checkpoints",
    "Embedding": "samplug.embeddings",
    "load_model": "samplug.checkpoints",
    "register": "samplug.cli",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'samplug' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
