"""Prompts that wait for their frame: those of a run, those added before it and during it, and those taken back."""

import pytest
from films import BOX, OTHER, alike, film, follow, predictor_of

from samplug.checkpoints import load_model
from samplug.predict.timeline import Timeline, Timelines, together

SHAPE = (60, 80)
CLICK = {"points": [5, 6]}


def shown(prompts):
    return Timelines(1, prompts=prompts).of(0, "a.mp4")


def due(timeline, frame, backwards=False):
    """Whose turn has come."""
    return [one.ids[0] for one in timeline.due(frame, backwards, SHAPE)]


def test_prompts_added_before_a_run_come_after_its_own_on_the_same_frame():
    timeline = Timeline()
    for frame, obj_id in ((3, 8), (5, 2)):
        timeline.add(frame, {obj_id: CLICK})
    timeline.open(shown({3: {1: CLICK}, 4: {6: CLICK}}))
    assert timeline.given and timeline.frames == [3, 4, 5] and timeline.ids == {1, 2, 6, 8}
    assert [due(timeline, frame) for frame in range(6)] == [[], [], [], [1, 8], [6], [2]]
    assert not timeline.frames and not timeline.ids


def test_frames_that_were_passed_over_give_their_prompts_in_the_order_of_the_walk():
    plan = {frame: {frame: CLICK} for frame in (1, 4, 6, 9)}
    forwards, backwards = shown(plan), shown(plan)
    assert [due(forwards, 5), due(forwards, 9)] == [[1, 4], [6, 9]]
    assert [due(backwards, 7, True), due(backwards, 4, True), due(backwards, 0, True)] == [[9], [6, 4], [1]]


def test_an_object_that_is_taken_back_leaves_the_others_of_its_frame():
    timeline = shown({2: {1: CLICK, 5: CLICK}, 3: {1: CLICK}})
    assert timeline.forget(1) and not timeline.forget(1) and timeline.ids == {5}
    assert timeline.frames == [2] and due(timeline, 9) == [5]
    timeline = shown({2: {1: CLICK}})
    timeline.forget(None)
    assert not timeline.frames and timeline.given


def test_objects_that_came_one_by_one_are_those_of_a_picture_again():
    plan = {0: {4: {"points": [5, 6], "cls": 2}, -1: {"bboxes": [1, 2, 30, 40], "cls": 7}}}
    whole = together(shown(plan).due(0, False, SHAPE))
    assert whole.ids == (4, -1) and whole.cls == (2, 7) and len(whole) == 2
    plan[0][-1].pop("cls")
    assert together(shown(plan).due(0, False, SHAPE)).cls is None


@pytest.mark.parametrize("ahead", [{}, {"prompts": {0: {4: {"bboxes": BOX}}, 2: {7: {"points": [20, 20]}}}}])
def test_a_run_takes_what_it_was_given_and_what_a_callback_added_for_the_same_frame(nano_file, ahead):
    network, frames = load_model(nano_file), film()[:4]
    worker = predictor_of(network)
    worker.add_callback("on_predict_start", lambda made: made.add_new_prompts(9, bboxes=OTHER, frame_idx=2))
    said = ahead or {"bboxes": [BOX], "obj_ids": [4]}
    plan = {0: {4: {"bboxes": BOX}}, 2: {**ahead.get("prompts", {}).get(2, {}), 9: {"bboxes": OTHER}}}
    results = list(worker(source=frames, stream=True, keep_lost=True, **said))
    assert results[3].obj_ids == ((4, 7, 9) if ahead else (4, 9))
    assert alike(results, follow(network, frames, prompts=plan, keep_lost=True))
