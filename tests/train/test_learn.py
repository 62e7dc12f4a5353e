"""What learns, in which mode, at which rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.networks import network, object_draws, rectangles

from samplug.checkpoints.config import build
from samplug.train.learn import block_numbers, parameter_groups, part_of, select_learning, set_training_modes
from samplug.train.losses.clip_loss import ClipPlan
from samplug.train.losses.image_loss import ImagePlan
from samplug.train.losses.options import LossOptions
from samplug.train.losses.step import follow
from samplug.train.settings import TrainSettings

FAMILIES = ("SAM", "MobileSAM", "SAM 2")
SETTINGS = TrainSettings.read({"data": "a.yaml", "lr0": 1e-3, "weight_decay": 0.1, "learn": "all"})
HEADS = {"heads"}
DECODER = HEADS | {"transformer"}


@pytest.mark.parametrize(
    ("learn", "clips", "parts"),
    [
        ("token", False, HEADS),
        ("decoder", False, DECODER),
        ("decoder", True, DECODER | {"pointer"}),
        ("late", False, DECODER | {"features", "encoder"}),
        ("memory", True, DECODER | {"pointer", "memory"}),
        ("all", False, DECODER | {"features", "encoder", "prompts", "image"}),
        ("all", True, DECODER | {"features", "encoder", "prompts", "image", "pointer", "memory"}),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_choice_trains_its_parts(family, learn, clips, parts):
    model = network(family)
    if family != "SAM 2" and clips:
        pytest.skip("no memory")
    names = select_learning(model, learn, clips=clips)
    missing = set() if family == "SAM 2" else {"features", "pointer", "memory", "image"}
    assert {part_of(name) for name in names} == parts - missing
    assert names == [name for name, each in model.named_parameters() if each.requires_grad]
    assert not any("conv_s" in name for name in names) or learn in ("late", "all")


@pytest.mark.parametrize("family", FAMILIES)
def test_late_is_the_second_half_of_the_blocks_and_the_neck(family):
    model = network(family)
    names = set(select_learning(model, "late"))
    numbers = block_numbers(name for name, _ in model.named_parameters())
    count = max(numbers.values()) + 1
    learning = {numbers[name] for name in names if name in numbers}
    assert learning == set(range((count + 1) // 2, count))
    assert any("neck" in name for name in names) and not any(
        "patch_embed" in name or "pos_embed" in name for name in names
    )


@pytest.mark.parametrize(
    ("family", "choice", "message"),
    [
        ("SAM 2", {"learn": "encoder"}, "learn='encoder'. Expected one of token, decoder, late, memory, all"),
        ("SAM", {"learn": "memory", "clips": True}, "mine has no memory. Expected a SAM 2 network"),
        ("SAM 2", {"learn": "memory"}, "the data are images, which train no memory. Expected clips"),
        ("SAM 2", {"lora": 4}, "lora=4 adapts the attentions .* none learns with learn=decoder"),
        ("SAM", {"learn": "late", "lora": -1}, "lora=-1. Expected a rank"),
        ("SAM", {"learn": "late", "lora": 2, "freeze": "image_encoder"}, "none learns with learn=late here"),
        ("SAM", {"freeze": "image_encoder,mask_decoder"}, "leaves nothing of learn=decoder to learn"),
        ("SAM 2", {"freeze": ["trunk"]}, "name begins with 'trunk'. Expected one of .*image_encoder"),
        ("SAM", {"learn": "all", "freeze": 5}, "freeze=5. Expected numbers of the encoder's 4 blocks"),
        ("SAM", {"learn": "all", "freeze": [4]}, r"freeze=\[4\]. Expected numbers of the encoder's 4 blocks"),
        ("SAM", {"learn": "all", "freeze": True}, "freeze=True. Expected numbers"),
    ],
)
def test_a_choice_without_sense_is_refused_with_the_reason(family, choice, message):
    with pytest.raises(match=message):
        select_learning(network(family), **choice)


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (None, set()),
        ([], set()),
        (0, {-1}),
        (2, {-1, 0, 1}),
        ([1, 3], {1, 3}),
        ("image_encoder.blocks.2., image_encoder.blocks.0.", {0, 2}),
    ],
)
def test_freeze_takes_numbers_of_blocks_and_beginnings_of_names(freeze, frozen):
    model = network("SAM")
    names = set(select_learning(model, "all", freeze))
    numbers = block_numbers(name for name, _ in model.named_parameters())
    assert {number for name, number in numbers.items() if name not in names} == frozen


def changed_by_a_step(model, plan, frames):
    """A step of an optimiser that pulls hard; the names of the tensors that changed."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = parameter_groups(model, SETTINGS)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.5)
    follow(plan, model, rectangles(frames), LossOptions(), object_draws(4), torch.Tensor.backward)
    optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("learn", ["token", "decoder", "late", "all"])
def test_what_does_not_learn_stays_bit_by_bit_and_has_no_gradients(family, learn):
    """Buffers too: the running statistics of MobileSAM's batch norms."""
    model = network(family)
    names = select_learning(model, learn)
    changed = changed_by_a_step(model, ImagePlan({"click": True, "box": False}, ""), frames=1)
    assert changed and changed <= set(names)
    assert all(each.grad is None for each in model.parameters() if not each.requires_grad)


def test_memory_learns_on_clips_and_the_encoder_stays():
    model = network("SAM 2")
    names = select_learning(model, "memory", clips=True)
    changed = changed_by_a_step(model, ClipPlan("click"), frames=3)
    assert changed <= set(names)
    assert {name.partition(".")[0] for name in changed} >= {"memory_attention", "memory_encoder", "sam_mask_decoder"}


def test_frozen_parts_drop_nothing_out_and_the_decoder_stays_in_training():
    """A decoder in evaluation would replace unstable masks; the network itself would space memories differently."""
    model = network("SAM 2")
    select_learning(model, "all", freeze="sam_mask_decoder,memory_attention", clips=True)
    model.eval()
    set_training_modes(model)
    assert model.training and model.sam_mask_decoder.training and model.memory_encoder.training
    assert not any(module.training for module in model.memory_attention.modules())
    select_learning(model, "memory", clips=True)
    assert model.memory_attention.layers[0].dropout.training and not model.image_encoder.training


@pytest.mark.parametrize("learn", ["decoder", "late", "all"])
def test_batch_norms_use_their_statistics_even_where_the_encoder_learns(learn):
    model = network("MobileSAM")
    select_learning(model, learn)
    assert model.training and not any(module.training for module in model.image_encoder.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_that_learns_is_in_one_group_and_biases_norms_and_embeddings_do_not_decay(family):
    model = network(family)
    names = select_learning(model, "all")
    groups = parameter_groups(model, SETTINGS)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert sorted(decay) == sorted(names) and sum(len(group["params"]) for group in groups) == len(names)
    pieces = ("bias", "norm", "token", "embed", "pos_enc", "rel_pos", "obj_ptr", "bn.weight", "gamma")
    sizes = {name: each.ndim for name, each in model.named_parameters()}
    for name, value in decay.items():
        own = name.replace("patch_embed", "").replace("transformer.final_attn_token", "")
        own = own.replace("cross_attn_token_to_image", "").replace("cross_attn_image_to_token", "")
        assert (value == 0) == (sizes[name] < 2 or any(piece in own for piece in pieces)), name


def test_earlier_blocks_and_the_encoder_learn_slower():
    model = network("SAM")
    select_learning(model, "all")
    rates = {name: group["lr"] for group in parameter_groups(model, SETTINGS) for name in group["names"]}
    blocks = [rates[f"image_encoder.blocks.{number}.attn.qkv.weight"] for number in range(4)]
    assert blocks == pytest.approx([1e-4 * 0.9**power for power in (3, 2, 1, 0)])
    assert rates["image_encoder.neck.0.weight"] == pytest.approx(1e-4)
    assert rates["image_encoder.pos_embed"] == pytest.approx(1e-4 * 0.9**4)
    assert rates["mask_decoder.mask_tokens.weight"] == 1e-3


def test_rates_of_the_encoder_are_those_that_are_given():
    model, settings = network("SAM"), replace(SETTINGS, encoder_rate=0.5, layer_decay=0.2)
    select_learning(model, "all")
    rates = {name: group["lr"] for group in parameter_groups(model, settings) for name in group["names"]}
    blocks = [rates[f"image_encoder.blocks.{number}.attn.qkv.weight"] for number in range(4)]
    assert blocks == pytest.approx([5e-4 * 0.2**power for power in (3, 2, 1, 0)])


def test_the_bundled_network_and_a_released_one_learn_what_their_tables_say():
    """Counts of parameters in millions, as published for the released network."""
    for variant, learn, clips, millions in (
        ("sam2.1_t", "token", False, 0.90),
        ("sam2.1_t", "decoder", True, 4.39),
        ("sam2.1_t", "all", True, 38.96),
        ("sam_b", "decoder", False, 4.06),
    ):
        with torch.device("meta"):
            model = build({"variant": variant})
        chosen = set(select_learning(model, learn, clips=clips))
        count = sum(each.numel() for name, each in model.named_parameters() if name in chosen)
        assert count / 1e6 == pytest.approx(millions, abs=0.03)
