"""SAM 2's memory and the arithmetic around it, beside Ultralytics' and Meta's modules with the same random weights."""

import copy
import inspect
from dataclasses import replace
from functools import partial

import pytest
import torch
from peers import peer_package
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.models.sam import build as their_build
from ultralytics.models.sam.modules import encoders, memory_attention
from ultralytics.models.sam.modules import sam as theirs

from samplug.benchmark.weights import noise, random_state
from samplug.nn import (
    FpnNeck,
    FrameOutput,
    Hiera,
    ImageEncoder,
    MemoryAttention,
    MemoryAttentionLayer,
    MemoryEncoder,
    Past,
    PromptBatch,
    SAM2Model,
)
from samplug.nn.inputs import OTHERS_LOGIT, one_owner
from samplug.nn.memory_attention import rotary_angles, rotate
from samplug.variants import AS_RELEASED, VARIANTS

SIZE = 128
FRAMES = 8
TRUNK = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": (1, 1, 2, 1),
    "global_att_blocks": (3,),
    "window_spec": (8, 4, 8, 4),
    "window_pos_embed_bkg_spatial_size": (7, 7),
}
NECK = {"fpn_top_down_levels": [2, 3], "fpn_interp_model": "nearest"}
RELEASE_2_1 = {"proj_tpos_enc_in_obj_ptrs": True, "use_signed_tpos_enc_to_obj_ptrs": True, "no_obj_embed_spatial": True}
OPTIONS = AS_RELEASED | RELEASE_2_1 | {"image_size": SIZE}


def small(width=256, slim=64, layers=2, **options) -> SAM2Model:
    """A small trunk in front of heads of the released widths."""
    trunk = Hiera(**TRUNK)
    layer = MemoryAttentionLayer(width, 512, kv_in_dim=slim)
    return SAM2Model(
        ImageEncoder(trunk, FpnNeck(width, trunk.channel_list, **NECK), scalp=1),
        MemoryAttention(width, True, layer, layers),
        MemoryEncoder(slim, width),
        **OPTIONS | options,
    ).eval()


def of_ultralytics(layers=2, **options):
    trunk = encoders.Hiera(**TRUNK)
    neck = encoders.FpnNeck(256, trunk.channel_list, **NECK)
    attention = memory_attention.MemoryAttention(
        256, True, memory_attention.MemoryAttentionLayer(dim_feedforward=512), layers
    )
    options = OPTIONS | options
    encoder = encoders.ImageEncoder(trunk, neck, scalp=1)
    return theirs.SAM2Model(encoder, attention, encoders.MemoryEncoder(64), **options).eval()


def of_meta(layers=2, **options):
    peer_package("sam2")
    from sam2.modeling import memory_attention as attention
    from sam2.modeling import memory_encoder as memory
    from sam2.modeling.backbones.hieradet import Hiera as Trunk
    from sam2.modeling.backbones.image_encoder import FpnNeck as Neck
    from sam2.modeling.backbones.image_encoder import ImageEncoder as Encoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine as Sine
    from sam2.modeling.sam.transformer import RoPEAttention as Rotary
    from sam2.modeling.sam2_base import SAM2Base

    trunk = Trunk(**TRUNK)
    own, cross = Rotary(embedding_dim=256, num_heads=1), None
    cross = Rotary(embedding_dim=256, num_heads=1, kv_in_dim=64, rope_k_repeat=True)
    layer = attention.MemoryAttentionLayer("relu", cross, 256, 512, 0.1, False, True, False, own)
    return SAM2Base(
        Encoder(trunk, Neck(Sine(256), 256, trunk.channel_list, **NECK), scalp=1),
        attention.MemoryAttention(256, True, layer, layers),
        memory.MemoryEncoder(
            64, memory.MaskDownSampler(256, 3, 2, 1), memory.Fuser(memory.CXBlock(256), 2), Sine(64), 256
        ),
        **OPTIONS | options,
    ).eval()


def weights_of(model):
    """Random weights under which objects are now here, now away."""
    state = random_state(model.state_dict())
    for key in state.keys() & {f"sam_mask_decoder.pred_obj_score_head.{end}" for end in ("bias", "layers.2.bias")}:
        state[key] += 4
    return state


def twins(ours, other):
    state = weights_of(ours)
    for module in (ours, other):
        module.load_state_dict(state, strict=True)
        module.eval()
    return ours, other


def noisy(ours, other):
    state = {key: noise(key, tensor, seed=0) for key, tensor in ours.state_dict().items()}
    for module in (ours, other):
        module.load_state_dict(state, strict=True)
        module.eval()
    return ours, other


def same(actual, expected, tolerance=1e-4):
    """Equal within a share of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(expected.abs().max().item(), 1e-3))


# The modules


@pytest.mark.parametrize("size", [(8, 8), (4, 6)])
def test_the_memory_encoder_agrees(size):
    ours, other = noisy(MemoryEncoder(64), encoders.MemoryEncoder(64))
    features, masks = torch.randn(2, 256, *size), 5 * torch.randn(2, 1, 16 * size[0], 16 * size[1])
    for skip in (False, True):
        with torch.no_grad():
            mine, reference = ours(features, masks, skip), other(features, masks, skip)
        assert mine.keys() == reference.keys()
        same(mine["vision_features"], reference["vision_features"])
        same(mine["vision_pos_enc"][0], reference["vision_pos_enc"][0])


def test_a_memory_has_positions_of_its_own_width():
    encoded = MemoryEncoder(16, 32)(torch.randn(1, 32, 4, 4), torch.randn(1, 1, 64, 64))
    assert encoded["vision_features"].shape == encoded["vision_pos_enc"][0].shape == (1, 16, 4, 4)


@pytest.mark.parametrize("positions", range(8))
@pytest.mark.parametrize("at_input", [True, False])
def test_the_memory_attention_agrees(positions, at_input):
    names = ("pos_enc_at_attn", "pos_enc_at_cross_attn_keys", "pos_enc_at_cross_attn_queries")
    given = {name: bool(positions >> i & 1) for i, name in enumerate(names)}
    layers = MemoryAttentionLayer(**given), memory_attention.MemoryAttentionLayer(**given)
    ours, other = noisy(
        MemoryAttention(256, at_input, layers[0], 2), memory_attention.MemoryAttention(256, at_input, layers[1], 2)
    )
    tokens, places = torch.randn(2, 16, 2, 256)
    memory, memory_places = torch.randn(2, 16 * 3 + 8, 2, 64)
    with torch.no_grad():
        expected = other(tokens, memory, places, memory_places, num_obj_ptr_tokens=8)
        same(ours(tokens, memory, places, memory_places, num_obj_ptr_tokens=8), expected)
        same(ours([tokens], memory, [places], memory_places, num_obj_ptr_tokens=8), expected)
        ours.batch_first = False
        turned = [x.transpose(0, 1) for x in (tokens, memory, places, memory_places)]
        same(ours(*turned, num_obj_ptr_tokens=8).transpose(0, 1), expected)


def test_rotated_tokens_know_their_distance_and_nothing_else():
    """On a rectangle: the product of a query and a key depends on how far apart their rows and columns are."""
    angles = rotary_angles((5, 7), 16, torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 1, 35, 16)
    products = (rotate(q, angles) @ rotate(k, angles).mT).view(5, 7, 5, 7)
    same(products[3, 4, 1, 2], products[4, 6, 2, 4])
    same(products[0, 0, 4, 1], products[0, 5, 4, 6])
    assert (products[0, 0, 0, 1] - products[0, 0, 1, 0]).abs() > 1e-3
    same(rotate(q, angles).norm(dim=-1), q.norm(dim=-1))


def test_several_remembered_maps_are_rotated_alike():
    angles = rotary_angles((2, 3), 8, torch.device("cpu"))
    maps = torch.randn(1, 1, 3, 6, 8)
    same(rotate(maps.flatten(2, 3), angles), torch.cat([rotate(maps[:, :, i], angles) for i in range(3)], dim=2))


def test_objects_of_a_frame_are_conditioned_as_if_alone():
    attention, _ = noisy(*(MemoryAttention(32, True, MemoryAttentionLayer(32, 64, kv_in_dim=16), 2) for _ in "ab"))
    frames, places, owner = torch.randn(2, 6, 32), torch.randn(1, 6, 32), torch.tensor([1, 0, 1])
    memory, memory_places = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        together = attention.condition(frames, places, memory, memory_places, (2, 3), 4, owner)
        for i, frame in enumerate(owner):
            one = slice(i, i + 1)
            alone = attention.condition(
                frames[frame][None], places, memory[one], memory_places[one], (2, 3), unrotated=4
            )
            same(together[one], alone)


# Names


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("sam2")])
def test_every_parameter_has_the_checkpoints_name_and_shape(variant, monkeypatch):
    release, letter = variant.split("_")
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # it reads numbers while building
    with torch.device("meta"):
        ours = VARIANTS[variant].build().state_dict()
        other = getattr(their_build, f"build_sam2_{letter}")().state_dict()
    if release == "sam2.1":
        other |= {"no_obj_embed_spatial": torch.empty(1, 64), "obj_ptr_tpos_proj.weight": torch.empty(64, 256)}
        other |= {"obj_ptr_tpos_proj.bias": torch.empty(64)}
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: t.shape for key, t in other.items()}


def test_official_names_written_out_by_hand():
    with torch.device("meta"):
        state = VARIANTS["sam2.1_t"].build().state_dict()
    assert {
        "maskmem_tpos_enc": (7, 1, 1, 64),
        "no_mem_embed": (1, 1, 256),
        "no_mem_pos_enc": (1, 1, 256),
        "no_obj_ptr": (1, 256),
        "no_obj_embed_spatial": (1, 64),
        "image_encoder.trunk.pos_embed": (1, 96, 7, 7),
        "image_encoder.trunk.pos_embed_window": (1, 96, 8, 8),
        "image_encoder.trunk.patch_embed.proj.weight": (96, 3, 7, 7),
        "image_encoder.trunk.blocks.0.norm1.weight": (96,),
        "image_encoder.trunk.blocks.1.proj.weight": (192, 96),
        "image_encoder.trunk.blocks.11.attn.qkv.weight": (2304, 768),
        "image_encoder.trunk.blocks.11.mlp.layers.1.bias": (768,),
        "image_encoder.neck.convs.0.conv.weight": (256, 768, 1, 1),
        "image_encoder.neck.convs.3.conv.bias": (256,),
        "mask_downsample.weight": (1, 1, 4, 4),
        "memory_attention.layers.0.self_attn.q_proj.weight": (256, 256),
        "memory_attention.layers.3.cross_attn_image.k_proj.weight": (256, 64),
        "memory_attention.layers.3.cross_attn_image.v_proj.bias": (256,),
        "memory_attention.layers.2.linear1.weight": (2048, 256),
        "memory_attention.layers.2.norm3.bias": (256,),
        "memory_attention.norm.weight": (256,),
        "memory_encoder.mask_downsampler.encoder.0.weight": (4, 1, 3, 3),
        "memory_encoder.mask_downsampler.encoder.10.weight": (256,),
        "memory_encoder.mask_downsampler.encoder.12.weight": (256, 256, 1, 1),
        "memory_encoder.pix_feat_proj.weight": (256, 256, 1, 1),
        "memory_encoder.fuser.layers.1.dwconv.weight": (256, 1, 7, 7),
        "memory_encoder.fuser.layers.1.gamma": (256,),
        "memory_encoder.out_proj.weight": (64, 256, 1, 1),
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "sam_mask_decoder.conv_s0.weight": (32, 256, 1, 1),
        "sam_mask_decoder.pred_obj_score_head.layers.2.weight": (1, 256),
        "obj_ptr_proj.layers.2.weight": (256, 256),
        "obj_ptr_tpos_proj.weight": (64, 256),
    }.items() <= {key: tuple(tensor.shape) for key, tensor in state.items()}.items()


def test_the_public_signatures_have_the_others_names_and_defaults():
    for method in ("__init__", "track_step"):
        ours = inspect.signature(getattr(SAM2Model, method)).parameters
        other = inspect.signature(getattr(theirs.SAM2Model, method)).parameters
        more = {"add_all_frames_to_correct_as_cond"} if method == "__init__" else set()
        assert ours.keys() - other.keys() == more
        assert {name: ours[name].default for name in other} == {name: other[name].default for name in other}


# A clip


def clip(model, reverse=False):
    """Track two objects in one batch in the original's form, with every kind of prompt, and prompts ahead."""
    draw = torch.Generator().manual_seed(5)
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    pictures = torch.randn(FRAMES, 3, SIZE, SIZE, generator=draw)
    masks = torch.randn(2, 1, SIZE // 16, SIZE // 16, generator=draw).gt(0).float().repeat_interleave(16, 2)
    masks = masks.repeat_interleave(16, 3)
    masks[1] = 0  # that object is absent
    before = 4 * torch.randn(2, 1, SIZE // 4, SIZE // 4, generator=draw)
    given = {
        0: {"point_inputs": clicks([[40, 40]], [[90, 30]], labels=[[1], [1]])},
        5: {"mask_inputs": masks},
        3: {
            "point_inputs": clicks([[20, 30], [80, 90]], [[70, 50], [90, 99]], labels=[[1, 0], [1, 1]]),
            "prev_sam_mask_logits": before,
        },
        6: {"point_inputs": clicks([[60, 60], [70, 62]], [[62, 58], [30, 90]], labels=[[1, 1], [1, 0]])},
    }
    for turn in (0, 5, 1, 2, 3, 4, 6, 7):
        frame = FRAMES - 1 - turn if reverse else turn
        prompted = turn in (0, 5, 6)
        output = model.track_step(
            frame_idx=frame,
            is_init_cond_frame=prompted,
            **tokens_of(model, pictures[frame]),
            **{"point_inputs": None, "mask_inputs": None} | given.get(turn, {}),
            output_dict=outputs,
            num_frames=FRAMES,
            track_in_reverse=reverse,
        )
        outputs["cond_frame_outputs" if prompted else "non_cond_frame_outputs"][frame] = output
    return outputs["cond_frame_outputs"] | outputs["non_cond_frame_outputs"]


def clicks(*points, labels):
    return {"point_coords": torch.tensor(points).float(), "point_labels": torch.tensor(labels, dtype=torch.int32)}


def tokens_of(model, picture):
    """A frame's features in the original's form, for two objects."""
    encoded = model.forward_image(picture.expand(2, -1, -1, -1))
    levels = slice(-3 if model.use_high_res_features_in_sam else -1, None)
    maps, places = encoded["backbone_fpn"][levels], encoded["vision_pos_enc"][levels]
    return {
        "current_vision_feats": [level.flatten(2).permute(2, 0, 1) for level in maps],
        "current_vision_pos_embeds": [level.flatten(2).permute(2, 0, 1) for level in places],
        "feat_sizes": [tuple(level.shape[-2:]) for level in maps],
    }


def assert_same_clip(ours, other, **how):
    with torch.no_grad():
        mine, reference = clip(ours, **how), clip(other, **how)
    assert mine.keys() == reference.keys()
    for frame, expected in reference.items():
        assert set(mine[frame]) >= set(expected)
        for key in ("pred_masks", "pred_masks_high_res", "obj_ptr", "object_score_logits", "maskmem_features"):
            if expected[key] is None:
                assert mine[frame][key] is None
            else:
                same(mine[frame][key], expected[key], 1e-3)
        if expected["maskmem_pos_enc"] is not None:
            same(mine[frame]["maskmem_pos_enc"][-1], expected["maskmem_pos_enc"][-1])
    return mine


def test_a_clip_is_tracked_as_ultralytics_tracks_it():
    outputs = assert_same_clip(*twins(small(), of_ultralytics()))
    presences = torch.cat([outputs[frame]["object_score_logits"] for frame in outputs])
    assert (presences > 0).any() and (presences < 0).any()  # both ways are compared
    assert (torch.cat([outputs[frame]["pred_masks"] for frame in outputs]) == -1024).any()


def test_a_clip_is_tracked_backwards_with_pointers_from_ahead_as_ultralytics_tracks_it():
    """Only there do distances have either sign."""
    ahead = {"only_obj_ptrs_in_the_past_for_eval": False}
    assert_same_clip(*twins(small(**ahead), of_ultralytics(**ahead)), reverse=True)


CHANGES = {
    "memories are not used": {"num_maskmem": 0},
    "three memories": {"num_maskmem": 3},
    "a temporal stride": {"memory_temporal_stride_for_eval": 2},
    "capped prompted frames": {"max_cond_frames_in_attn": 2},
    "a mask is a prompt": {"use_mask_input_as_output_without_sam": False},
    "a soft absent pointer": {"soft_no_obj_ptr": True},
    "an added absent pointer": {"fixed_no_obj_ptr": False},
    "no presence": {"pred_obj_scores": False, "fixed_no_obj_ptr": False},
    "presence by one layer": {"pred_obj_scores_mlp": False},
    "pointers without time": {"add_tpos_enc_to_obj_ptrs": False, "proj_tpos_enc_in_obj_ptrs": False},
    "unsigned time as it is": {"proj_tpos_enc_in_obj_ptrs": False, "use_signed_tpos_enc_to_obj_ptrs": False},
    "pointers from the future": {"only_obj_ptrs_in_the_past_for_eval": False},
    "few pointers": {"max_obj_ptrs_in_encoder": 3},
    "pointers by one layer": {"use_mlp_for_obj_ptr_proj": False},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "pred_obj_scores": False, "fixed_no_obj_ptr": False},
    "one owner a pixel": {"non_overlap_masks_for_mem_enc": True},
    "binary memories": {"binarize_mask_from_pts_for_mem_enc": True},
    "other mask scales": {"sigmoid_scale_for_mem_enc": 1.0, "sigmoid_bias_for_mem_enc": 0.0},
    "memories say nothing of absence": {"no_obj_embed_spatial": False},
    "coarse features only": {"use_high_res_features_in_sam": False},
    "single masks": {"multimask_output_in_sam": False},
    "single masks while tracking": {"multimask_output_for_tracking": False},
    "several masks for two points only": {"multimask_min_pt_num": 2, "multimask_max_pt_num": 2},
    "the first token's pointer": {"use_multimask_token_for_obj_ptr": False},
    "overlaps without a sigmoid": {"iou_prediction_use_sigmoid": False},
    "no fallback for shaky masks": {"sam_mask_decoder_extra_args": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("changes", [{}, *CHANGES.values()], ids=["as released", *CHANGES])
def test_a_clip_is_tracked_as_meta_tracks_it(changes, reverse):
    assert_same_clip(*twins(small(**changes), of_meta(**changes)), reverse=reverse)


HEARD_ELSEWHERE = {  # by the decoder's own tests, or as other parameters
    "presence by one layer",
    "pointers by one layer",
    "overlaps without a sigmoid",
    "no fallback for shaky masks",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES.keys() - HEARD_ELSEWHERE)
def test_an_option_changes_the_clip(name):
    """So that agreement under an option says something: with the same weights, the option is heard."""
    usual, changed = small(), small(**CHANGES[name])
    state = weights_of(usual)
    usual.load_state_dict(state)
    state["maskmem_tpos_enc"] = state["maskmem_tpos_enc"][-changed.num_maskmem or 7 :]
    changed.load_state_dict({key: state[key] for key in changed.state_dict()})
    with torch.no_grad():
        before, after = clip(usual), clip(changed)
    assert any(not torch.equal(before[f]["pred_masks"], after[f]["pred_masks"]) for f in before)


# Our own form


def drawn(**options) -> SAM2Model:
    model = small(width=64, slim=16, layers=1, **{"sam_mask_decoder_extra_args": None} | options)
    model.load_state_dict(weights_of(model))
    return model


def prompt(*xy, labels=(1,)):
    """Clicks of one object each."""
    points = torch.tensor(xy, dtype=torch.float32)[:, None].expand(-1, len(labels), -1)
    return PromptBatch(torch.arange(len(xy)), points, torch.tensor([labels]).expand(len(xy), -1))


def followed(model, pictures, prompts, owner):
    """What N objects look like on the first frames, and then on the second ones: features belong to the frames."""
    first, second = (model.see(frames) for frames in pictures)
    start = model.segment(model.without_past(first)[owner], prompts, prompted=True)
    start = replace(start, memory=model.remember(first, start.logits, start.presence, owner, prompted=True))
    past = Past.gather(model.recall(1, [0], [], num_frames=2), {0: start})
    return start, model.segment(model.look_back(second, past, owner), PromptBatch(torch.arange(len(owner))), False)


@torch.no_grad()
def test_objects_on_frames_of_several_videos_are_answered_as_if_alone():
    model = drawn()
    pictures = torch.randn(2, 2, 3, 64, 96)
    prompts, owner = prompt([10, 20], [60, 50], [90, 9]), torch.tensor([1, 0, 1])
    together = followed(model, pictures, prompts, owner)
    for i, frame in enumerate(owner):
        one = replace(prompts[i], owner=torch.tensor([0]))
        alone = followed(model, pictures[:, frame, None], one, torch.tensor([0]))
        for all_of_them, single in zip(together, alone, strict=True):
            for field in ("logits", "pointer", "presence", "iou"):
                same(getattr(all_of_them[i], field), getattr(single, field))


@torch.no_grad()
def test_the_original_form_and_our_own_give_the_same_answer():
    model = drawn()
    pictures = torch.randn(2, 1, 3, SIZE, SIZE)
    _, ours = followed(model, pictures, prompt([40, 40], [90, 30]), torch.tensor([0, 0]))
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for frame, given in ((0, clicks([[40, 40]], [[90, 30]], labels=[[1], [1]])), (1, None)):
        tokens = tokens_of(model, pictures[frame, 0])
        step = model.track_step(frame, frame == 0, *tokens.values(), given, None, outputs, num_frames=2)
        outputs["cond_frame_outputs"][frame] = step
    same(step["pred_masks"][:, 0], ours.logits)
    same(step["obj_ptr"], ours.pointer)


@torch.no_grad()
def test_encoding_is_seeing_without_a_past():
    model, images = drawn(), torch.randn(2, 3, 64, 96)
    seen, encoded, dictionary = model.see(images), model.encode(images), model.forward_image(images)
    same(encoded.image, seen.image + model.no_mem_embed.view(1, -1, 1, 1))
    assert all(torch.equal(*pair) for pair in zip(encoded.fine, seen.fine, strict=True))
    assert all(torch.equal(*pair) for pair in zip((*seen.fine, seen.image), dictionary["backbone_fpn"], strict=True))
    assert [tuple(x.shape) for x in dictionary["vision_pos_enc"]] == [(2, 64, 16, 24), (2, 64, 8, 12), (2, 64, 4, 6)]


@torch.no_grad()
def test_without_a_past_the_features_may_attend_to_one_learned_vector():
    model = drawn(directly_add_no_mem_embed=False)
    seen = model.see(torch.randn(2, 3, 64, 64))
    tokens, nothing = seen.image.flatten(2).mT, model.no_mem_embed.view(1, 4, 16).expand(2, -1, -1)
    nowhere = model.no_mem_pos_enc.view(1, 4, 16).expand(2, -1, -1)
    places = model.forward_image(torch.randn(1, 3, 64, 64))["vision_pos_enc"][-1].flatten(2).mT
    expected = model.memory_attention.condition(tokens, places, nothing, nowhere, (4, 4), unrotated=4)
    same(model.without_past(seen).image.flatten(2).mT, expected)
    model.no_mem_embed += 1
    assert not torch.allclose(model.without_past(seen).image.flatten(2).mT, expected, atol=1e-3)


@torch.no_grad()
def test_a_tracked_object_gets_two_padding_points_and_a_click_one():
    model = drawn()
    features = model.encode(torch.randn(1, 3, 64, 64))
    nothing = PromptBatch(torch.zeros(2, dtype=torch.int64))
    paddings = replace(nothing, points=torch.zeros(2, 1, 2), labels=torch.full((2, 1), -1))
    same(model.segment(features, nothing, False).logits, model.segment(features, paddings, False).logits)
    two = replace(nothing, points=torch.zeros(2, 2, 2), labels=torch.full((2, 2), -1))
    assert not torch.allclose(model.answer(features, paddings).logits, model.answer(features, two).logits, atol=1e-4)


@torch.no_grad()
def test_box_corners_are_points_ahead_of_the_clicks():
    model = drawn()
    features = model.encode(torch.randn(1, 3, 64, 64))
    both = replace(prompt([9, 12]), boxes=torch.tensor([[4.0, 6.0, 40.0, 50.0]]))
    points = torch.tensor([[[4.0, 6.0], [40.0, 50.0], [9.0, 12.0]]])
    same(
        model.answer(features, both).logits,
        model.answer(features, PromptBatch(both.owner, points, torch.tensor([[2, 3, 1]]))).logits,
    )
    alone = replace(both, points=None, labels=None)
    same(
        model.answer(features, alone).logits,
        model.answer(features, PromptBatch(both.owner, points[:, :2], torch.tensor([[2, 3]]))).logits,
    )


@pytest.mark.parametrize(("points", "boxes", "several"), [(0, 0, True), (1, 0, True), (2, 0, False), (0, 1, False)])
def test_a_box_counts_as_two_points_when_masks_are_counted(points, boxes, several):
    model = drawn()
    prompts = PromptBatch(torch.tensor([0]), boxes=torch.tensor([[4.0, 6.0, 40.0, 50.0]]) if boxes else None)
    if points:
        prompts = replace(prompts, points=torch.ones(1, points, 2), labels=torch.ones(1, points))
    with torch.no_grad():
        features = model.encode(torch.randn(1, 3, 64, 64))
        assert model.candidates(features, prompts, True).logits.shape[1] == (3 if several else 1)
        model.multimask_output_for_tracking = False
        assert model.candidates(features, prompts, False).logits.shape[1] == 1


@torch.no_grad()
def test_the_best_candidate_is_taken_unless_another_is_chosen():
    model = drawn()
    candidates = model.candidates(model.encode(torch.randn(1, 3, 64, 64)), prompt([9, 12], [50, 40])[:], True)
    candidates = replace(candidates, presence=torch.full((2, 1), 3.0))
    best = candidates.iou.argmax(1)
    assert torch.equal(model.settle(candidates).iou, candidates.iou.amax(1))
    other = (best + 1) % 3
    chosen = model.settle(candidates, other)
    for i in range(2):
        assert torch.equal(chosen.logits[i], candidates.logits[i, other[i]])
        same(chosen.pointer[i], model.obj_ptr_proj(candidates.tokens[i, other[i]]))


@torch.no_grad()
def test_an_absent_object_has_no_mask_and_the_absent_pointer():
    model = drawn()
    candidates = model.candidates(model.encode(torch.randn(1, 3, 64, 64)), prompt([9, 12]), True)
    candidates = replace(candidates, presence=torch.tensor([[-0.5]]))
    gone = model.settle(candidates)
    assert torch.equal(gone.logits, torch.full((1, 16, 16), -1024.0))
    same(gone.pointer, model.no_obj_ptr)
    here = model.settle(candidates, present_above=-1.0)
    assert (here.logits > -1024).all()
    same(here.pointer, model.obj_ptr_proj(candidates.tokens[torch.tensor([0]), candidates.iou.argmax(1)]))


@torch.no_grad()
def test_a_given_mask_is_the_answer():
    model = drawn()
    features, masks = model.see(torch.randn(1, 3, 64, 64)), torch.zeros(2, 1, 64, 64)
    masks[0, :, 16:32, 24:44] = 1
    output = model.take_mask(features, masks, torch.tensor([0, 0]))
    assert torch.equal(output.logits[0] > 0, masks[0, 0, ::4, ::4] > 0)
    assert output.logits.max() == 10 and output.logits.min() == -10
    assert output.presence.tolist() == [10, -10] and output.iou.tolist() == [1, 1]
    same(output.pointer[1:], model.no_obj_ptr)
    assert not torch.allclose(output.pointer[0], output.pointer[1], atol=1e-2)


@torch.no_grad()
def test_only_prompted_frames_are_binarised_and_a_call_may_decide():
    model = drawn()
    features, owner = model.see(torch.randn(1, 3, 64, 64)), torch.tensor([0])
    logits, presence = torch.randn(1, 64, 64), torch.ones(1)
    soft = model.remember(features, logits, presence, owner, prompted=True)
    hard = model.remember(features, logits.gt(0) * 2000.0 - 1000, presence, owner, prompted=False)
    assert not torch.allclose(soft, hard, atol=1e-2)
    same(model.remember(features, logits, presence, owner, prompted=True, binarize=True), hard)
    model.set_binarize(True)
    same(model.remember(features, logits, presence, owner, prompted=True), hard)
    same(model.remember(features, logits, presence, owner, prompted=False), soft)
    same(model.remember(features, logits, presence, owner, prompted=True, binarize=False), soft)
    model.set_binarize()
    same(model.remember(features, logits, presence, owner, prompted=True), soft)


@torch.no_grad()
def test_small_logits_are_brought_up_before_they_are_remembered():
    model = drawn()
    features, owner, presence = model.see(torch.randn(1, 3, 64, 96)), torch.tensor([0]), torch.ones(1)
    logits = torch.randn(1, 16, 24)
    large = torch.nn.functional.interpolate(logits[None], size=(64, 96), mode="bilinear")[0]
    same(
        model.remember(features, logits, presence, owner, prompted=False),
        model.remember(features, large, presence, owner, prompted=False),
    )


@torch.no_grad()
def test_the_memory_of_an_absent_object_says_so():
    model = drawn()
    features, owner, logits = model.see(torch.randn(1, 3, 64, 64)), torch.tensor([0]), torch.randn(1, 16, 16)
    here, edge, gone = (
        model.remember(features, logits, torch.tensor([presence]), owner, prompted=False)
        for presence in (0.1, 0.0, -9.0)
    )
    same(gone - here, model.no_obj_embed_spatial.expand_as(here))
    same(edge, gone)


def test_every_pixel_has_one_owner_in_each_frame():
    logits = torch.tensor([3.0, 5.0, -20.0, 4.0]).view(4, 1, 1, 1)
    assert one_owner(logits, torch.tensor([0, 0, 0, 1])).flatten().tolist() == [OTHERS_LOGIT, 5, -20, 4]


@torch.no_grad()
def test_records_may_rest_in_half_precision_and_elsewhere():
    model, pictures = drawn(), torch.randn(2, 1, 3, 64, 64)
    owner = torch.tensor([0])
    start, expected = followed(model, pictures, prompt([20, 30]), owner)
    resting = replace(start, memory=start.memory.half(), pointer=start.pointer.half())
    past = Past.gather(model.recall(1, [0], [], num_frames=2), {0: resting})
    seen = model.look_back(model.see(pictures[1]), past, owner)
    assert seen.image.dtype == torch.float32
    same(model.segment(seen, PromptBatch(owner), False).logits, expected.logits, 0.02)


def test_a_record_is_sliced_field_by_field_and_joined_again():
    output = FrameOutput(torch.randn(3, 4, 4), torch.randn(3, 8), torch.randn(3), torch.rand(3), torch.randn(3, 1, 8))
    one = output[1]
    assert len(output) == 3 and len(one) == 1 and one.presence.shape == (1,)
    assert one.logits.untyped_storage().nbytes() < output.logits.untyped_storage().nbytes()
    joined = FrameOutput.cat([output[0], output[1:]])
    for field in ("logits", "pointer", "presence", "iou", "memory"):
        assert torch.equal(getattr(joined, field), getattr(output, field))
    assert FrameOutput.cat([replace(one, memory=None)] * 2).memory is None


def test_pasts_of_objects_with_as_many_memories_are_joined():
    model = drawn()
    records = {f: FrameOutput(*[torch.full((1, 1), float(f))] * 4, torch.full((1, 1, 1), float(f))) for f in range(9)}
    pasts = [Past.gather(model.recall(8, [p], [7, 6]), records) for p in (0, 3)]
    joined = Past.cat(pasts)
    assert joined.memories.flatten(1).tolist() == [[0, 6, 7], [3, 6, 7]]
    assert joined.slots.tolist() == [[6, 1, 0]] * 2
    assert joined.pointers.flatten(1).tolist() == [[0, 7, 6], [3, 7, 6]]
    torch.testing.assert_close(joined.times, torch.tensor([[8.0, 1, 2], [5, 1, 2]]) / 15)
    ahead = Past.gather(model.recall(2, [5], []), records)
    assert ahead.pointers.shape == (1, 0, 1) and ahead.times.shape == (1, 0)


@torch.no_grad()
def test_a_frame_whose_only_prompt_lies_ahead_has_no_pointers():
    model, pictures = drawn(), torch.randn(2, 1, 3, 64, 64)
    start, _ = followed(model, pictures, prompt([20, 30]), torch.tensor([0]))
    past = Past.gather(model.recall(2, [5], []), {5: start})
    assert model.look_back(model.see(pictures[1]), past, torch.tensor([0])).image.isfinite().all()


# The model as a module


def test_the_size_is_a_default_that_tensors_overrule():
    model = drawn()
    assert model.image_size == (SIZE, SIZE) and model.sam_image_embedding_size == (8, 8) and model.stride == 32
    model.set_imgsz((64, 96))
    assert model.image_size == (64, 96) and model.sam_image_embedding_size == (4, 6)
    assert model.sam_prompt_encoder.image_embedding_size == (4, 6)
    prompts, images = prompt([30, 20]), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        one = model.answer(model.encode(images), prompts).logits
        model.set_imgsz((96, 128))
        same(model.answer(model.encode(images), prompts).logits, one)


def test_the_model_tells_how_pictures_are_normalised_and_stores_nothing_of_it():
    model = drawn()
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert not {"pixel_mean", "pixel_std"} & model.state_dict().keys()
    assert model.mask_threshold == 0 and model.variant == "" and model.device.type == "cpu"
    assert (model.hidden_dim, model.sam_prompt_embed_dim, model.mem_dim) == (64, 64, 16)
    assert small(width=64, slim=64, layers=1).mem_dim == 64


def test_forward_refuses_and_says_what_to_call():
    with pytest.raises(NotImplementedError, match="encode and answer"):
        drawn()(torch.randn(1, 3, 64, 64))


def test_options_that_need_each_other_are_refused_alone():
    with pytest.raises(ValueError, match="add_tpos_enc_to_obj_ptrs"):
        drawn(add_tpos_enc_to_obj_ptrs=False)
    with pytest.raises(ValueError, match="pred_obj_scores"):
        drawn(pred_obj_scores=False)


def test_previous_logits_without_points_are_refused():
    model = drawn()
    with torch.no_grad():
        tokens = tokens_of(model, torch.randn(3, 64, 64))
        with pytest.raises(ValueError, match="point_inputs"):
            model.track_step(
                0, True, *tokens.values(), None, None, {}, 1, prev_sam_mask_logits=torch.zeros(2, 1, 16, 16)
            )


@torch.no_grad()
def test_the_memory_encoder_may_be_left_out():
    model = drawn()
    tokens = tokens_of(model, torch.randn(3, 64, 64))
    step = model.track_step(0, True, *tokens.values(), None, None, {}, 1, run_mem_encoder=False)
    assert step["maskmem_features"] is None and step["maskmem_pos_enc"] is None
    assert step["pred_masks"].shape == (2, 1, 16, 16) and step["pred_masks_high_res"].shape == (2, 1, 64, 64)


def test_corrections_that_become_prompted_frames_are_an_option_for_predictors():
    assert not drawn().add_all_frames_to_correct_as_cond
    assert drawn(add_all_frames_to_correct_as_cond=True).add_all_frames_to_correct_as_cond


def test_a_compiled_encoder_keeps_its_names():
    compiled = drawn(compile_image_encoder=True)
    assert compiled.state_dict().keys() == drawn().state_dict().keys()
    assert compiled.image_encoder.trunk._compiled_call_impl is not None


def test_every_parameter_that_a_clip_uses_learns_from_it():
    model = drawn().train()
    pictures = torch.randn(2, 1, 3, 64, 64)
    start, after = followed(model, pictures, prompt([20, 30]), torch.tensor([0]))
    mask = model.take_mask(model.see(pictures[0]), torch.ones(1, 1, 64, 64), torch.tensor([0]))
    learnt = (start.logits, after.logits, after.presence, after.iou, mask.pointer, after.pointer)
    sum(x.square().mean() for x in learnt).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    absent = {"no_mem_pos_enc", "no_obj_embed_spatial", "no_obj_ptr"}
    absent |= {f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in (0, 2, 3)}
    masks_not_taken = "sam_mask_decoder.output_hypernetworks_mlps."
    assert {name for name in idle if not name.startswith(masks_not_taken)} == absent


@torch.no_grad()
def test_a_copy_answers_alike_and_goes_its_own_way():
    model, pictures = drawn(), torch.randn(2, 1, 3, 64, 64)
    twin = copy.deepcopy(model)
    given = (pictures, prompt([20, 30]), torch.tensor([0]))
    assert torch.equal(followed(model, *given)[1].logits, followed(twin, *given)[1].logits)
    twin.no_mem_embed += 1
    assert not torch.equal(followed(model, *given)[1].logits, followed(twin, *given)[1].logits)


class Dtypes(TorchDispatchMode):
    """The dtypes of all tensors that are computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        parts = result if isinstance(result, tuple | list) else [result]
        self.seen |= {part.dtype for part in parts if isinstance(part, torch.Tensor)}
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_nothing_is_computed_in_double_precision_or_complex_numbers(dtype):
    model, pictures, owner = drawn(), torch.randn(2, 1, 3, 64, 96), torch.tensor([0, 0])
    expected = followed(model, pictures, prompt([20, 30], [70, 40]), owner)
    with Dtypes() as dtypes:
        outputs = followed(model.to(dtype), pictures.to(dtype), prompt([20, 30], [70, 40]), owner)
    assert not dtypes.seen & {torch.float64, torch.complex64, torch.complex128}
    assert outputs[0].memory.dtype == outputs[0].pointer.dtype == dtype
    assert outputs[0].logits.dtype == torch.float32
    tolerance = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    same(outputs[0].logits, expected[0].logits, tolerance)
    same(outputs[0].memory.float(), expected[0].memory, tolerance)
