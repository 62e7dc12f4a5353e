"""Pictures end to end: the same file and pixels give the same answer here and in the reference implementations."""

import cv2
import pytest
import torch
from peers import MetaSAM, MetaSAM2, Ours, UltralyticsSAM, UltralyticsSAM2
from torch import Tensor

from samplug.benchmark.weights import random_checkpoint
from samplug.nn.types import PromptBatch

TOLERANCE = 1e-4  # of the largest logit

# The centres of five objects, far from each other, as shares of the picture.
CENTRES = torch.tensor([[0.2, 0.2], [0.8, 0.75], [0.25, 0.8], [0.5, 0.45], [0.85, 0.15]])


def photograph(size: int) -> Tensor:
    """(1, 3, size, size) raw RGB: a square of the street that comes with Ultralytics."""
    from ultralytics.utils import ASSETS

    street = cv2.imread(str(ASSETS / "bus.jpg"))[200:1010, :, ::-1]
    return torch.from_numpy(cv2.resize(street, (size, size))).permute(2, 0, 1)[None].float()


def prompts_of(kind: str, size: int) -> PromptBatch:
    """Prompts of the kinds named in it: `point`, `points`, `boxes`, `masks`."""
    count = 2 if "mask" in kind else 5
    centres = CENTRES[:count] * size + 0.3
    given = {}
    if "points" in kind:
        given["points"] = torch.stack([centres, size - centres.flip(1) * 0.7], 1)
        given["labels"] = torch.tensor([[1, 1], [1, 0], [0, 1], [1, -1], [0, 0]], dtype=torch.int32)
    elif "point" in kind:
        given["points"], given["labels"] = centres[:, None], torch.ones(count, 1, dtype=torch.int32)
    if "boxes" in kind:
        given["boxes"] = torch.cat([centres * 0.7, centres * 0.7 + size * 0.28], 1)
    if "mask" in kind:
        given["masks"] = torch.full((count, 1, size // 4, size // 4), -10.0)
        for mask, centre in zip(given["masks"][:, 0], (centres / 4).long().tolist(), strict=True):
            mask[centre[1] - size // 32 : centre[1] + size // 16, centre[0] - size // 32 : centre[0] + size // 20] = (
                10.0
            )
    return PromptBatch(torch.zeros(count, dtype=torch.int64), **given)


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
def test_the_same_file_and_picture_give_the_peers_answer(both, kind, multimask):
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
