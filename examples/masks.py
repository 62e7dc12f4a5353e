"""Start from rough masks, and refine an answer by feeding its logits back. Run: python examples/masks.py [image]."""

import sys

import cv2
import numpy as np
from ultralytics.utils import ASSETS

from samplug import SAM

image = cv2.imread(str(sys.argv[1] if len(sys.argv) > 1 else ASSETS / "bus.jpg"))
model = SAM()

# A rough mask of any size becomes a prompt.
rough = np.zeros(image.shape[:2], np.uint8)
cv2.ellipse(rough, (400, 480), (330, 200), 0, 0, 360, 255, -1)
result = model.predict(image, masks=rough, bboxes=[20, 230, 800, 750])[0]
result.save("masks.jpg")

# Ask for the logits, and give them back with one more click.
first = model.predict(image, points=[[[400, 300]]], logits=True)[0]
again = model.predict(image, points=[[[400, 300], [200, 350]]], masks=first.logits)[0]
print(f"{int(first.masks.data.sum())} pixels, then {int(again.masks.data.sum())} after a second click")
