"""The image encoder of SAM 2 beside Ultralytics' and Meta's, with the same random weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.peers import peer_package
from torch import nn
from ultralytics.models.sam.modules import encoders as theirs

from samplug.benchmark.weights import noise
from samplug.checkpoints.families import VARIANTS
from samplug.nn.encoders.fpn import FpnNeck, ImageEncoder
from samplug.nn.encoders.hiera import Hiera

SMALL = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": (1, 2, 3, 2),
    "global_att_blocks": (4, 7),
    "window_spec": (8, 4, 14, 7),
    "window_pos_embed_bkg_spatial_size": (7, 5),
}
NECK = {"d_model": 256, "fpn_top_down_levels": [2, 3], "fpn_interp_model": "nearest"}  # Ultralytics has no other width


def twins(ours: nn.Module, other: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both with the same random weights, every tensor of which matters."""
    state = {key: noise(key, tensor, seed=0) for key, tensor in ours.state_dict().items()}
    for module in (ours, other):
        module.load_state_dict(state, strict=True)
        module.eval()
    return ours, other


def encoders(trunk, neck, scalp=1):
    channels = Hiera(**trunk).channel_list
    return twins(
        ImageEncoder(Hiera(**trunk), FpnNeck(backbone_channel_list=channels, **neck), scalp),
        theirs.ImageEncoder(theirs.Hiera(**trunk), theirs.FpnNeck(backbone_channel_list=channels, **neck), scalp),
    )


def assert_same_maps(ours, other, images):
    with torch.no_grad():
        mine, reference = ours(images), other(images)
    assert mine.keys() == reference.keys()
    for key in ("backbone_fpn", "vision_pos_enc"):
        assert len(mine[key]) == len(reference[key])
        for level, expected in zip(mine[key], reference[key], strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert mine["vision_features"] is mine["backbone_fpn"][-1]


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (96, 160)])
def test_the_encoder_agrees_on_squares_and_rectangles(size):
    """The third stage's windows of 14 are larger than the map, fit, or leave a rest."""
    assert_same_maps(*encoders(SMALL, NECK), torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    "changes",
    [
        {"q_pool": 2},
        {"num_heads": 2, "head_mul": 1.0},
        {"dim_mul": 3.0},
        {"global_att_blocks": ()},
        {"window_spec": (4, 4, 4, 2)},
        {"drop_path_rate": 0.5},
    ],
)
def test_the_trunk_agrees_under_every_option(changes):
    mine, reference = twins(Hiera(**SMALL | changes), theirs.Hiera(**SMALL | changes))
    assert mine.channel_list == reference.channel_list
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for level, expected in zip(mine(images), reference(images), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-4)


def test_the_trunk_may_return_its_last_map_alone():
    mine, reference = twins(*(kind(**SMALL, return_interm_layers=False) for kind in (Hiera, theirs.Hiera)))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (level,), (expected,) = mine(images), reference(images)
    torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-4)
    assert mine.channel_list == reference.channel_list == [128]


@pytest.mark.parametrize(
    "changes",
    [
        {"fpn_interp_model": "bilinear"},
        {"fuse_type": "avg"},
        {"fpn_top_down_levels": None},
        {"fpn_top_down_levels": []},
        {"kernel_size": 3, "padding": 1},
    ],
)
def test_the_neck_agrees_under_every_option(changes):
    assert_same_maps(*encoders(SMALL, NECK | changes, scalp=0), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("levels", [[2, 3], [1, 3], None, [0]])
def test_heads_make_the_finer_maps_narrow_whatever_else_needs_them(levels):
    encoder, _ = encoders(SMALL, NECK | {"fpn_top_down_levels": levels})
    heads = [nn.Conv2d(256, 3, 1), nn.Conv2d(256, 6, 1)]
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 64)
        fine, middle, coarse = encoder(images)["backbone_fpn"]
        narrow = encoder(images, heads, positions=False)["backbone_fpn"]
        expected = [heads[0](fine), heads[1](middle), coarse]
    for level, wanted in zip(narrow, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


def test_positions_are_a_bicubic_background_under_repeated_windows():
    trunk, _ = twins(Hiera(**SMALL), Hiera(**SMALL))
    with torch.no_grad():
        background = F.interpolate(trunk.pos_embed, size=(40, 24), mode="bicubic")
        expected = background + trunk.pos_embed_window.tile(1, 1, 5, 3)
        torch.testing.assert_close(trunk.positions((40, 24)).permute(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype):
    encoder, _ = encoders(SMALL, NECK)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = encoder(images)["vision_features"]
        encoded = copy.deepcopy(encoder).to(dtype)(images.to(dtype))
    assert {level.dtype for level in (*encoded["backbone_fpn"], *encoded["vision_pos_enc"])} == {dtype}
    error = (encoded["vision_features"].float() - expected).abs().max() / expected.abs().max()
    assert error < (0.01 if dtype is torch.float16 else 0.06)


def test_stochastic_depth_acts_in_training_only():
    trunk = Hiera(**SMALL, drop_path_rate=0.5)
    images = torch.randn(4, 3, 64, 64)
    assert not torch.equal(trunk.train()(images)[-1], trunk(images)[-1])
    assert torch.equal(trunk.eval()(images)[-1], trunk(images)[-1])
    assert [block.drop_path.drop_prob for block in trunk.blocks][::7] == [0.0, 0.5]


def test_mistaken_options_are_refused():
    with pytest.raises(ValueError, match="one size per stage"):
        Hiera(stages=(1, 2), window_spec=(8,))
    with pytest.raises(ValueError, match="0 to 3"):
        Hiera(q_pool=4)
    with pytest.raises(ValueError, match='"sum" or "avg"'):
        FpnNeck(8, [8], fuse_type="max")
    with pytest.raises(ValueError, match="channel_list"):
        ImageEncoder(Hiera(**SMALL), FpnNeck(8, [8, 8, 8, 8]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("letter", "size"), [("t", (256, 224)), ("s", (256, 256)), ("b", (128, 192)), ("l", (128, 96))]
)
def test_metas_encoders_agree(letter, size):
    peer_package("sam2")
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = compose(config_name=f"configs/sam2.1/sam2.1_hiera_{letter.replace('b', 'b+')}.yaml")
    OmegaConf.resolve(config)
    reference = instantiate(config.model.image_encoder)
    mine, reference = twins(VARIANTS[f"sam2.1_{letter}"].build().image_encoder, reference)
    assert_same_maps(mine, reference, torch.randn(1, 3, *size))
