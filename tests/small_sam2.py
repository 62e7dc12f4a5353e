"""A small SAM 2 of random weights, and what it takes to ask it and to compare."""

from dataclasses import replace

import torch

from samplug.benchmark.weights import random_state
from samplug.nn import (
    FpnNeck,
    Hiera,
    ImageEncoder,
    MemoryAttention,
    MemoryAttentionLayer,
    MemoryEncoder,
    Past,
    PromptBatch,
    SAM2Model,
)
from samplug.variants import AS_RELEASED

SIZE = 128
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


def weights_of(model):
    """Random weights under which objects are now here, now away."""
    state = random_state(model.state_dict())
    for key in state.keys() & {f"sam_mask_decoder.pred_obj_score_head.{end}" for end in ("bias", "layers.2.bias")}:
        state[key] += 4
    return state


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


def same(actual, expected, tolerance=1e-4):
    """Equal within a share of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(expected.abs().max().item(), 1e-3))
