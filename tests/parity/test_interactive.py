"""Showing and finding beside Ultralytics' predictor of the same name: the same file, images and prompts.

Intended differences: ids are any numbers (theirs below `max_obj_num`), and places are added; an object that was not
shown on an image is unknown there (theirs: absent, which ours says by an empty mask); scores are sigmoid(presence)
(theirs: presence / 32, cut off at 0); several images at once (theirs: one); masks may be given as prompts (theirs
fails on their shape); prompts without `update_memory=True` are refused (theirs ignores them).
"""

import numpy as np
import pytest
import torch
from support.peers import DEVICE

from samplug import SAM2DynamicInteractivePredictor
from samplug.benchmark.weights import random_checkpoint

pytestmark = pytest.mark.slow

SIZE = 256
FAR = 2e-5  # of the largest logit
FIRST = {"bboxes": [[20, 30, 120, 140], [100, 60, 300, 200]], "obj_ids": [0, 1]}
SECOND = {"points": [[[60, 70], [120, 20]], [[90, 130], [10, 10]]], "labels": [[1, 0], [1, 0]], "obj_ids": [0, 1]}


class Both:
    """Our predictor and Ultralytics', which are told the same."""

    def __init__(self, path):
        from ultralytics.models.sam import SAM2DynamicInteractivePredictor as Theirs

        overrides = {"model": str(path), "imgsz": SIZE, "device": str(DEVICE), "verbose": False, "save": False}
        self.ours = SAM2DynamicInteractivePredictor(overrides=overrides)
        self.theirs = Theirs(overrides={**overrides, "conf": 0.0})

    def show(self, image, **said):
        self.compare(image, update_memory=True, **said)

    def compare(self, image, **said):
        """Run both on an image: the same presence, logits and masks."""
        mine, expected = (predictor(image, **said)[0].cpu() for predictor in (self.ours, self.theirs))
        assert mine.masks.data.shape == expected.masks.data.shape
        assert (mine.masks.data == expected.masks.data.bool()).float().mean() >= 0.9999
        assert torch.equal(mine.boxes.cls, expected.boxes.cls)
        torch.testing.assert_close(mine.presence.cpu() / 32, expected.boxes.conf, rtol=1e-4, atol=1e-5)
        self.compare_steps()

    def compare_steps(self):
        with torch.inference_mode():
            mine, expected = self.ours.track_step(), self.theirs.track_step()
        for name in ("pred_masks", "pred_masks_high_res", "obj_ptr", "object_score_logits"):
            rows = expected[name][: len(mine[name])]
            assert mine[name].shape == rows.shape
            assert (mine[name] - rows).abs().max() <= FAR * rows.abs().max(), name


@pytest.fixture(scope="module", params=["sam2.1_t", "sam2_t"])
def path(request, tmp_path_factory):
    return random_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def test_what_is_shown_and_found_is_ultralytics(path, images):
    both = Both(path)
    both.show(images[0], **FIRST)
    both.compare(images[1])
    both.show(images[1], **SECOND)
    both.compare(images[2])
    ours, theirs = both.ours.get_maskmem_enc(), both.theirs.get_maskmem_enc()
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected[:, :2], rtol=1e-4, atol=1e-4)


def test_a_mask_and_the_absence_of_another_object_are_remembered_as_by_ultralytics(path, images):
    both = Both(path)
    both.show(images[0], **FIRST)
    mask = np.zeros((200, 150), np.uint8)
    mask[20:90, 30:100] = 1
    both.ours(images[1], masks=[mask, 0 * mask], obj_ids=[0, 1], update_memory=True)
    with torch.inference_mode():
        im = both.theirs.preprocess([images[1]])
        both.theirs.get_im_features(im)
        transform = both.ours._transforms(im, [images[1]])[0]
        placed = (transform.mask_to_input(torch.from_numpy(20.0 * mask - 10).float(), stride=1) > 0).float()[None]
        nothing = torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int32)
        both.theirs.update_memory([0], *(each.to(DEVICE) for each in nothing), masks=placed.to(DEVICE))
    both.compare(images[2])
