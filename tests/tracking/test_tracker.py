"""Following objects, the bookkeeping, with a network that only notes what it is asked."""

import pytest
import torch
from support.walks import FRAMES, Notebook, click, noted, number, walk

from samplug.nn.structs import PromptBatch
from samplug.tracking import PresenceGate, Tracker

# What is looked back at


def test_an_object_looks_back_at_its_prompt_and_the_frames_just_before():
    slots, pointers = noted(range(FRAMES)).looks[30]
    assert slots == [(0, 6), (24, 5), (25, 4), (26, 3), (27, 2), (28, 1), (29, 0)]
    assert pointers == [(0, 30), *((30 - d, d) for d in range(15, 0, -1))]


def test_with_a_stride_frames_between_are_let_go_and_those_asked_for_are_there():
    slots, pointers = noted(range(FRAMES), options={"memory_temporal_stride_for_eval": 3}).looks[32]
    assert slots == [(0, 6), (18, 5), (21, 4), (24, 3), (27, 2), (30, 1), (31, 0)]
    assert len(pointers) == 16


def test_backwards_an_object_looks_ahead():
    model = noted(range(30, -1, -1), prompts=(30,), reverse=True)
    slots, pointers = model.looks[10]
    assert slots == [(30, 6), (16, 5), (15, 4), (14, 3), (13, 2), (12, 1), (11, 0)]
    assert pointers == [*((10 + d, d) for d in range(1, 16)), (30, 20)]


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("prompts", [(0,), (0, 7, 8, 9, 20, 31), tuple(range(0, 60, 2)), (12,)])
@pytest.mark.parametrize("reverse", [False, True])
def test_whatever_is_dropped_nobody_would_have_asked_for(stride, prompts, reverse):
    frames = range(59, -1, -1) if reverse else range(60)
    prompts = tuple(59 - frame for frame in prompts) if reverse else prompts
    options = {"memory_temporal_stride_for_eval": stride}
    how = {"reverse": reverse, "max_prompted": 3, "options": options}
    dropping, keeping = (noted(frames, prompts, forget=forget, **how) for forget in (True, False))
    assert dropping.looks == keeping.looks and len(keeping.looks) > 20


def test_no_more_is_kept_than_can_be_asked_for():
    tracker = Tracker(Notebook())
    list(walk(tracker, range(FRAMES), (0,)))
    tracker.start_frame(FRAMES, number(FRAMES))
    records = tracker._tracks[1].records
    assert [frame for frame, record in records.items() if record.memory is not None] == [0, *range(34, 40)]
    assert [frame for frame, record in records.items() if record.memory is None] == list(range(25, 34))
    assert [frame for frame, record in records.items() if record.logits.numel()] == [0]


def test_only_so_many_prompted_frames_count_and_minus_one_lifts_the_cap():
    prompts = range(0, 40, 4)
    capped, free = (noted(range(FRAMES), prompts, max_prompted=cap).looks[39][0] for cap in (4, -1))
    assert [frame for frame, slot in capped if slot == 6] == [24, 28, 32, 36]
    assert [frame for frame, slot in free if slot == 6] == list(prompts)


def test_the_networks_own_cap_holds_too():
    model = Notebook(max_cond_frames_in_attn=2)
    list(walk(Tracker(model), range(20), (0, 4, 8)))
    assert [frame for frame, slot in model.looks[19][0] if slot == 6] == [4, 8]


def test_a_prompted_frame_is_never_forgotten():
    model = noted(range(300))
    assert model.looks[299][0][0] == (0, 6) and model.looks[299][1][0] == (0, 299)


# Objects


def test_an_object_that_comes_later_is_left_out_until_then():
    tracker = Tracker(Notebook())
    seen = []
    for frame in range(4):
        tracker.start_frame(frame, number(frame))
        for obj_id, first in ((70, 0), (-3, 2)):
            if frame == first:
                tracker.prompt(obj_id, click())
        seen.append(tracker.step().ids)
    assert seen == [(70,), (70,), (70, -3), (70, -3)]


def test_nothing_prompted_is_no_object():
    tracker = Tracker(Notebook())
    tracker.start_frame(0, number(0))
    objects = tracker.step()
    assert len(objects) == 0 and objects.output is None


def test_objects_that_stay_away_are_let_go_and_those_that_return_in_time_are_not():
    tracker = Tracker(Notebook(absent={3, 4, 6, 7, 8}), expire_after=3)
    ids = [answer.ids for answer in walk(tracker, range(10), (0,))]
    assert ids == [(1,)] * 9 + [()] and tracker.ids == ()


def test_repeating_a_step_does_not_hasten_the_end():
    tracker = Tracker(Notebook(absent={1, 2}), expire_after=3)
    list(walk(tracker, range(3), (0,)))
    assert [tracker.step().ids for _ in range(4)] == [(1,)] * 4


def test_frames_without_the_object_are_not_remembered_behind_the_gate():
    absent = {4, 5, 9}
    model = Notebook(absent=absent)
    list(walk(Tracker(model, PresenceGate), range(12), (0,)))
    slots, pointers = model.looks[11]
    assert slots == [(0, 6), (6, 4), (7, 3), (8, 2), (10, 0)]
    assert {frame for frame, _ in pointers} == set(range(11)) - absent
    assert {frame for frame, *_ in model.remembered} == set(range(12)) - absent


# Passes


def test_a_new_pass_starts_from_the_prompted_frames():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(20), (0, 12)))
    model.looks.clear()
    tracker.rewind(reverse=True)
    answers = list(walk(tracker, range(14, 8, -1)))
    assert [len(answer) for answer in answers] == [0, 0, 1, 1, 1, 1]
    assert model.looks[9][0] == [(0, 6), (12, 6), (11, 1), (10, 0)]
    assert model.looks[9][1] == [(10, 1), (11, 2), (12, 3)]


def test_forwards_then_backwards_is_backwards_then_forwards():
    looks = []
    for passes in ((False, True), (True, False)):
        tracker = Tracker(Notebook(), max_prompted=-1)
        for frame in (10, 14):
            tracker.start_frame(frame, number(frame))
            tracker.prompt(1, click())
        seen = {}
        for reverse in passes:
            tracker.rewind(reverse)
            tracker.model.looks = {}
            list(walk(tracker, range(20, -1, -1) if reverse else range(21)))
            seen[reverse] = tracker.model.looks
        looks.append(seen)
    assert looks[0] == looks[1] and looks[0][True] and looks[0][False]


def test_prompting_another_frame_in_between_forgets_nothing():
    for other in (3, 60):
        tracker = Tracker(model := Notebook())
        list(walk(tracker, range(20), (0,)))
        tracker.start_frame(other, number(other))
        tracker.prompt(1, click())
        list(walk(tracker, [20]))
        assert model.looks[20][0][-6:] == [(14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0)]


def test_going_back_within_a_pass_tracks_the_frames_again():
    tracker = Tracker(model := Notebook(), forget=False)
    list(walk(tracker, range(12), (0,)))
    before = model.looks[6]
    model.looks.clear()
    tracker.start_frame(5, number(5))
    assert tracker.prompt(1, click()).logits.max() == 2
    assert model.fed_back[5] is not None and 5 in model.looks
    list(walk(tracker, [6]))
    assert model.looks[6] == before


# Errors


def test_calls_out_of_order_and_wrong_prompts_say_what_to_do():
    tracker = Tracker(Notebook())
    for call in (tracker.step, lambda: tracker.prompt(1, click())):
        with pytest.raises(RuntimeError, match="call start_frame"):
            call()
    tracker.start_frame(0, number(0))
    for prompts, mask in ((None, None), (click(), torch.zeros(1, 1, 4, 4)), (PromptBatch(torch.zeros(2)), None)):
        with pytest.raises(ValueError, match="one of the two"):
            tracker.prompt(1, prompts, mask)
    assert tracker.ids == ()
    for call in (tracker.remove, tracker.clear_prompts):
        with pytest.raises(ValueError, match="no object 9"):
            call(9)


def test_options_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="num_maskmem"):
        Tracker(Notebook(num_maskmem=0))
    for cap in (0, 1, -2):
        with pytest.raises(ValueError, match="max_prompted"):
            Tracker(Notebook(), max_prompted=cap)
