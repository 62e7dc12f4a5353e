"""Many images at once, each with its own prompts; one image prompted many times. Run: python examples/batch.py."""

import cv2
from ultralytics.utils import ASSETS

from samplug import SAM, SAM2Predictor

model = SAM()
sources = [ASSETS / "bus.jpg", ASSETS / "zidane.jpg"]

# A dict of prompts for each image; the encoder runs once for both.
prompts = [{"bboxes": [[20, 230, 800, 750]]}, {"points": [[350, 400], [900, 300]]}]
for result in model.predict(sources, prompts=prompts, batch=2):
    print(result.path, len(result), "objects")

# Encode once, prompt many times.
predictor = SAM2Predictor(overrides={"model": "samplug-nano.pt", "save": False, "verbose": False})
predictor.set_image(cv2.imread(str(sources[0])))
for x in range(100, 800, 200):
    result = predictor(points=[x, 500])[0]
    print(f"a click at ({x}, 500) gives {int(result.masks.data.sum())} pixels")

# Save the features for another run or another machine.
model.embed(sources[0]).save("bus.npz")
result = model.predict(sources[0], embedding="bus.npz", points=[400, 300])[0]
