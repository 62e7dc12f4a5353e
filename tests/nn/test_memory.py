"""The encoder of memories and the attention to them, beside Ultralytics' modules with the same random weights."""

import pytest
import torch
from support.networks import same
from ultralytics.models.sam.modules import encoders, memory_attention

from samplug.benchmark.weights import noise
from samplug.nn import MemoryAttention, MemoryAttentionLayer, MemoryEncoder
from samplug.nn.ops.positions import rotary_angles, rotate


def noisy(ours, other):
    state = {key: noise(key, tensor, seed=0) for key, tensor in ours.state_dict().items()}
    for module in (ours, other):
        module.load_state_dict(state, strict=True)
        module.eval()
    return ours, other


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
    frames, places, image_index = torch.randn(2, 6, 32), torch.randn(1, 6, 32), torch.tensor([1, 0, 1])
    memory, memory_places = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        together = attention.condition(frames, places, memory, memory_places, (2, 3), 4, image_index)
        for i, frame in enumerate(image_index):
            one = slice(i, i + 1)
            alone = attention.condition(
                frames[frame][None], places, memory[one], memory_places[one], (2, 3), unrotated=4
            )
            same(together[one], alone)
