"""Images end to end: the same file and pixels give the same answer here and in the reference implementations."""

import pytest
import torch
from support.images import photograph, prompts_of
from support.peers import MetaSAM, MetaSAM2, Ours, UltralyticsSAM, UltralyticsSAM2
from torch import Tensor

from samplug.benchmark.weights import random_checkpoint

TOLERANCE = 1e-4  # of the largest logit


KINDS = [
    ("point", True),
    ("point", False),
    ("points", True),
    ("points", False),
    ("boxes", False),
    ("boxes and points", False),
    ("mask", False),
    ("mask and point", True),
]

slow = pytest.mark.slow
QUICK = [("mobile_sam", UltralyticsSAM, 256), ("sam2.1_t", UltralyticsSAM2, 256)]
FULL = [
    ("sam_b", UltralyticsSAM, 1024),
    ("sam_l", UltralyticsSAM, 384),
    ("sam_h", UltralyticsSAM, 256),
    ("mobile_sam", UltralyticsSAM, 1024),
    ("sam2_t", UltralyticsSAM2, 512),
    ("sam2_s", UltralyticsSAM2, 512),
    ("sam2_b", UltralyticsSAM2, 512),
    ("sam2_l", UltralyticsSAM2, 512),
    ("sam2.1_t", UltralyticsSAM2, 1024),
    ("sam2.1_s", UltralyticsSAM2, 1024),
    ("sam2.1_b", UltralyticsSAM2, 1024),
    ("sam2.1_l", UltralyticsSAM2, 512),
    ("sam_b", MetaSAM, 1024),
    ("sam2_t", MetaSAM2, 512),
    ("sam2_s", MetaSAM2, 512),
    ("sam2_b", MetaSAM2, 512),
    ("sam2_l", MetaSAM2, 512),
    ("sam2.1_t", MetaSAM2, 1024),
    ("sam2.1_s", MetaSAM2, 512),
    ("sam2.1_b", MetaSAM2, 1024),
    ("sam2.1_l", MetaSAM2, 512),
]
CASES = [*QUICK, *(pytest.param(case, marks=slow) for case in FULL)]


def name_of(case) -> str:
    return f"{case[0]}-{case[1].__name__}-{case[2]}"


@pytest.fixture(scope="module", params=CASES, ids=name_of)
def both(request, tmp_path_factory):
    """Ours and a peer, loaded from one file, a photograph encoded; and the input's size."""
    variant, peer, size = request.param
    path = random_checkpoint(variant, tmp_path_factory.mktemp(variant))
    pair = Ours(path, size), peer(path, size)
    path.unlink()
    with torch.inference_mode():
        for one in pair:
            one.encode(photograph(size))
    return *pair, size


@pytest.mark.parametrize(("kind", "multimask"), KINDS, ids=[f"{kind}-{3 if multi else 1}" for kind, multi in KINDS])
@torch.inference_mode()
def test_the_same_file_and_image_give_the_peers_answer(both, kind, multimask):
    ours, peer, size = both
    prompts = prompts_of(kind, size)
    logits, iou, presence = ours.answer(prompts, multimask)
    expected_logits, expected_iou, expected_presence = peer.answer(prompts, multimask)
    assert logits.shape == expected_logits.shape
    assert error(logits, expected_logits) <= TOLERANCE
    assert error(iou, expected_iou) <= TOLERANCE
    if expected_presence is not None:
        assert error(presence, expected_presence) <= TOLERANCE


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value (at least 1)."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()
