"""Track objects through a live camera, or through a drawn stream where there is none.

Run: python examples/camera.py [camera, 0 is the first]. The result is saved as camera.mp4.
"""

import sys

import cv2
import numpy as np

from samplug import SAM2CameraPredictor


def drawn(count=40):
    """A disc and a square that move over a grainy floor."""
    floor = np.random.default_rng(0).integers(90, 130, (240, 320, 3), np.uint8)
    for i in range(count):
        frame = floor.copy()
        cv2.circle(frame, (50 + 5 * i, 80), 30, (40, 190, 70), -1)
        cv2.rectangle(frame, (240 - 4 * i, 140), (300 - 4 * i, 200), (210, 80, 40), -1)
        yield frame


def live(number):
    """Frames of a camera until it is unplugged or somebody presses Ctrl+C."""
    capture = cv2.VideoCapture(number)
    while capture.isOpened() and (read := capture.read())[0]:
        yield read[1]


camera = SAM2CameraPredictor(overrides={"verbose": False})
for i, frame in enumerate(live(int(sys.argv[1])) if len(sys.argv) > 1 else drawn()):
    result = camera.step(frame, {1: {"points": [50, 80]}} if i == 0 else None)  # {id: prompts}; any frame takes them
    if i == 10:  # one more object on the frame just stepped; its result changes at once
        camera.add_new_prompts(2, bboxes=[200, 140, 260, 200])
        result = camera.results[0]
    if i == 0:
        video = cv2.VideoWriter("camera.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 30, frame.shape[1::-1])
    video.write(result.plot())
print(f"{i + 1} frames; the last shows objects {result.obj_ids}, conf {result.boxes.conf.numpy().round(2)}")
