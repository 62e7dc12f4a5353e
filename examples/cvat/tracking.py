"""CVAT's tracker: a mask is followed through the frames by SAM 2's memory. CVAT Online and Enterprise.

cvat-cli function create-native samplug --function-file examples/cvat/tracking.py -p model=str:sam2.1_t.pt
cvat-cli function run-agent FUNCTION-ID --function-file examples/cvat/tracking.py -p model=str:sam2.1_t.pt
"""

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import decode_mask, encode_mask

from samplug import SAM, SAM2CameraPredictor


class Tracking:
    """Follows one object a state."""

    spec = cvataa.TrackingFunctionSpec(supported_shape_types=["mask"])

    def __init__(self, model):
        self.network = SAM(model).model  # one for all objects

    def preprocess_image(self, context, image):
        """A PIL image as BGR."""
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])

    def init_tracking_state(self, context, pp_image, shape):
        """A tracker of one object: its memory is of a fixed size, however long the video is."""
        height, width = pp_image.shape[:2]
        camera = SAM2CameraPredictor(overrides={"verbose": False})
        camera.setup_model(self.network, verbose=False)
        mask = decode_mask(shape.points, image_width=width, image_height=height)
        camera.step(pp_image, {0: {"masks": np.asarray(mask, bool)}})
        return camera

    def track(self, context, pp_image, state):
        """The mask on the next frame; None where the object is not seen."""
        result = state.step(pp_image)
        mask = np.asarray(result.masks.data.cpu(), bool)
        found = len(mask) and mask[0].any()
        return cvataa.TrackableShape(type="mask", points=encode_mask(mask[0])) if found else None


def create(model="sam2.1_t.pt"):
    """What cvat-cli calls, with the parameters of -p."""
    return Tracking(model)
