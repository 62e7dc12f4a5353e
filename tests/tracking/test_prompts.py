"""Prompts while objects are followed: corrections, additions, and taking them back."""

import torch
from support.walks import FRAMES, Notebook, click, noted, number, walk

from samplug.tracking import Tracker


def test_a_frame_prompted_before_it_was_tracked_is_answered_without_looking_back():
    model = noted(range(10), prompts=(0, 5))
    assert 5 not in model.looks and 0 not in model.looks
    assert [slot for slot in model.looks[9][0] if slot[1] == 6] == [(0, 6), (5, 6)]


def test_a_correction_looks_back_feeds_the_last_mask_and_stays_a_tracked_frame():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(6), (0,)))
    del model.looks[5]
    before = model.fed_back[5]
    answer = tracker.prompt(1, click())
    assert before is None and torch.equal(model.fed_back[5], torch.ones(1, 1, 4, 4))
    assert 5 in model.looks
    assert torch.equal(tracker.step().output.logits, answer.logits)
    list(walk(tracker, range(6, 8)))
    assert model.looks[7][0] == [(0, 6), *((frame, 6 - frame) for frame in range(1, 7))]


def test_a_correction_looks_back_as_far_as_the_answer_that_it_corrects():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(FRAMES), (0,)))
    before = model.looks.pop(FRAMES - 1)
    tracker.prompt(1, click())
    assert model.looks[FRAMES - 1] == before


def test_a_correction_is_a_prompted_frame_where_the_network_says_so():
    tracker = Tracker(model := Notebook(add_all_frames_to_correct_as_cond=True))
    list(walk(tracker, range(6), (0,)))
    before = model.looks[5]
    tracker.prompt(1, click())
    tracker.step()
    tracker.prompt(1, click())
    assert model.looks[5] == before  # the second click looks back like the first, and not at what the first said
    list(walk(tracker, range(6, 8)))
    assert [frame for frame, slot in model.looks[7][0] if slot == 6] == [0, 5]


def test_what_is_fed_back_is_clamped():
    tracker = Tracker(model := Notebook())
    tracker.start_frame(0, number(0))
    tracker.prompt(1, mask=torch.full((1, 1, 4, 4), 5.0))  # logits of 90
    tracker.prompt(1, click())
    assert model.fed_back[0].max() == 32


def test_a_new_prompt_replaces_clicks_unless_it_adds_to_them():
    tracker = Tracker(Notebook())
    tracker.start_frame(0, number(0))
    assert [tracker.prompt(1, click(), add=add).logits.max() for add in (False, True, True, False)] == [2, 3, 4, 2]
    tracker.start_frame(1, number(1))
    tracker.step()
    assert tracker.prompt(1, click(), add=True).logits.max() == 2  # clicks belong to frames


def test_masks_of_prompted_and_corrected_frames_are_binarised_and_no_others():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(3), (0,)))
    tracker.prompt(1, click())
    tracker.step()
    assert model.remembered == [(0, True, True), (1, False, True), (2, False, True), (2, True, True)]


def test_a_prompt_without_a_step_is_remembered_when_the_next_frame_comes():
    tracker = Tracker(model := Notebook())
    tracker.start_frame(0, number(0))
    tracker.prompt(1, click())
    list(walk(tracker, [1]))
    assert model.looks[1][0] == [(0, 6)]


def test_a_step_may_be_repeated():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(4), (0,)))
    model.looks.clear()
    first, second = tracker.step(), tracker.step()
    assert torch.equal(first.output.logits, second.output.logits) and not model.looks


def test_tracked_memories_around_a_correction_can_be_cleared():
    for options, objects, left in [({}, 1, False), ({}, 2, True), ({"clear_for_multi_obj": True}, 2, False)]:
        tracker = Tracker(model := Notebook(), clear_around_input=True, **options)
        tracker.start_frame(0, number(0))
        for obj_id in range(1, objects + 1):
            tracker.prompt(obj_id, click())
        tracker.step()
        list(walk(tracker, range(1, 6)))
        tracker.prompt(1, click())
        tracker.remove(2) if objects == 2 else None
        list(walk(tracker, [6]))
        assert ((4, 1) in model.looks[6][0]) is left, options


def test_taking_prompts_back_forgets_what_was_remembered_from_them():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(8), (0, 5)))
    tracker.clear_prompts(1, 5)
    list(walk(tracker, [8]))
    assert all(frame != 5 for frame, _ in model.looks[8][0])
    tracker.clear_prompts(1)
    assert [answer.ids for answer in walk(tracker, [9, 10], (10,))] == [(), (1,)]
    assert tracker.ids == (1,)


def test_taking_a_prompt_back_on_the_frame_in_hand_takes_its_answer_back():
    tracker = Tracker(Notebook())
    tracker.start_frame(0, number(0))
    tracker.prompt(1, click())
    tracker.clear_prompts(1, 0)
    assert tracker.step().ids == ()
