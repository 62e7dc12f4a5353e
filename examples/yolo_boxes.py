"""YOLO detects, SAM segments: boxes become masks that keep class, name and order.

Run: python examples/yolo_boxes.py [detector] [image] [conf]
"""

import sys

from ultralytics import YOLO
from ultralytics.utils import ASSETS

from samplug import SAM

detector = sys.argv[1] if len(sys.argv) > 1 else "yolo11n.pt"
image = sys.argv[2] if len(sys.argv) > 2 else ASSETS / "bus.jpg"
conf = float(sys.argv[3]) if len(sys.argv) > 3 else 0.25

found = YOLO(detector).predict(image, conf=conf)[0]
result = SAM().predict(image, prompts=found)[0]
for box, mask in zip(result.boxes, result.masks.data, strict=True):
    print(f"{result.names[int(box.cls)]}: {int(mask.sum())} pixels")
result.save("yolo_boxes.jpg")
result.save_txt("yolo_boxes.txt")
