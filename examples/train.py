"""Fine-tune on twenty images of a new kind: an answer before and after. Run: python examples/train.py [folder]."""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from samplug import SAM
from samplug.data.synthetic import scenes


def drawn(number):
    """An image as of an ultrasound scanner: grey, blurred, speckled; and an index mask, a number an object."""
    rng = np.random.default_rng([7, number])
    scene = scenes.draw(rng, 256, 256, level=0.4, held_out=True)
    grey = cv2.GaussianBlur(cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY), (0, 0), 2.5)
    speckle = cv2.GaussianBlur(rng.rayleigh(1, grey.shape), (0, 0), 1)
    image = np.clip(grey * speckle / speckle.mean() * np.linspace(1.1, 0.5, 256)[:, None], 0, 255).astype(np.uint8)
    numbers = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)
    return cv2.merge([image] * 3), (numbers[:, None, None] * scene.masks).max(0)


for number in range(30):
    split, (image, index) = "train" if number < 20 else "val", drawn(number)
    for kind, pixels in {"images": image, "masks": index}.items():
        Path("scans", kind, split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(f"scans/{kind}/{split}/{number}.png")

# The same in a shell: yolo sam train data=scans learn=all epochs=10. For photographs name sam2.1_t.pt.
model, untouched = SAM("samplug-nano.pt"), SAM("samplug-nano.pt")
print(model.train(data="scans", learn="all", epochs=10, workers=0, verbose=False))

# An image that was not learned from, each object asked for by a click in its middle.
image, index = drawn(29)
clicks = [np.argwhere(index == number).mean(0)[::-1].tolist() for number in np.unique(index)[1:]]
answers = [each.predict(image, points=clicks, verbose=False)[0].plot(boxes=False) for each in (untouched, model)]
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
cv2.imwrite(str(folder / "tuned.jpg"), np.hstack([image, *answers]), [cv2.IMWRITE_JPEG_QUALITY, 85])
