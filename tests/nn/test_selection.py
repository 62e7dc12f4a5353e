"""Which frames are looked back at: the worked examples of the reference rule, and the reference itself."""

import ast
import random
from pathlib import Path

import pytest
import torch
from support.peers import peer_package

from samplug.nn.memory import selection as module
from samplug.nn.memory.selection import nearest_prompted, remembered_slots, select_memories


def test_the_rule_needs_no_network():
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported == {"__future__", "collections", "dataclasses"}


def test_the_frames_just_before_and_the_prompted_one_are_remembered():
    chosen = select_memories(13, [0], range(1, 13))
    assert chosen.memories == ((0, 6), (7, 5), (8, 4), (9, 3), (10, 2), (11, 1), (12, 0))
    assert chosen.pointers == ((0, 13), *((13 - d, d) for d in range(1, 13)))
    assert chosen.span == 15


def test_a_prompted_frame_is_never_forgotten_but_pointers_end_at_fifteen_frames():
    chosen = select_memories(1000, [0], range(1, 1000))
    assert chosen.memories[0] == (0, 6)
    assert chosen.pointers == ((0, 1000), *((1000 - d, d) for d in range(1, 16)))


def test_frames_without_a_memory_are_left_out_and_the_others_keep_their_slots():
    chosen = select_memories(10, [2], [4, 6, 8])
    assert chosen.memories == ((2, 6), (4, 5), (6, 3), (8, 1))
    assert chosen.pointers == ((2, 8), (8, 2), (6, 4), (4, 6))


def test_with_a_stride_the_last_frame_counts_and_then_every_so_many():
    chosen = select_memories(14, [0], range(1, 14), stride=5)
    assert chosen.memories == ((0, 6), (5, 2), (10, 1), (13, 0))
    assert list(remembered_slots(14, 6, stride=5)) == [(-10, 5), (-5, 4), (0, 3), (5, 2), (10, 1), (13, 0)]


def test_backwards_everything_is_mirrored():
    chosen = select_memories(7, [20], range(8, 20), reverse=True)
    assert chosen.memories == ((20, 6), (13, 5), (12, 4), (11, 3), (10, 2), (9, 1), (8, 0))
    assert chosen.pointers == ((20, 13), *((7 + d, d) for d in range(1, 13)))


def test_backwards_a_stride_rounds_ahead():
    assert list(remembered_slots(12, 4, stride=5, direction=-1)) == [(25, 3), (20, 2), (15, 1), (13, 0)]


def test_a_prompted_frame_ahead_is_a_memory_and_its_pointer_waits():
    assert select_memories(5, [0, 9], []).memories == ((0, 6), (9, 6))
    assert select_memories(5, [0, 9], []).pointers == ((0, 5),)
    assert select_memories(5, [0, 9], [], past_pointers_only=False).pointers == ((0, 5), (9, -4))
    assert select_memories(5, [0, 9], [], reverse=True).pointers == ((9, 4),)
    assert select_memories(5, [0, 9], [], reverse=True, past_pointers_only=False).pointers == ((0, -5), (9, 4))


def test_a_corrected_frame_may_point_at_itself():
    assert select_memories(5, [5], []).pointers == ((5, 0),)


def test_of_many_prompted_frames_both_neighbours_come_first_and_then_the_nearest():
    prompted = [0, 10, 20, 30, 40]
    assert nearest_prompted(22, prompted, 2) == [20, 30]
    assert nearest_prompted(22, prompted, 3) == [20, 30, 10]
    assert nearest_prompted(28, prompted, 4) == [20, 30, 40, 10]
    assert nearest_prompted(20, prompted, 2) == [10, 20]
    assert nearest_prompted(50, prompted, 2) == [40, 30]
    assert nearest_prompted(22, prompted, 5) == prompted
    assert nearest_prompted(22, prompted) == prompted


def test_a_prompted_frame_that_was_not_chosen_counts_where_a_tracked_one_would():
    chosen = select_memories(12, [0, 8, 10, 20], [9, 11], max_prompted=2)
    assert chosen.memories == ((10, 6), (20, 6), (8, 3), (9, 2), (11, 0))
    assert chosen.pointers == ((10, 2), (11, 1), (9, 3), (8, 4), (0, 12))


@pytest.mark.parametrize("most", [0, 1, -2])
def test_a_cap_below_two_is_refused(most):
    with pytest.raises(ValueError, match="2 or more"):
        select_memories(3, [0], [], max_prompted=most)


def test_tracking_without_a_prompted_frame_is_refused():
    with pytest.raises(ValueError, match="prompt a frame"):
        select_memories(3, [], [1, 2])


def test_a_short_video_has_fewer_pointers_and_a_shorter_span():
    assert select_memories(4, [0], [1, 2, 3], num_frames=5).span == 4
    assert select_memories(0, [0], [], num_frames=1).span == 1
    assert select_memories(9, [0], range(1, 9), num_frames=500, max_pointers=4).pointers == (
        (0, 9),
        (8, 1),
        (7, 2),
        (6, 3),
    )
    assert select_memories(9, [0], range(1, 9), num_frames=500, max_pointers=4).span == 3


def test_fewer_slots_mean_fewer_memories():
    assert select_memories(9, [0], range(1, 9), num_maskmem=3).memories == ((0, 2), (7, 1), (8, 0))
    assert select_memories(9, [0], range(1, 9), num_maskmem=1).memories == ((0, 0),)


@pytest.mark.slow
def test_the_reference_looks_back_at_the_same_frames():
    """SAM2Base is fed maps of one token that say which frame they are, in front of an attention that only listens."""
    peer_package("sam2")
    from sam2.modeling.sam2_base import SAM2Base

    draw = random.Random(0)
    for _ in range(500):
        frame, length = draw.randrange(60), draw.choice([60, 61, 100])
        prompted = draw.sample(range(60), draw.randrange(1, 6))
        tracked = [f for f in range(60) if f not in prompted and draw.random() < 0.8]
        options = {"max_prompted": draw.choice([-1, 2, 3]), "stride": draw.choice([1, 2, 5])}
        options |= {"num_maskmem": draw.choice([2, 7]), "max_pointers": draw.choice([4, 16])}
        options |= {"reverse": draw.random() < 0.5, "past_pointers_only": draw.random() < 0.5}
        chosen = select_memories(frame, prompted, tracked, num_frames=length, **options)
        heard = listen(SAM2Base, frame, prompted, tracked, length, options)
        assert heard[0] == list(chosen.memories)
        assert heard[1] == [f for f, _ in chosen.pointers]
        torch.testing.assert_close(heard[2], torch.tensor([d / chosen.span for _, d in chosen.pointers]).sin())


def listen(base, frame, prompted, tracked, length, options):
    """(frame, slot) of memories, frames of pointers and sines of their times, as the reference takes them."""
    model = base.__new__(base)
    torch.nn.Module.__init__(model)
    model.num_maskmem, model.mem_dim, model.hidden_dim = options["num_maskmem"], 4, 4
    model.max_cond_frames_in_attn = options["max_prompted"]
    model.memory_temporal_stride_for_eval = options["stride"]
    model.max_obj_ptrs_in_encoder = options["max_pointers"]
    model.only_obj_ptrs_in_the_past_for_eval = options["past_pointers_only"]
    model.use_obj_ptrs_in_encoder = model.add_tpos_enc_to_obj_ptrs = model.use_signed_tpos_enc_to_obj_ptrs = True
    model.proj_tpos_enc_in_obj_ptrs = False
    model.obj_ptr_tpos_proj = torch.nn.Identity()
    model.maskmem_tpos_enc = torch.arange(float(model.num_maskmem)).view(-1, 1, 1, 1).expand(-1, 1, 1, 4)
    heard = {}
    model.memory_attention = lambda **given: heard.update(given) or given["curr"][0]
    outputs = {
        f: {
            "maskmem_features": torch.full((1, 4, 1, 1), float(f)),
            "maskmem_pos_enc": [torch.zeros(1, 4, 1, 1)],
            "obj_ptr": torch.full((1, 4), float(f)),
        }
        for f in (*prompted, *tracked)
    }
    model.eval()._prepare_memory_conditioned_features(
        frame_idx=frame,
        is_init_cond_frame=False,
        current_vision_feats=[torch.zeros(1, 1, 4)],
        current_vision_pos_embeds=[torch.zeros(1, 1, 4)],
        feat_sizes=[(1, 1)],
        output_dict={
            "cond_frame_outputs": {f: outputs[f] for f in prompted},
            "non_cond_frame_outputs": {f: outputs[f] for f in tracked},
        },
        num_frames=length,
        track_in_reverse=options["reverse"],
    )
    frames, places = heard["memory"][:, 0, 0], heard["memory_pos"][:, 0, 0]
    split = len(frames) - heard["num_obj_ptr_tokens"]
    memories = list(zip(frames[:split].int().tolist(), places[:split].int().tolist(), strict=True))
    return memories, frames[split:].int().tolist(), places[split:]
