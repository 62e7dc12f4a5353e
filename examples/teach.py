"""Prompt objects on two images, find them in others, save their memories. Run: python examples/teach.py."""

import cv2
import numpy as np

from samplug import SAM2DynamicInteractivePredictor

# For photographs take sam2.1_t.pt instead, which is downloaded.
SETTINGS = {"model": "samplug-nano.pt", "save": False, "verbose": False}
NAMES = {1: "ball", 2: "brick"}


def drawn(ball, brick):
    """A ball around one point and a brick around another, on a table."""
    image = np.full((240, 320, 3), (150, 175, 165), np.uint8)
    image[:70] = 90, 80, 70
    cv2.circle(image, ball, 30, (50, 60, 200), -1, cv2.LINE_AA)
    cv2.rectangle(image, np.subtract(brick, (40, 20)), np.add(brick, (40, 20)), (180, 110, 40), -1)
    return image


# Two objects, by boxes on one image and by clicks on another. Their ids are any numbers.
teacher = SAM2DynamicInteractivePredictor(overrides=SETTINGS)
first, second = drawn((90, 130), (220, 180)), drawn((210, 110), (80, 190))
boxes = [[60, 100, 120, 160], [180, 160, 260, 200]]
teacher(first, bboxes=boxes, obj_ids=[7, 9], cls=[1, 2], names=NAMES, update_memory=True)
teacher(second, points=[[210, 110], [80, 190]], obj_ids=[7, 9], update_memory=True)
teacher.save_memory("things.npz")

# In another run, without prompts. The last image has no brick.
finder = SAM2DynamicInteractivePredictor(overrides=SETTINGS)
finder.load_memory("things.npz")
others = [drawn((250, 150), (120, 120)), drawn((150, 180), (240, 110)), drawn((70, 150), (-99, -99))]
for i, result in enumerate(finder(others, stream=True)):
    print([f"{NAMES[int(box.cls)]} {float(box.conf):.2f} at {box.xyxy[0].int().tolist()}" for box in result.boxes])
    result.save(f"teach_{i}.jpg")
