"""Track objects through several cameras at once: one network, and a memory of its own for each camera.

Run: python examples/cameras.py [cameras.streams], a camera's number or an rtsp:// or http:// address in each line.
Without the file two drawn cameras stand in.
"""

import sys

import cv2
import numpy as np

from samplug import SAM, SAM2CameraPredictor

model = SAM()
prompts = [{"points": [60, 100], "obj_ids": [7]}, {"bboxes": [[10, 50, 110, 150]]}]  # one entry a camera


def drawn(radius):
    """A camera that shows a moving disc."""
    for i in range(20):
        frame = np.full((240, 320, 3), 110, np.uint8)
        yield cv2.circle(frame, (60 + 6 * i, 100), radius, (40, 190, 70), -1)


def interleaved(cameras):
    """The results of cameras read in one loop, a predictor each; the frames need not be synchronous."""
    predictors = [SAM2CameraPredictor(overrides={"verbose": False}) for _ in cameras]
    for predictor in predictors:
        predictor.setup_model(model.model)  # shared: it never changes
    for i, frames in enumerate(zip(*cameras, strict=True)):
        for predictor, frame, prompt in zip(predictors, frames, prompts, strict=True):
            yield predictor.step(frame, prompt if i == 0 else None)


# Ultralytics reads the cameras of a file: each of its batches has the newest frame of every camera.
live = len(sys.argv) > 1
streams = model.predict(sys.argv[1], stream=True, prompts=prompts) if live else interleaved([drawn(30), drawn(45)])
for result in streams:
    print(f"{result.path} frame {result.frame}: objects {result.obj_ids} at {result.boxes.xyxy.int().tolist()}")
