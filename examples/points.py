"""Click on objects: one click each, several clicks on one, a click off it. Run: python examples/points.py [image]."""

import sys

from ultralytics.utils import ASSETS

from samplug import SAM

image = sys.argv[1] if len(sys.argv) > 1 else ASSETS / "bus.jpg"
model = SAM()  # the small bundled model; SAM("sam2.1_t.pt") is downloaded and knows photographs

# Two objects, one click each: rows come back in the order of the prompts.
result = model.predict(image, points=[[120, 650], [740, 500]])[0]
for mask, box, score in zip(result.masks.data, result.boxes.xyxy, result.boxes.conf, strict=True):
    print(f"{int(mask.sum())} pixels in {box.int().tolist()}, predicted IoU {float(score):.2f}")
result.save("points.jpg")

# One object, three clicks: the last one says what is not part of it.
result = model.predict(image, points=[[[400, 300], [200, 350], [400, 800]]], labels=[[1, 1, 0]])[0]
result.save("points_refined.jpg")

# What could one click mean? Three masks, each with its predicted IoU.
result = model.predict(image, points=[400, 300], multimask="all")[0]
print("predicted IoU of part, whole and more:", [round(float(score), 2) for score in result.boxes.conf])
