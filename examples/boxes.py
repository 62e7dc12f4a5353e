"""Draw boxes, with or without clicks inside, and name the objects. Run: python examples/boxes.py [image]."""

import sys

from ultralytics.utils import ASSETS

from samplug import SAM

image = sys.argv[1] if len(sys.argv) > 1 else ASSETS / "bus.jpg"
model = SAM()

boxes = [[20, 230, 800, 750], [50, 400, 245, 900]]
result = model.predict(image, bboxes=boxes, cls=[5, 0], names={0: "person", 5: "bus"})[0]
print(result.verbose())
result.save("boxes.jpg")
result.save_txt("boxes.txt")  # YOLO segmentation labels, with the classes given

# A box and clicks of one object together; None where an object has no clicks.
clicks = [[[400, 300], [400, 600]], None]
result = model.predict(image, bboxes=boxes, points=clicks, labels=[[1, 0], None])[0]
result.save("boxes_and_clicks.jpg")
