"""Ultralytics' pipeline around the networks: the predictors.

They load when they are used: what here needs no Ultralytics (`everything`, `precision`) then works without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samplug.predict.image import Predictor, SAM2Predictor
    from samplug.predict.interactive.predictor import SAM2DynamicInteractivePredictor
    from samplug.predict.video.camera import SAM2CameraPredictor
    from samplug.predict.video.predictor import SAM2VideoPredictor

_HOMES = {
    "Predictor": "samplug.predict.image",
    "SAM2CameraPredictor": "samplug.predict.video.camera",
    "SAM2DynamicInteractivePredictor": "samplug.predict.interactive.predictor",
    "SAM2Predictor": "samplug.predict.image",
    "SAM2VideoPredictor": "samplug.predict.video.predictor",
}
__all__ = ["Predictor", "SAM2CameraPredictor", "SAM2DynamicInteractivePredictor", "SAM2Predictor", "SAM2VideoPredictor"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'samplug.predict' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
