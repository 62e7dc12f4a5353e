"""Ultralytics' pipeline around the networks: the predictors."""

from samplug.predict.image import Predictor
from samplug.predict.sam2 import SAM2Predictor

__all__ = ["Predictor", "SAM2Predictor"]
