"""Prompts on any frame of a video: ahead, from a callback, between two results; objects removed and forgotten."""

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, alike, film, follow, predictor_of, rows

from samplug import SAM2VideoPredictor
from samplug.errors import PromptError
from samplug.tracking import POLICIES, Tracker


@pytest.fixture(scope="module")
def frames():
    return film()


def test_prompts_given_ahead_wait_for_their_frame(network, frames):
    alone = list(follow(network, frames[:5], bboxes=[BOX], obj_ids=[4]))
    ahead = {0: {4: {"bboxes": BOX}}, 2: {9: {"points": [[100, 60], [110, 70]], "labels": [1, 1], "cls": 3}}}
    both = list(follow(network, frames[:5], prompts=ahead))
    assert [9 in rows(result) for result in both] == [False, False, True, True, True]
    for a, b in zip(alone, both, strict=True):
        assert torch.equal(rows(a)[4], rows(b)[4])  # who comes later leaves the others as they are
    assert both[2].boxes.cls.tolist() == [4, 3]


def test_a_prompt_between_two_results_equals_one_given_ahead(network, frames):
    ahead = list(follow(network, frames[:5], prompts={0: {4: {"bboxes": BOX}}, 2: {9: {"bboxes": OTHER}}}))
    worker, live = predictor_of(network), []
    for result in worker(source=iter(frames[:5]), stream=True, bboxes=[BOX], obj_ids=[4]):
        if result.frame == 2:
            logits, scores = worker.add_new_prompts(9, bboxes=OTHER, frame_idx=None)
            assert logits.shape == (1, 32, 32) and torch.allclose(scores, ahead[2].boxes.conf[1:])
            assert result.obj_ids == (4,)
            result = worker.results[0]
        live.append(result)
    assert alike(ahead, live)


def test_a_prompt_from_a_callback_shows_in_the_result_itself(network, frames):
    ahead = list(follow(network, frames[:3], prompts={0: {4: {"bboxes": BOX}}, 1: {9: {"bboxes": OTHER}}}))
    worker = predictor_of(network)

    def prompt(predictor):
        if predictor.results[0].frame == 1:
            predictor.add_new_prompts(9, bboxes=[OTHER], frame_idx=1)

    worker.add_callback("on_predict_postprocess_end", prompt)
    assert alike(worker(source=frames[:3], stream=True, bboxes=[BOX], obj_ids=[4]), ahead)


def test_a_run_may_begin_with_the_prompts_of_a_callback(network, frames):
    worker = predictor_of(network)
    worker.add_callback("on_predict_start", lambda predictor: predictor.add_new_prompts(5, bboxes=BOX))
    assert alike(worker(source=frames[:2], stream=True), follow(network, frames[:2], bboxes=[BOX], obj_ids=[5]))


def test_a_correction_changes_the_frame_and_those_after_it(network, frames):
    plain = list(follow(network, frames[:4], bboxes=[BOX]))
    worker, corrected = predictor_of(network), []
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX]):
        if result.frame == 2:
            worker.add_new_prompts(0, points=[[20, 80]], labels=[1], frame_idx=None)
            assert not torch.equal(worker.results[0].logits, result.logits)
        corrected.append(result)
    assert alike(plain[:3], corrected[:3]) and not alike(plain[3:], corrected[3:])


def test_a_correction_goes_where_it_points():
    """The bundled model on two plain discs: an object that was one of them is told that it is the other."""
    image = np.full((192, 256, 3), 60, np.uint8)
    cv2.circle(image, (70, 90), 30, (40, 200, 220), -1)
    cv2.circle(image, (190, 100), 28, (220, 60, 40), -1)
    other = cv2.circle(np.zeros((192, 256), np.uint8), (190, 100), 28, 1, -1)
    worker = SAM2VideoPredictor(overrides={"imgsz": 256, "verbose": False, "save": False})
    said = {"bboxes": [[39, 59, 101, 121]], "keep_lost": True}
    seen = []
    for result in worker(source=[image] * 4, stream=True, **said):
        if result.frame == 1:
            worker.add_new_prompts(0, masks=other)
            result = worker.results[0]
        (mask,) = result.masks.data
        seen.append((bool(mask[90, 70]), bool(mask[100, 190])))
    assert seen[:2] == [(True, False), (False, True)]


def test_an_earlier_frame_is_read_again_where_the_source_can(network, frames):
    worker = predictor_of(network)
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX], obj_ids=[4]):
        if result.frame == 2:
            logits, _ = worker.add_new_prompts(9, bboxes=OTHER, frame_idx=0)
            assert worker.results[0].obj_ids == (4, 9)
    begun = next(follow(network, frames[:1], bboxes=[OTHER], logits=True))
    assert torch.equal(logits, begun.logits) and result.obj_ids == (4, 9)
    assert torch.equal(rows(result)[4], rows(list(follow(network, frames[:4], bboxes=[BOX], obj_ids=[4]))[3])[4])


def test_a_source_that_cannot_go_back_says_so(network, frames):
    worker = predictor_of(network)
    for result in worker(source=iter(frames[:2]), stream=True, bboxes=[BOX]):
        if result.frame == 1:
            with pytest.raises(PromptError, match="frame 0 has passed"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=0)


def test_prompts_outside_the_image_or_of_two_kinds_are_refused_and_change_nothing(network, frames):
    worker = predictor_of(network)
    mask = np.zeros((96, 128), bool)
    for _ in worker(source=frames[:2], stream=True, bboxes=[BOX]):
        with pytest.raises(PromptError, match="outside"):
            worker.add_new_prompts(3, points=[500, 4], frame_idx=None)
        with pytest.raises(PromptError, match="one kind"):
            worker.add_new_prompts(3, points=[5, 4], masks=mask, frame_idx=None)
        with pytest.raises(PromptError):
            worker.add_new_prompts(3, frame_idx=None)
    assert worker.results[0].obj_ids == (0,)


def test_removing_an_object_leaves_the_others_as_they_are(network, frames):
    both = list(follow(network, frames[:4], bboxes=[BOX, OTHER]))
    worker, left = predictor_of(network), []
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX, OTHER]):
        if result.frame == 1:
            worker.remove_object(0)
            assert worker.results[0].obj_ids == (1,) and torch.equal(rows(worker.results[0])[1], rows(result)[1])
            with pytest.raises(ValueError, match="no object 0"):
                worker.remove_object(0)
        left.append(result)
    assert [0 in result.obj_ids for result in left] == [True, True, False, False]
    assert all(torch.equal(rows(a)[1], rows(b)[1]) for a, b in zip(both, left, strict=True))


@pytest.mark.parametrize("forget", ["reset", "clear_prompts", "remove_object"])
def test_a_run_goes_on_without_objects_and_takes_new_ones(network, frames, forget):
    worker, counts = predictor_of(network), []
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX]):
        if result.frame == 0:
            getattr(worker, forget)(*[0] * (forget == "remove_object"))
            assert worker.results[0].obj_ids == ()
        if result.frame == 1:
            worker.add_new_prompts(0, bboxes=BOX, frame_idx=None)
        counts.append(len(result.boxes))
    assert counts == [1, 0, 1, 1]


def test_prompts_still_to_come_can_be_taken_back(network, frames):
    worker = predictor_of(network)
    for result in worker(source=frames[:3], stream=True, prompts={0: {1: {"bboxes": BOX}}, 2: {2: {"bboxes": OTHER}}}):
        worker.clear_prompts(2) if result.frame == 1 else None
    assert result.obj_ids == (1,)
    for result in worker(source=frames[:3], stream=True, prompts={0: {1: {"bboxes": BOX}}, 2: {2: {"bboxes": OTHER}}}):
        worker.reset() if result.frame == 1 else None
    assert result.obj_ids == ()


def test_nothing_prompted_is_an_error_and_no_objects_is_not(network, frames):
    with pytest.raises(RuntimeError, match="Nothing has been prompted"):
        next(follow(network, frames))
    results = list(follow(network, frames[:2], bboxes=[]))
    assert all(len(result.boxes) == len(result.masks) == 0 and result.boxes.is_track for result in results)


def test_a_fresh_predictor_says_what_to_call_first(network):
    worker = predictor_of(network)
    for call in (
        lambda: worker.add_new_prompts(1, bboxes=BOX),
        lambda: worker.remove_object(1),
        worker.clear_prompts,
        lambda: worker.inference(torch.zeros(1, 3, 128, 128)),
        lambda: worker.setup_source(None),
    ):
        with pytest.raises(RuntimeError, match="call the predictor with a source"):
            call()
    worker.reset()
    worker.propagate_in_video_preflight()


def test_memories_can_be_made_before_the_next_frame(network, frames):
    plain = list(follow(network, frames[:3], bboxes=[BOX]))
    worker, made = predictor_of(network), []
    for result in worker(source=frames[:3], stream=True, bboxes=[BOX]):
        worker.propagate_in_video_preflight()
        made.append(result)
    assert alike(plain, made)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_named_or_given(network, frames, policy):
    named = list(follow(network, frames[:2], bboxes=[BOX], policy=policy))
    assert alike(named, follow(network, frames[:2], bboxes=[BOX], policy=POLICIES[policy]))


def test_an_unknown_policy_is_refused_with_the_names_of_those_there_are(network, frames):
    with pytest.raises(ValueError, match="'motion'"):
        next(follow(network, frames[:2], bboxes=[BOX], policy="movement"))


def test_objects_lost_for_long_expire_and_prompted_frames_are_capped(network, frames):
    worker, empty = predictor_of(network), np.zeros((96, 128), bool)
    said = {"prompts": {0: {1: {"bboxes": BOX}, 2: {"masks": empty}}}, "keep_lost": True, "expire_after": 1}
    assert [result.obj_ids for result in worker(source=frames[:2], stream=True, **said)] == [(1, 2), (1,)]
    said = {"prompts": {frame: {1: {"bboxes": BOX}} for frame in range(6)}, "max_prompted": 2}
    list(worker(source=frames[:6], stream=True, **said))
    assert worker.inference_state[0].tracker.rule.max_prompted == 2


def test_prompts_for_frames_that_never_come_are_named(network, frames, caplog):
    ahead = {0: {4: {"bboxes": BOX}}, 6: {9: {"bboxes": OTHER}}, 70: {9: {"bboxes": OTHER}}}
    list(follow(network, frames[:5], prompts=ahead))
    assert "prompts for frame 6, 70 were not used, the last frame was number 4" in caplog.text
    caplog.clear()
    list(follow(network, frames[:7], prompts={0: {4: {"bboxes": BOX}}, 6: {9: {"bboxes": OTHER}}}))
    assert "not used" not in caplog.text


@pytest.mark.parametrize("options", [{}, {"vid_stride": 3}, {"start": 4}, {"reverse": True}], ids=str)
def test_a_prompt_without_a_frame_means_the_first_before_the_run_and_the_one_just_returned_within_it(
    network, frames, options
):
    host = {name: value for name, value in options.items() if name == "vid_stride"}
    own = {name: value for name, value in options.items() if name not in host}
    worker = predictor_of(network, **host)
    worker.add_callback("on_predict_start", lambda made: made.add_new_prompts(9, bboxes=OTHER))
    seen = []
    for result in worker(source=frames, stream=True, **own):
        if len(seen) == 1:
            worker.add_new_prompts(4, bboxes=BOX)
            assert worker.results[0].obj_ids == (9, 4) and worker.results[0].frame == result.frame
        seen.append(result.obj_ids)
    assert seen[0] == (9,) and set(seen[2:]) <= {(9, 4)}


def test_an_explicit_0_is_frame_0_and_the_log_says_so(network, frames, caplog):
    seen = {}
    for number in (None, 0):
        caplog.clear()
        worker = predictor_of(network)
        for result in worker(source=frames[:4], stream=True, bboxes=[BOX]):
            if result.frame == 2:
                worker.add_new_prompts(8, bboxes=OTHER, frame_idx=number)
                seen[number] = list(worker.inference_state[0].tracker._tracks[8].prompted)
        said = "Object 8 is prompted on frame 0, an earlier one: the frame returned last is 2" in caplog.text
        assert said == (number == 0)
    assert seen == {None: [2], 0: [0]}


@pytest.mark.parametrize(
    ("options", "said", "line"),
    [
        ({"vid_stride": 3}, {"bboxes": [BOX]}, "prompts of the first frame are used on frame 2"),
        ({"vid_stride": 3}, {"prompts": {0: {1: {"bboxes": BOX}}}}, "prompts for frame 0 are used on frame 2"),
        ({"vid_stride": 3}, {"prompts": {2: {1: {"bboxes": BOX}}}}, None),
        ({}, {"bboxes": [BOX]}, None),
        ({}, {"start": 5, "prompts": {3: {1: {"bboxes": BOX}}}}, "prompts for frame 3 are used on frame 5"),
        ({"vid_stride": 2}, {"reverse": True, "start": 5, "prompts": {4: {1: {"bboxes": BOX}}}}, "on frame 3"),
    ],
)
def test_the_log_says_which_frame_takes_prompts_that_a_stride_passed_over(network, frames, caplog, options, said, line):
    list(follow(network, frames, options, **said))
    assert line in caplog.text if line else "are used on frame" not in caplog.text


@pytest.mark.parametrize("keep", [False, True])
def test_keep_corrections_makes_a_corrected_frame_a_prompted_one(network, frames, keep):
    worker = predictor_of(network)
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX], keep_corrections=keep):
        if result.frame == 2:
            worker.add_new_prompts(0, points=[[20, 80]])
    (track,) = worker.inference_state[0].tracker._tracks.values()
    assert sorted(track.prompted) == ([0, 2] if keep else [0])


@pytest.mark.parametrize("obj_id", [[0], {0}, None, "cup", 0.5])
def test_what_is_no_id_is_refused_where_objects_are_removed_or_their_prompts_cleared(network, frames, obj_id):
    worker = predictor_of(network)
    for _ in worker(source=frames[:2], stream=True, bboxes=[BOX]):
        for call in (worker.remove_object, worker.clear_prompts):
            if obj_id is not None or call == worker.remove_object:
                with pytest.raises(PromptError, match="obj_id: .* Expected"):
                    call(obj_id)
    assert worker.results[0].obj_ids == (0,)
    worker.remove_object("0")  # as JSON has it, and as it is taken where objects are prompted


def test_a_tracker_refuses_what_is_no_id(network):
    for call in (Tracker(network).remove, Tracker(network).clear_prompts):
        with pytest.raises(ValueError, match=r"There is no object \[0\]"):
            call([0])


def close_early(run):
    next(run)
    run.close()


def throw_in(run):
    next(run)
    with pytest.raises(KeyError):
        run.throw(KeyError("what the caller made of a result"))


def read_all(run):
    assert len(list(run)) == 4


@pytest.mark.parametrize(("end", "last"), [(close_early, 0), (throw_in, 0), (read_all, 3)])
def test_no_prompts_are_taken_for_frames_to_come_once_a_run_has_ended_in_whatever_way(
    network, frames, capture_log, end, last
):
    worker = predictor_of(network)
    end(worker(source=frames[:4], stream=True, prompts={0: {0: {"bboxes": BOX}}, 2: {1: {"bboxes": OTHER}}}))
    with pytest.raises(PromptError, match=f"frame 5 will not come: the run ended with frame {last}"):
        worker.add_new_prompts(9, points=[50, 60], frame_idx=5)
    assert not any("were not used" in line for line in capture_log)
    logits, _ = worker.add_new_prompts(9, points=[50, 60])
    assert len(logits) == 1 and worker.inference_state[0].prompts.ids in ({1}, set())


def test_a_run_that_ends_before_its_first_frame_takes_no_more_prompts_either(network, frames):
    worker = predictor_of(network)
    with pytest.raises(PromptError, match="outside"):
        worker(source=frames[:4], points=[[500, 4]])
    for number in (None, 2):
        with pytest.raises(PromptError, match="will not come: the run ended before its first"):
            worker.add_new_prompts(9, points=[50, 60], frame_idx=number)


def test_prompts_for_frames_of_the_next_run_wait_for_it_where_runs_go_on(network, frames):
    worker = predictor_of(network)
    worker.persist = True
    run = worker(source=frames[:4], stream=True, bboxes=[BOX])
    close_early(run)
    worker.add_new_prompts(9, bboxes=OTHER, frame_idx=2)
    assert [result.obj_ids for result in worker(source=frames[1:4])] == [(0,), (0, 9), (0, 9)]


def test_a_run_that_goes_on_after_one_that_did_not_takes_prompts_again(network, frames):
    worker = predictor_of(network)
    worker(source=frames[:1], bboxes=[BOX])
    worker.persist = True
    for result in worker(source=frames[1:4], stream=True):
        if result.frame == 1:
            worker.add_new_prompts(9, bboxes=OTHER, frame_idx=3)
    assert result.obj_ids == (0, 9)


def test_a_second_run_that_is_refused_does_not_end_the_open_one(network, frames):
    worker = predictor_of(network)
    for result in worker(source=frames[:4], stream=True, bboxes=[BOX]):
        if result.frame == 0:
            with pytest.raises(RuntimeError, match="in use"):
                worker(source=frames[:1], bboxes=[BOX])
            worker.add_new_prompts(9, bboxes=OTHER, frame_idx=2)
    assert result.obj_ids == (0, 9)
