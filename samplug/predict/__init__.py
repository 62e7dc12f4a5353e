"""Ultralytics' pipeline around the networks: the predictors.

They load when they are used: what here needs no Ultralytics (`everything`, `precision`) then works without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samplug.predict.camera import SAM2CameraPredictor
    from samplug.predict.dynamic import SAM2DynamicInteractivePredictor
    from samplug.predict.image import Predictor
    from samplug.predict.sam2 import SAM2Predictor
    from samplug.predict.video import SAM2VideoPredictor

_HOMES = {
    "Predictor": "samplug.predict.image",
    "SAM2CameraPredictor": "samplug.predict.camera",
    "SAM2DynamicInteractivePredictor": "samplug.predict.dynamic",
    "SAM2Predictor": "samplug.predict.sam2",
    "SAM2VideoPredictor": "samplug.predict.video",
}
__all__ = [
    "Predictor",
    "SAM2CameraPredictor",
    "SAM2DynamicInteractivePredictor",
    "SAM2Predictor",
    "SAM2VideoPredictor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'samplug.predict' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
