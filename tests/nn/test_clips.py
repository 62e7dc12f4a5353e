"""SAM 2 on clips, beside Ultralytics' and Meta's models with the same random weights."""

import pytest
import torch
from support.networks import NECK, OPTIONS, SIZE, TRUNK, clicks, same, small, tokens_of, weights_of
from support.peers import peer_package
from ultralytics.models.sam.modules import encoders, memory_attention
from ultralytics.models.sam.modules import sam as theirs

FRAMES = 8


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


def twins(ours, other):
    state = weights_of(ours)
    for module in (ours, other):
        module.load_state_dict(state, strict=True)
        module.eval()
    return ours, other


def clip(model, reverse=False):
    """Track two objects in one batch in the original's form, with every kind of prompt, and prompts ahead."""
    draw = torch.Generator().manual_seed(5)
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    images = torch.randn(FRAMES, 3, SIZE, SIZE, generator=draw)
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
            **tokens_of(model, images[frame]),
            **{"point_inputs": None, "mask_inputs": None} | given.get(turn, {}),
            output_dict=outputs,
            num_frames=FRAMES,
            track_in_reverse=reverse,
        )
        outputs["cond_frame_outputs" if prompted else "non_cond_frame_outputs"][frame] = output
    return outputs["cond_frame_outputs"] | outputs["non_cond_frame_outputs"]


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
    "one image_index a pixel": {"non_overlap_masks_for_mem_enc": True},
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
@pytest.mark.parametrize("name", [name for name in CHANGES if name not in HEARD_ELSEWHERE])
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
