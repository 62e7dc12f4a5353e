"""A predictor that is shown objects, and two of them that it was shown."""

import pytest

from samplug import SAM2DynamicInteractivePredictor

BOXES = [[20, 30, 120, 140], [100, 60, 300, 200]]


def ready(network, max_obj_num=3, **overrides):
    overrides = {"imgsz": 128, "verbose": False, "save": False, **overrides}
    made = SAM2DynamicInteractivePredictor(overrides=overrides, max_obj_num=max_obj_num)
    made.setup_model(network, verbose=False)
    made.options |= {"logits": True, "keep_lost": True}
    return made


@pytest.fixture
def predictor(network):
    return ready(network)


@pytest.fixture
def taught(predictor, pictures):
    """Two objects, shown on the first picture."""
    predictor(pictures[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    return predictor
