"""Ultralytics' pipeline around the networks: the predictors."""

from samplug.predict.camera import SAM2CameraPredictor
from samplug.predict.image import Predictor
from samplug.predict.sam2 import SAM2Predictor
from samplug.predict.video import SAM2VideoPredictor

__all__ = ["Predictor", "SAM2CameraPredictor", "SAM2Predictor", "SAM2VideoPredictor"]
