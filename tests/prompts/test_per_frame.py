"""Prompts that wait for their frame: those of a run, those added before it and during it, and those taken back."""

import pytest
from support.videos import BOX, OTHER, alike, film, follow, predictor_of

from samplug.checkpoints.load import load_model
from samplug.errors import PromptError
from samplug.prompts.per_frame import FramePrompts, VideoPrompts, join_objects, read_object
from samplug.prompts.raw import RawPrompts

SHAPE = (60, 80)
CLICK = {"points": [5, 6]}


def shown(prompts):
    return VideoPrompts(RawPrompts(prompts=prompts), 1).for_video(0, "a.mp4")


def due(timeline, frame, backwards=False):
    """Whose turn has come."""
    return [one.ids[0] for one in timeline.pop(frame, backwards, SHAPE)]


def test_prompts_added_before_a_run_come_after_its_own_on_the_same_frame():
    timeline = FramePrompts()
    for frame, obj_id in ((3, 8), (5, 2)):
        timeline.add(frame, {obj_id: CLICK})
    timeline.start_run(shown({3: {1: CLICK}, 4: {6: CLICK}}))
    assert timeline.given and timeline.frames == [3, 4, 5] and timeline.ids == {1, 2, 6, 8}
    assert [due(timeline, frame) for frame in range(6)] == [[], [], [], [1, 8], [6], [2]]
    assert not timeline.frames and not timeline.ids


def test_frames_that_were_passed_over_give_their_prompts_in_the_order_of_the_walk():
    plan = {frame: {frame: CLICK} for frame in (1, 4, 6, 9)}
    forwards, backwards = shown(plan), shown(plan)
    assert [due(forwards, 5), due(forwards, 9)] == [[1, 4], [6, 9]]
    assert [due(backwards, 7, True), due(backwards, 4, True), due(backwards, 0, True)] == [[9], [6, 4], [1]]


@pytest.mark.parametrize("argument", ["points", "bboxes", "labels", "cls", "masks"])
def test_prompts_of_an_object_that_contain_themselves_are_refused(argument):
    endless = []
    endless.append(endless)
    with pytest.raises(PromptError):
        read_object(7, {"points": [5, 6], argument: endless}, SHAPE)
    with pytest.raises(PromptError, match="obj_id"):
        read_object(endless, CLICK, SHAPE)


def test_an_object_that_is_taken_back_leaves_the_others_of_its_frame():
    timeline = shown({2: {1: CLICK, 5: CLICK}, 3: {1: CLICK}})
    assert timeline.forget(1) and not timeline.forget(1) and timeline.ids == {5}
    assert timeline.frames == [2] and due(timeline, 9) == [5]
    timeline = shown({2: {1: CLICK}})
    timeline.forget(None)
    assert not timeline.frames and timeline.given


def test_objects_that_came_one_by_one_are_those_of_an_image_again():
    plan = {0: {4: {"points": [5, 6], "cls": 2}, -1: {"bboxes": [1, 2, 30, 40], "cls": 7}}}
    whole = join_objects(shown(plan).pop(0, False, SHAPE))
    assert whole.ids == (4, -1) and whole.cls == (2, 7) and len(whole) == 2
    plan[0][-1].pop("cls")
    assert join_objects(shown(plan).pop(0, False, SHAPE)).cls is None


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
