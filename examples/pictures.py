"""The images of the README, drawn again by the bundled model. Run: python examples/pictures.py [folder]."""

import sys
from pathlib import Path

import cv2
import numpy as np

from samplug import SAM
from samplug.data.synthetic import clips

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
model = SAM()

# Boxes on a drawn scene, and the masks they give.
scene = cv2.imread(str(Path(__file__).parent / "pictures" / "scene.jpg"))
boxes = [[178, 20, 294, 142], [76, 140, 185, 224], [249, 155, 480, 286]]
names = {6: "ball", 7: "pebble", 9: "ring"}  # the numbers choose the colours
result = model.predict(scene, bboxes=boxes, cls=list(names), names=names)[0]
cv2.imwrite(str(folder / "first.jpg"), np.hstack([scene, result.plot()]), [cv2.IMWRITE_JPEG_QUALITY, 85])

# Objects of a drawn clip, prompted on its first frame and tracked.
clip = clips.draw(np.random.default_rng([99, 1]), 256, 256, frames=24, level=0.35, objects=3)
frames = [np.ascontiguousarray(rgb[..., ::-1]) for rgb in clip.images]
shown = {number: {"masks": mask, "cls": 5 + number} for number, mask in enumerate(clip.masks[0].astype(np.uint8), 1)}
results = model.track(frames, prompts={0: shown}, track=True)
strip = [results[i].plot(boxes=False, conf=False, color_mode="class") for i in (0, 6, 12, 18, 23)]
cv2.imwrite(str(folder / "followed.jpg"), np.hstack(strip), [cv2.IMWRITE_JPEG_QUALITY, 85])
