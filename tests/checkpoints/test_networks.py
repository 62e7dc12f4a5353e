"""Which network it is: told by the tensors, by a config, or by what kind of module Ultralytics built."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import re

import pytest
import torch
from support.checkpoint_files import TOY_VIT, nano, saved  # noqa: F401
from torch import nn

from samplug.checkpoints import load
from samplug.checkpoints.config import build, detect_config
from samplug.checkpoints.families import VARIANTS
from samplug.checkpoints.families.sam2 import AS_RELEASED
from samplug.checkpoints.load import adopt, load_model
from samplug.errors import CheckpointError
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model

PARAMETERS = {  # millions
    "sam_b": 93.7,
    "sam_l": 312.3,
    "sam_h": 641.1,
    "mobile_sam": 10.1,
    "sam2.1_t": 38.96,
    "sam2.1_s": 46.06,
    "sam2.1_b": 80.85,
    "sam2.1_l": 224.45,
    "samplug-nano": 5.35,
}


def meta(variant):
    with torch.device("meta"):
        return build({"variant": variant})


# which network


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_told_by_its_tensors(variant):
    assert detect_config(meta(variant).state_dict()) == {"variant": variant}


@pytest.mark.parametrize(("variant", "millions"), PARAMETERS.items())
def test_every_variant_has_as_many_parameters_as_the_released_one(variant, millions):
    digits = 2 if "sam2" in variant or "nano" in variant else 1
    assert round(sum(p.numel() for p in meta(variant).parameters()) / 1e6, digits) == millions


@pytest.mark.parametrize("size", "tsbl")
def test_release_2_1_adds_a_pointer_time_code_and_an_embedding_of_absence(size):
    old, new = meta(f"sam2_{size}").state_dict(), meta(f"sam2.1_{size}").state_dict()
    assert set(new) - set(old) == {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
    assert set(old) < set(new)


def test_a_vit_that_was_tuned_for_another_input_size_is_told_by_its_positions():
    with torch.device("meta"):
        model = build({"variant": "sam_b", "image_size": 256})
    assert detect_config(model.state_dict()) == {"variant": "sam_b", "image_size": 256}


def test_a_trunk_of_no_known_size_is_refused_with_what_was_found():
    state = {
        "image_encoder.trunk.patch_embed.proj.weight": torch.empty(48, 3, 7, 7),
        "image_encoder.trunk.blocks.0.norm1.weight": torch.empty(48),
    }
    with pytest.raises(CheckpointError, match="48 wide with 1 blocks; known are 32 wide with 10, 96 wide with 12"):
        detect_config(state)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("vision_encoder.layers.0.weight", "Transformers"), ("detector.backbone.x", "SAM 3"), ("model.0.conv", "YOLO")],
)
def test_files_of_other_networks_are_named(name, hint):
    with pytest.raises(CheckpointError, match=hint):
        detect_config({name: torch.zeros(1)})


# configs


def test_a_config_is_a_variant_with_the_values_it_changes():
    model = build({"variant": "samplug-nano", "num_maskmem": 3})
    assert model.num_maskmem == 3
    assert model.variant == "samplug-nano"


def test_a_network_of_ones_own_is_described_in_full():
    model = build(TOY_VIT)
    assert isinstance(model, SAMModel)
    assert model.variant == "toy"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "Expected a 'variant' of sam_b"),
        ({"variant": "sam_x"}, "variant='sam_x'"),
        ({"variant": ["sam_b"]}, "Expected a 'variant'"),
        ({"variant": "mine", "architecture": "resnet"}, "architecture='resnet'"),
        ({"variant": "mine", "architecture": "sam_vit", "depth": 2}, "lacks ['embed_dim', 'num_heads'"),
        ({"variant": "sam_b", "colour": 1}, "must not have ['colour']"),
        ({"variant": "sam_b", "depth": "12"}, "depth='12' in a config. Expected int"),
        ({"variant": "sam_b", "depth": True}, "depth=True in a config. Expected int"),
        ({"variant": "sam_b", "embed_dim": 10**9}, "up to 8192"),
        ({"variant": "sam_b", "mlp_ratio": float("nan")}, "mlp_ratio=nan"),
        ({"variant": "sam2.1_t", "stages": [1, 2.5]}, "stages=(1, 2.5) in a config. Expected tuple"),
        ({"variant": "sam2.1_t", "sam2_1": 1}, "Expected bool"),
    ],
)
def test_a_config_that_describes_nothing_is_refused(config, words):
    with pytest.raises(CheckpointError, match=re.escape(words)):
        build(config)


# Ultralytics' own modules


def test_one_of_our_networks_is_adopted_as_it_is(nano):
    assert adopt(nano) is nano


@pytest.mark.parametrize(
    ("variant", "kind"), [("mobile_sam", SAMModel), pytest.param("sam2_t", SAM2Model, marks=pytest.mark.slow)]
)
def test_an_ultralytics_module_is_taken_over_also_in_half_precision(variant, kind):
    from ultralytics.models.sam import build as ultralytics

    theirs = getattr(ultralytics, f"build_{variant}")().half()
    ours = adopt(theirs)
    assert isinstance(ours, kind)
    assert ours.variant == variant
    state, own = theirs.state_dict(), ours.state_dict()
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in own.items())
    assert set(state) - set(own) <= set(load.UNUSED)


@pytest.mark.parametrize("other", [nn.Linear(2, 2), nn.Sequential()])
def test_another_module_is_refused_with_what_is_expected(other):
    with pytest.raises(TypeError, match=r"torch.nn.modules.* is not a SAM. Expected samplug.nn.SAMModel or SAM2Model"):
        adopt(other)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "samplug-nano"])
def test_tensors_of_every_ultralytics_build_are_told_and_fit(variant, tmp_path):
    from ultralytics.models.sam import build as theirs

    name = {"sam_b": "sam_vit_b", "sam_l": "sam_vit_l", "sam_h": "sam_vit_h"}.get(variant, variant)
    module = getattr(theirs, f"build_{name.replace('sam2.1', 'sam2')}")()
    state = {name: tensor.half() for name, tensor in module.state_dict().items()}
    if "2.1" in variant:  # Ultralytics builds these from a file's name only
        new = meta(variant).state_dict()
        state |= {name: torch.zeros(new[name].shape) for name in set(new) - set(state)}
    loaded = load_model(saved(tmp_path / "a.pt", {"model": state}))
    assert loaded.variant == variant
    for fact in ("window_size", "num_heads"):  # TinyViT's show in its tensors, these do not
        if variant != "mobile_sam":
            assert untold(loaded, fact) == untold(module, fact)
    for option in (name for name in AS_RELEASED if hasattr(module, name) and hasattr(loaded, name)):
        assert getattr(loaded, option) == getattr(module, option), option


def untold(model, fact):
    """What the blocks of an encoder have, in their order."""
    return [getattr(part, fact) for part in model.image_encoder.modules() if hasattr(part, fact)]
