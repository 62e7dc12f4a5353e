"""Small networks of random weights, and what it takes to ask them, to train them and to compare."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from samplug.benchmark.weights import random_state, randomise
from samplug.checkpoints.config import build
from samplug.checkpoints.families.sam2 import AS_RELEASED
from samplug.nn import (
    FpnNeck,
    Hiera,
    ImageEncoder,
    MemoryAttention,
    MemoryAttentionLayer,
    MemoryContext,
    MemoryEncoder,
    PromptBatch,
    SAM2Model,
)
from samplug.train.data.batches import Batch
from samplug.train.losses.draws import ObjectDraws
from samplug.train.losses.step import draw_plan, follow

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


def followed(model, images, prompts, image_index):
    """What N objects look like on the first frames, and then on the second ones: features belong to the frames."""
    first, second = (model.encode_image(frames) for frames in images)
    start = model.segment(model.without_memory(first)[image_index], prompts, prompted=True)
    start = replace(start, memory=model.encode_memory(first, start.logits, start.presence, image_index, prompted=True))
    past = MemoryContext.gather(model.select_memories(1, [0], [], num_frames=2), {0: start})
    return start, model.segment(
        model.condition_on_memory(second, past, image_index), PromptBatch(torch.arange(len(image_index))), False
    )


def clicks(*points, labels):
    return {"point_coords": torch.tensor(points).float(), "point_labels": torch.tensor(labels, dtype=torch.int32)}


def tokens_of(model, image):
    """A frame's features in the original's form, for two objects."""
    encoded = model.forward_image(image.expand(2, -1, -1, -1))
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


def noisy(module):
    """Noise on every tensor: many start constant, and a constant hides a mistake. Norms stay near one."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            centre = 1.0 if "var" in name or (tensor.dim() == 1 and name.endswith("weight")) else 0.0
            tensor.copy_(centre + torch.rand_like(tensor).sub(0.5) * (1.0 if tensor.dim() > 1 else 0.8))
    return module.eval()


def twins(ours, theirs):
    """Both with the same noise, loaded strictly."""
    theirs.load_state_dict(noisy(ours).state_dict())
    return ours, theirs.eval()


def close(ours, theirs, rel=1e-5):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= rel * theirs.abs().max()


# Training

TRAIN_SIDE = 128
SMALL_VIT = {
    "variant": "mine",
    "architecture": "sam_vit",
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "window_size": 4,
}
SMALL_VIT |= {"global_attn_indexes": (1, 3), "width": 64, "image_size": TRAIN_SIDE}
SMALL_TINY_VIT = {
    "variant": "mobile_sam",
    "embed_dims": (8, 16, 32, 320),
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 4, 10),
}
SMALL_TINY_VIT |= {"image_size": TRAIN_SIDE}
FAMILIES = {
    "SAM": lambda: randomise(build(SMALL_VIT)),
    "MobileSAM": lambda: randomise(build(SMALL_TINY_VIT)),
    "SAM 2": drawn,
}


def network(family, dropout=True):
    """A small network with random weights, in training."""
    model = FAMILIES[family]().train()
    return model if dropout else without_dropout(model)


def without_dropout(model):
    """The network with nothing dropped out, in training."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def rectangles(frames=1, images=2, objects=2, seed=0, **fields):
    """Noise with bright rectangles that move by some pixels from frame to frame, and their masks."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 100, (frames, images, 3, TRAIN_SIDE, TRAIN_SIDE), dtype=np.uint8))
    masks = torch.zeros(frames, images * objects, TRAIN_SIDE, TRAIN_SIDE, dtype=torch.bool)
    for row in range(images * objects):
        y, x, height, width = (*rng.integers(4, 60, 2), *rng.integers(24, 44, 2))
        for frame in range(frames):
            masks[frame, row, y + 3 * frame : y + 3 * frame + height, x + 2 * frame : x + 2 * frame + width] = True
            pixels[frame, row // objects, :, masks[frame, row]] += 60 + 40 * (row % objects)
    return Batch(pixels, masks, torch.arange(images).repeat_interleave(objects), **fields)


def object_draws(count, seed=0):
    """Random numbers for the prompts of so many objects."""
    return ObjectDraws.of([seed], torch.zeros(count, dtype=torch.int64))


def run_step(model, batch, options, rng, draws, backward):
    """Draw what is done on a batch, and do it: the losses."""
    return follow(draw_plan(model, batch, options, rng), model, batch, options, draws, backward).means()


def gradients(model):
    """A copy of every gradient, by name; then there are none."""
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


def furthest(ours, theirs):
    """The parameter whose gradients are furthest apart, and how far, as a share of the largest entry of its gradient.

    Biases of keys change no attention: their gradients are nothing but rounding, or there are none. They are compared
    with the largest entry of all.
    """
    largest = max(each.abs().max() for each in theirs.values())
    shares = {}
    for name in ours.keys() | theirs.keys():
        own, other = (side.get(name, torch.zeros(())) for side in (ours, theirs))
        size = largest if name.endswith("k_proj.bias") or not other.any() else other.abs().max()
        shares[name] = ((own - other).abs().max() / size).item()
    return max(shares.items(), key=lambda share: share[1])


@pytest.fixture(autouse=True)
def one_core():
    """Sums in one order, so that equal runs are equal bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
