"""An interactor for CVAT Community: a nuclio function that answers clicks and a box with a mask.

nuctl deploy --project-name cvat --path examples/cvat/nuclio --platform local
"""

import base64
import io
import json
import os

import numpy as np
from PIL import Image

from samplug import SAM


def init_context(context):
    """Load the network, once."""
    context.user_data.model = SAM(os.environ.get("SAMPLUG_MODEL", "sam2.1_t.pt"))


def handler(context, event):
    """{image, pos_points, neg_points, obj_bbox} to {mask: rows of 0 and 255}."""
    data = event.body
    image = Image.open(io.BytesIO(base64.b64decode(data["image"]))).convert("RGB")
    positive, negative = data.get("pos_points") or [], data.get("neg_points") or []
    prompts = {}
    if positive or negative:
        prompts = {"points": [[*positive, *negative]], "labels": [[1] * len(positive) + [0] * len(negative)]}
    if data.get("obj_bbox"):
        prompts["bboxes"] = [np.ravel(data["obj_bbox"]).tolist()]
    result = context.user_data.model.predict(image, verbose=False, **prompts)[0]
    mask = 255 * np.asarray(result.masks.data[0].cpu(), np.uint8)
    answer = json.dumps({"mask": mask.tolist()})
    return context.Response(body=answer, headers={}, content_type="application/json", status_code=200)
