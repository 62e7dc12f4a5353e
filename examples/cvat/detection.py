"""CVAT annotates a task by itself: a detector of Ultralytics finds objects, SAM draws their masks. Any server.

cvat-cli task auto-annotate ID --function-file examples/cvat/detection.py -p model=str:sam2.1_t.pt
"""

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
from ultralytics import YOLO

from samplug import SAM


class Detection:
    """Detects by a detector, segments by SAM."""

    def __init__(self, model, detector, conf):
        self.sam, self.detector, self.conf = SAM(model), YOLO(detector), conf
        labels = [cvataa.label_spec(name, number, type="any") for number, name in self.detector.names.items()]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context, image):
        """The shapes of a PIL image: masks, or polygons where the task wants these."""
        conf = self.conf if context.conf_threshold is None else context.conf_threshold
        found = self.detector.predict(image, conf=conf, verbose=False)[0]
        if not len(found):
            return []
        result = self.sam.predict(image, prompts=found, verbose=False).pop().visible()
        classes = result.boxes.cls.int().tolist()
        if context.conv_mask_to_poly:  # a polygon for each separate part; polygons have no holes
            pairs = zip(classes, result.to_polygons(), strict=True)
            rings = ((number, part[0]) for number, parts in pairs for part in parts)
            return [cvataa.polygon(number, ring.ravel().tolist()) for number, ring in rings if len(ring) > 2]
        masks = np.asarray(result.masks.data.cpu(), bool)
        return [cvataa.mask(number, encode_mask(mask)) for number, mask in zip(classes, masks, strict=True)]


def create(model="sam2.1_t.pt", detector="yolo11n.pt", conf=0.25):
    """What cvat-cli calls, with the parameters of -p."""
    return Detection(model, detector, conf)
