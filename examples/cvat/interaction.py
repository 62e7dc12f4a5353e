"""CVAT's interactor: clicks and a box become a mask. CVAT Online and Enterprise.

cvat-cli function create-native samplug --function-file examples/cvat/interaction.py -p model=str:sam2.1_t.pt
cvat-cli function run-agent FUNCTION-ID --function-file examples/cvat/interaction.py -p model=str:sam2.1_t.pt
"""

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask

from samplug import SAM


class Interaction:
    """Segments one object by its prompts."""

    spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, model):
        self.sam = SAM(model)

    def preprocess_image(self, context, image):
        """The features of a PIL image, which the agent keeps while somebody clicks on it."""
        return self.sam.embed(image, verbose=False)

    def detect(self, context, pp_image, prompts):
        """The mask of one object."""
        given = {}
        clicks = [*prompts.pos_points, *prompts.neg_points]
        if clicks:
            given["points"] = [[list(point) for point in clicks]]
            given["labels"] = [[1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)]
        if prompts.bounding_box is not None:
            given["bboxes"] = [list(np.ravel(prompts.bounding_box))]
        result = self.sam.predict(None, embedding=pp_image, verbose=False, **given)[0]
        mask = np.asarray(result.masks.data[0].cpu(), bool)
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask))] if mask.any() else []


def create(model="sam2.1_t.pt"):
    """What cvat-cli calls, with the parameters of -p."""
    return Interaction(model)
