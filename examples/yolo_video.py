"""YOLO detects, SAM tracks: objects that come later are added, those that were lost are recovered.

Run: python examples/yolo_video.py [yolo11n.pt] [video]. Without a detector colours are detected.
The result is saved under runs/segment/.
"""

import sys

import cv2
import numpy as np

from samplug import SAM


def drawn(path="drawn.avi"):
    """A film of a disc, and of a square that comes in later."""
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for i in range(40):
        frame = np.full((240, 320, 3), 110, np.uint8)
        cv2.circle(frame, (50 + 5 * i, 80), 30, (40, 190, 70), -1)
        cv2.rectangle(frame, (330 - 5 * i, 150), (390 - 5 * i, 210), (210, 80, 40), -1)
        video.write(frame)
    return path


def by_colour(frame):
    """Any function of a BGR frame is a detector; boxes (N, 4) are all it needs to return."""
    colourful = np.ptp(frame, axis=2) > 60
    boxes = cv2.connectedComponentsWithStats(colourful.astype(np.uint8))[2][1:]
    return [[x, y, x + w, y + h] for x, y, w, h, area in boxes.tolist() if area > 500]


detector = {"model": sys.argv[1], "conf": 0.4} if len(sys.argv) > 1 else by_colour
video = sys.argv[2] if len(sys.argv) > 2 else drawn()
for result in SAM().track(video, stream=True, save=True, prompter=detector, prompt_every=10):
    names = [result.names[int(kind)] for kind in result.boxes.cls]
    print(f"frame {result.frame}: " + ", ".join(f"{i} ({n})" for i, n in zip(result.obj_ids, names, strict=True)))
