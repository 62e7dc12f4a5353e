"""The rules beside the reference one: worked examples in numbers, and runs with a real network."""

import pytest
import torch
from support.walks import drifting, state_bytes

from samplug.checkpoints.load import load_model
from samplug.masks.boxes import mask_box
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.structs import Answer, PromptBatch
from samplug.tracking import Distractors, Hybrid, Kept, Motion, PresenceGate, Reference, Rule, Tracker
from samplug.tracking.policies.boxes import iou_of_pair, largest_part
from samplug.tracking.policies.distractors import least_box_iou
from samplug.tracking.policies.motion import BoxFilter, centre_aspect_height

RULE = Rule()
ALL = (Reference, PresenceGate, Motion, Distractors, Hybrid)


# Motion: an object of 60 × 40 pixels that moves by 4 pixels a frame, beside a distractor and the whole it belongs to

DISTRACTOR = (300.0, 200.0, 360.0, 240.0)


def object_at(frame):
    return 100.0 + 4 * (frame - 1), 200.0, 160.0 + 4 * (frame - 1), 240.0


def whole_at(frame):
    left = object_at(frame)[0]
    return left - 40, 180.0, left + 120, 260.0


def moved(frames):
    """A policy that has seen the object move."""
    policy = Motion()
    for frame in range(1, frames + 1):
        assert policy.choose_box([0.9, 0.6, 0.5], [object_at(frame), whole_at(frame), DISTRACTOR]) == 0
    return policy


def state_of(policy):
    return [(c.value, c.velocity) for c in policy.filter.coordinates]


def test_the_filter_starts_at_the_first_box_at_rest():
    assert state_of(moved(1)) == [(130, 0), (220, 0), (1.5, 0), (40, 0)]


def test_the_filter_learns_the_velocity():
    for frames, centre, velocity in ((2, 133.471074, 0.826446), (15, 185.918109, 3.869021)):
        policy = moved(frames)
        assert state_of(policy)[0] == pytest.approx((centre, velocity), abs=1e-6)
        assert policy.stable == frames and policy.agreement is None


def test_motion_outweighs_a_rival_that_the_network_prefers():
    policy = moved(15)
    boxes = [object_at(16), DISTRACTOR, whole_at(16)]
    expected = BoxFilter(object_at(1))
    expected.coordinates = [type(c)(**vars(c)) for c in policy.filter.coordinates]
    expected.predict()
    assert expected.box == pytest.approx((159.78713, 200, 219.78713, 240), abs=1e-5)
    assert [iou_of_pair(expected.box, box) for box in boxes] == pytest.approx((0.992929, 0, 0.1875), abs=1e-4)
    assert policy.choose_box([0.80, 0.86, 0.30], boxes) == 0
    assert policy.agreement == pytest.approx(0.992929, abs=1e-6)
    weighed = [
        0.15 * iou_of_pair(expected.box, box) + 0.85 * iou for box, iou in zip(boxes, (0.8, 0.86, 0.3), strict=True)
    ]
    assert weighed[:2] == pytest.approx((0.828939, 0.731), abs=1e-6)


def test_a_large_gap_in_predicted_iou_is_not_bridged_and_the_filter_follows():
    policy = moved(15)
    policy.choose_box([0.80, 0.86, 0.30], [object_at(16), DISTRACTOR, whole_at(16)])
    assert policy.choose_box([0.60, 0.86, 0.30], [object_at(17), DISTRACTOR, whole_at(17)]) == 1
    assert policy.agreement == 0
    assert state_of(policy)[0][1] == pytest.approx(14.3177, abs=1e-4)


def test_a_poor_mask_takes_the_filters_say_away():
    policy = moved(15)
    assert policy.choose_box([0.1, 0.2, 0.25], [object_at(16), DISTRACTOR, whole_at(16)]) == 2
    assert policy.stable == 0
    assert policy.choose_box([0.5, 0.9, 0.3], [object_at(17), DISTRACTOR, None]) == 1
    assert policy.filter.box == DISTRACTOR and policy.stable == 1


def test_an_absent_object_teaches_no_motion():
    policy = moved(15)
    policy.choose_box([0.9, 0.8, 0.7], [None, None, None])
    assert state_of(policy)[0] == pytest.approx((185.918109 + 3.869021, 3.869021), abs=1e-6)
    assert Motion().choose_box([0.9, 0.8], [None, None]) == 0


def test_a_flat_box_counts_as_one_pixel_high():
    assert centre_aspect_height((10, 20, 14, 20)) == (12, 20, 4, 1)


IOUS = dict(enumerate((0.9, 0.9, 0.9, 0.45, 0.8, 0.8, 0.8, 0.8, 0.2, 0.9, 0.6, 0.4), start=1))
PRESENCES = {6: -0.5, 8: -2.0}
AGREEMENTS = {10: 0.0, 11: 0.5, 12: 0.5}


def noted(frames=IOUS, numbered=lambda frame: frame):
    policy = Motion()
    for frame in frames:
        policy.note(numbered(frame), IOUS[frame], PRESENCES.get(frame, 3.0), AGREEMENTS.get(frame))
    return policy


def test_good_frames_are_looked_back_at_and_the_one_before():
    chosen = noted().select(13, [0], range(1, 13), RULE)
    assert chosen.memories == ((0, 6), (2, 5), (3, 4), (5, 3), (7, 2), (11, 1), (12, 0))
    assert chosen.pointers == Reference().select(13, [0], range(1, 13), RULE).pointers


def test_good_frames_are_looked_back_at_backwards_too():
    policy = noted(numbered=lambda frame: 20 - frame)
    chosen = policy.select(7, [20], range(19, 7, -1), Rule(reverse=True))
    assert chosen.memories == ((20, 6), (18, 5), (17, 4), (15, 3), (13, 2), (9, 1), (8, 0))


def test_a_prompted_frame_among_the_good_ones_is_a_prompted_one():
    chosen = noted().select(13, [0, 7], [f for f in range(1, 13) if f != 7], RULE)
    assert chosen.memories == ((0, 6), (7, 6), (1, 5), (2, 4), (3, 3), (5, 2), (11, 1), (12, 0))


def test_good_frames_are_kept_until_newer_ones_come():
    policy = noted()
    kept = policy.keep(12, [0], range(1, 13), RULE)
    assert kept == Kept(frozenset({0, 1, 2, 3, 5, 7, 11, 12}), frozenset(range(13)))
    assert policy.keep(40, [0], range(1, 13), RULE).memories == {0, 1, 2, 3, 5, 7, 11, 40}


def test_a_prompt_starts_the_filter_anew():
    policy = moved(15)
    shown = FrameOutput(torch.ones(1, 4, 4), torch.ones(1, 2), torch.ones(1), torch.ones(1))
    policy.observe(15, shown, None)
    assert policy.choose_box([0.6, 0.9], [object_at(16), DISTRACTOR]) == 1
    assert policy.filter.box == DISTRACTOR


# Distractors

AREAS = [1000, 1010, 1020, 1030, 1030, 1030, 1500, 1040, 0, 0, 900, 1000, 1010, 1020] + [1000] * 6
OVERLAPS = {3: 0.65, 6: 0.65, 8: 0.70, 11: 0.5, 12: 0.5, 14: 0.4, 15: 0.4}
RATIOS = {1: -1, 2: 1.005, 3: 1.0099, 7: 1.4563, 8: 1.0097, 9: -1, 11: 0.8738, 12: 0.9756}
VISIBLE = [frame for frame, area in enumerate(AREAS, start=1) if area]


def considered(policy, frames=20, numbered=lambda frame: frame):
    ratios = {}
    for frame, area in enumerate(AREAS[:frames], start=1):
        rival = OVERLAPS.get(frame, 0.95)
        policy.consider(numbered(frame), area, 0.8 if frame == 12 else 0.9, lambda rival=rival: rival)
        ratios[frame] = policy.area_ratio(area)
    return ratios


def test_anchors_are_sure_steady_frames_with_a_rival_and_far_enough_apart():
    policy = Distractors()
    ratios = considered(policy)
    assert {frame: ratios[frame] for frame in RATIOS} == pytest.approx(RATIOS, abs=1e-4)
    assert policy.found == [3, 11]


@pytest.mark.parametrize(("area", "iou", "rival", "found"), [
    (1000, 0.81, 0.7, True), (800, 0.9, 0.5, True), (790, 0.9, 0.5, False), (1200, 0.9, 0.5, True),
    (1210, 0.9, 0.5, False), (0, 0.9, 0.5, False), (1000, 0.8, 0.5, False), (1000, 0.9, 0.71, False),
])  # fmt: skip
def test_each_condition_of_an_anchor_counts(area, iou, rival, found):
    policy = Distractors()
    for frame in range(1, 9):
        policy.consider(frame, 1000, 0.9, lambda: 1.0)
    policy.consider(9, area, iou, lambda: rival)
    assert policy.found == ([9] if found else [])


def test_anchors_are_looked_back_at_beside_recent_frames_at_the_stride():
    policy = Distractors()
    considered(policy)
    assert policy.anchors(21, [0], VISIBLE, RULE) == [11, 0, 3]
    chosen = policy.select(21, [0], VISIBLE, RULE)
    assert set(chosen.memories) == {(11, 6), (0, 6), (3, 6), (5, 2), (15, 1), (20, 0)}
    assert set(chosen.pointers) == {(0, 21), (3, 18), (11, 10)} | {(f, 21 - f) for f in VISIBLE if 6 <= f != 11}


def test_without_anchors_the_last_frame_seen_is_the_newest():
    tracked = [frame for frame in VISIBLE if frame not in (15, 20)] + [10]
    chosen = Distractors().select(21, [0], tracked, RULE)
    assert set(chosen.memories) == {(0, 6), (5, 2), (10, 1), (19, 0)}


@pytest.mark.parametrize(("frame", "expected"), [(1, {(0, 6)}), (4, {(0, 6), (3, 0)})])
def test_at_first_there_is_little_to_look_back_at(frame, expected):
    policy = Distractors()
    considered(policy, frame - 1)
    assert set(policy.select(frame, [0], range(1, frame), RULE).memories) == expected


def test_anchors_are_found_again_backwards():
    policy = Distractors()
    considered(policy, numbered=lambda frame: 30 - frame)
    tracked = [30 - frame for frame in VISIBLE]
    chosen = policy.select(9, [30], tracked, Rule(reverse=True))
    assert set(chosen.memories) == {(19, 6), (30, 6), (27, 6), (25, 2), (15, 1), (10, 0)}
    assert {d for _, d in chosen.pointers} >= {1, 2, 3, 21} and min(d for _, d in chosen.pointers) == 1


def test_four_anchors_count_and_the_first_prompt_is_one_of_them():
    policy = Distractors()
    policy.found = [10, 20, 30, 40, 50]
    assert policy.anchors(51, [0], range(1, 51), RULE) == [40, 0, 30, 20]
    assert policy.anchors(52, [0], range(1, 52), RULE) == [50, 0, 40, 30]
    kept = policy.keep(52, [0], range(1, 53), RULE)
    assert kept.memories == {0, 20, 30, 40, 50, 52} | {45, 35, 25, 15, 5}


def test_a_rival_is_told_by_its_largest_part_outside_the_chosen_mask():
    chosen, rivals = torch.zeros(40, 60, dtype=torch.bool), torch.zeros(3, 40, 60, dtype=torch.bool)
    chosen[10:21, 10:21] = True
    rivals[0] = chosen
    rivals[1, 10:21, 10:31] = True
    rivals[1, 39, 59] = True  # alone, so it does not count
    assert least_box_iou(chosen, rivals) == pytest.approx(100 / 200)
    assert least_box_iou(chosen, rivals[:1]) == 1


def test_the_largest_part_is_connected_over_corners():
    torch.manual_seed(1)
    cv2 = pytest.importorskip("cv2")
    for share in (0.2, 0.4, 0.6):
        mask = torch.rand(50, 70) < share
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.byte().numpy(), connectivity=8)
        part = largest_part(mask)
        assert part.sum() == stats[1:, 4].max()
        assert len(set(labels[part.numpy()])) == 1 and not (part & ~mask).any()


def test_a_box_spans_the_pixels_inside():
    mask = torch.zeros(9, 12, dtype=torch.bool)
    assert mask_box(mask) is None and iou_of_pair(None, (0, 0, 1, 1)) == 0
    mask[2:5, 3], mask[4, 7] = True, True
    assert mask_box(mask) == (3, 2, 7, 4)


# Compositions


def test_a_hybrid_has_the_anchors_of_one_and_the_recent_frames_of_the_other():
    policy = Hybrid(noted(), Distractors())
    policy.long.found = [2, 9]
    chosen = policy.select(13, [0], range(1, 13), RULE)
    assert set(chosen.memories) == {(0, 6), (2, 6), (9, 6), (5, 3), (7, 2), (11, 1), (12, 0)}
    kept = policy.keep(12, [0], range(1, 13), RULE).memories
    assert {frame for frame, _ in chosen.memories} <= kept


def test_a_hybrid_of_the_reference_rule_without_anchors_is_the_gated_reference_rule():
    tracked = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    chosen = Hybrid(Reference(), Distractors()).select(13, [0], tracked, RULE)
    assert set(chosen.memories) == set(Reference().select(13, [0], tracked, RULE).memories)


# With a network


@pytest.fixture(scope="module")
def model(nano_file):
    return load_model(nano_file)


@pytest.fixture(scope="module")
def frames(model):
    return drifting(model, 36, 3, 2, plane=192)


def followed(model, frames, policy, *, presence=0.0, order=None, **how):
    """An object's answers by frame; `presence` is added to what the network says."""
    tracker, answers = Tracker(model, policy, **how), []
    order = range(len(frames)) if order is None else order
    head = model.sam_mask_decoder.pred_obj_score_head.layers[2].bias
    with torch.no_grad():
        head += presence
    for i in order:
        tracker.start_frame(i, frames[i])
        if i == order[0]:
            tracker.prompt(1, PromptBatch(torch.tensor([0]), torch.tensor([[[30.0, 30.0]]]), torch.tensor([[1]])))
        answers.append(tracker.step().output)
    with torch.no_grad():
        head -= presence
    return answers, tracker


def always_rival(*_):
    return 0.5


@pytest.mark.parametrize("policy", ALL[1:])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_a_policy_drops_changes_no_bit(policy, reverse, model, frames, monkeypatch):
    monkeypatch.setattr("samplug.tracking.policies.distractors.least_box_iou", always_rival)
    monkeypatch.setattr("samplug.tracking.policies.distractors.STEADY_RATIO", (0, 100))
    order = range(35, -1, -1) if reverse else range(36)
    how = {"presence": 2.4, "order": order, "reverse": reverse}
    runs = [followed(model, frames, lambda: with_low_bar(policy()), forget=forget, **how) for forget in (True, False)]
    for kept, all_kept in zip(*(answers for answers, _ in runs), strict=True):
        assert torch.equal(kept.logits, all_kept.logits) and torch.equal(kept.pointer, all_kept.pointer)
    assert state_bytes(runs[0][1]) < state_bytes(runs[1][1])


def with_low_bar(policy):
    """So that anchors are found, whatever the network thinks of its masks."""
    if isinstance(policy, Hybrid):
        with_low_bar(policy.long)
    if isinstance(policy, Distractors):
        policy.sure_iou = 0.0
    return policy


def test_the_runs_above_find_anchors_and_gate_frames(model, frames, monkeypatch):
    monkeypatch.setattr("samplug.tracking.policies.distractors.least_box_iou", always_rival)
    monkeypatch.setattr("samplug.tracking.policies.distractors.STEADY_RATIO", (0, 100))
    answers, tracker = followed(model, frames, lambda: with_low_bar(Distractors()), presence=2.4)
    presences = torch.cat([answer.presence for answer in answers])
    assert len(tracker._tracks[1].policy.found) >= 3
    assert (presences > 0).sum() > 15


@pytest.mark.parametrize("policy", ALL)
def test_the_state_of_a_policy_does_not_grow(policy, model, frames):
    tracker, sizes = Tracker(model, policy), []
    for i in range(60):
        tracker.start_frame(i, frames[i % 30])
        if i == 0:
            tracker.prompt(1, PromptBatch(torch.tensor([0]), torch.tensor([[[30.0, 30.0]]]), torch.tensor([[1]])))
        tracker.step()
        sizes.append(len(tracker._tracks[1].records))
    assert max(sizes) <= 1 + 15 + 12 < 60


def test_each_object_has_its_own_filter(model, frames):
    tracker = Tracker(model, Motion)
    for i in range(4):
        tracker.start_frame(i, frames[i])
        if i == 0:
            for obj_id, x in ((1, 20.0), (2, 50.0)):
                click = PromptBatch(torch.tensor([0]), torch.tensor([[[x, 30.0]]]), torch.tensor([[1]]))
                tracker.prompt(obj_id, click)
        tracker.step()
    first, second = (tracker._tracks[obj_id].policy for obj_id in (1, 2))
    assert first is not second and first.filter is not second.filter


def test_the_masks_that_policies_choose_are_taken(model, frames):
    class Last(Reference):
        def choose(self, frame, answer):
            assert isinstance(answer, Answer) and answer.iou.shape == (1, 3)
            return 2

    best, _ = followed(model, frames[:2], Reference, presence=5)
    last, _ = followed(model, frames[:2], Last, presence=5)
    assert last[1].iou < best[1].iou and not torch.equal(last[1].logits, best[1].logits)
