"""Following objects through videos and streams, in Ultralytics' loop."""

import http.server
import threading

import cv2
import numpy as np
import pytest
import torch
from conftest import draw
from test_sources import write_video
from ultralytics.data.loaders import LoadStreams, SourceTypes

from samplug.checkpoints import load_model
from samplug.masks import boxes_of
from samplug.predict.following import settle_rivals
from samplug.predict.video import POLICIES, SAM2VideoPredictor
from samplug.prompts import PromptError
from samplug.view import View

BOX, OTHER = [30, 20, 70, 60], [80, 40, 120, 90]
EVENTS = ("start", "batch_start", "postprocess_end", "batch_end", "end")


@pytest.fixture(scope="module")
def network(nano_file):
    return load_model(nano_file)


@pytest.fixture(scope="module")
def frames():
    """Eight frames of a scene that moves, (96, 128, 3)."""
    return [np.roll(draw(96, 128, 1), (2 * i, 3 * i), (0, 1)) for i in range(8)]


def predictor_of(network, _callbacks=None, **overrides):
    overrides = {"imgsz": 128, "verbose": False, "save": False, **overrides}
    made = SAM2VideoPredictor(overrides=overrides, _callbacks=_callbacks)
    made.setup_model(network, verbose=False)
    made.non_overlap_masks = False
    made.options["logits"] = True
    return made


def follow(network, source, overrides=None, **said):
    return predictor_of(network, **(overrides or {}))(source=source, stream=True, **said)


def rows(result):
    """Each object's logits."""
    return dict(zip(result.obj_ids, result.logits, strict=True))


def alike(results, others):
    """Whether results hold the same ids, logits, masks and boxes, bit by bit."""
    pairs = list(zip(list(results), list(others), strict=True))
    return all(
        a.obj_ids == b.obj_ids
        and torch.equal(a.logits, b.logits)
        and torch.equal(a.masks.data, b.masks.data)
        and torch.equal(a.boxes.data, b.boxes.data)
        for a, b in pairs
    )


def close(results, others):
    """Whether results hold the same ids and logits, but for the order in which sums are taken."""
    pairs = list(zip(list(results), list(others), strict=True))
    return all(a.obj_ids == b.obj_ids and torch.allclose(a.logits, b.logits, atol=1e-3) for a, b in pairs)


class Counter:
    """Counts the encoder's calls."""

    def __init__(self, network):
        self.calls = 0
        self.hook = network.image_encoder.register_forward_hook(self.count)

    def count(self, *_):
        self.calls += 1


# ------------------------------------------------------------------ results


def test_rows_carry_the_ids_classes_and_names_that_were_given(network, frames):
    said = {"obj_ids": [7, -3], "cls": [2, 5], "names": {2: "cat", 5: "dog"}}
    for i, result in enumerate(follow(network, frames[:3], bboxes=[BOX, OTHER], **said)):
        assert result.frame == i and result.boxes.is_track and result.names == {2: "cat", 5: "dog"}
        assert result.obj_ids == tuple(result.boxes.id.int().tolist()) == (7, -3)
        assert result.boxes.cls.tolist() == [2, 5]
        assert torch.equal(result.boxes.xyxy, boxes_of(result.masks.data))
        assert result.masks.data.shape == (2, 96, 128)
        sure = result.presence.sigmoid() * result.iou
        assert torch.allclose(result.boxes.conf, sure) and (sure > 0).all() and (sure < 1).all()


def test_without_ids_objects_count_from_zero_and_are_their_own_class(network, frames):
    (result,) = follow(network, frames[:1], points=[[50, 40], [100, 60]])
    assert result.obj_ids == (0, 1) and result.boxes.cls.tolist() == [0, 1] and result.names == {0: "0", 1: "1"}


def test_a_given_mask_is_the_answer_on_its_frame(network, frames):
    mask = np.zeros((96, 128), bool)
    mask[20:60, 30:90] = True
    result = next(follow(network, frames[:1], masks=mask))
    found = result.masks.data[0].numpy()
    assert (found & mask).sum() / (found | mask).sum() > 0.98
    assert result.boxes.conf[0] > 0.999


def test_lost_objects_are_left_out_or_kept_empty(network, frames):
    empty = np.zeros((96, 128), bool)
    said = {"prompts": {0: {1: {"bboxes": BOX}, 2: {"masks": empty}}}}
    (result,) = follow(network, frames[:1], **said)
    assert result.obj_ids == (1,) and len(result.boxes) == len(result.masks) == 1
    (result,) = follow(network, frames[:1], keep_lost=True, **said)
    assert result.obj_ids == (1, 2) and not result.masks.data[1].any()
    assert result.boxes.data[1, :4].tolist() == [0, 0, 0, 0] and result.boxes.conf[1] < 1e-3
    (result,) = follow(network, frames[:1], {"conf": 0.999}, keep_lost=True, **said)
    assert result.obj_ids == ()
    (result,) = follow(network, frames[:1], {"classes": [2]}, keep_lost=True, **said)
    assert result.obj_ids == (2,)


def test_each_pixel_belongs_to_one_object_unless_asked_otherwise(network, frames):
    said = {"bboxes": [BOX, [40, 25, 100, 70]]}
    both = [next(follow(network, frames[:1], non_overlap=apart, **said)).masks.data for apart in (True, False)]
    apart, over = both
    assert (over.sum(0) > 1).any() and not (apart.sum(0) > 1).any()
    assert torch.equal(apart.any(0), over.any(0))


def test_a_shared_pixel_goes_to_the_highest_logit():
    view = View((60, 80), (64, 64))
    logits = torch.randn(3, 16, 16).cumsum(1)
    from samplug.masks import logits_at_picture

    values = logits_at_picture(logits, view)
    masks = values > 0
    settle_rivals(masks, logits, view)
    owner = values.argmax(0)
    assert torch.equal(masks, torch.stack([(values[i] > 0) & (owner == i) for i in range(3)]))


# ------------------------------------------------------------------ the encoder


def test_a_frame_is_encoded_once_whatever_the_number_of_objects(network, frames):
    counter = Counter(network)
    worker = predictor_of(network)
    for result in worker(source=frames[:4], stream=True, prompts={0: {1: {"bboxes": BOX}}, 2: {2: {"bboxes": OTHER}}}):
        if result.frame == 1:
            worker.add_new_prompts(3, points=[[50, 50], [60, 50]], frame_idx=None)
            worker.add_new_prompts(1, points=[50, 40], labels=[0], frame_idx=None)
    counter.hook.remove()
    assert counter.calls == 4 and result.obj_ids[:1] == (1,)


def test_features_for_pictures_repeat_for_a_batch(network):
    worker = predictor_of(network)
    im = torch.randn(1, 3, 128, 128)
    one, three = worker.get_im_features(im), worker.get_im_features(im, batch=3)
    assert torch.equal(three["image_embed"], one["image_embed"].expand(3, -1, -1, -1))
    assert torch.equal(one["image_embed"], network.encode(im).image)


def test_prompted_frames_are_remembered_as_0_and_1_also_with_a_ready_network(nano_file, network, frames):
    assert not network.binarize_mask_from_pts_for_mem_enc
    overrides = {"imgsz": 128, "verbose": False, "save": False, "model": str(nano_file), "logits": True}
    loaded = SAM2VideoPredictor(overrides=overrides)
    loaded.non_overlap_masks = False
    assert loaded.get_model().binarize_mask_from_pts_for_mem_enc
    said = {"source": frames[:3], "stream": True, "bboxes": [BOX]}
    assert alike(loaded(**said), predictor_of(network)(**said))
    assert not network.binarize_mask_from_pts_for_mem_enc


# ------------------------------------------------------------------ prompts at any time


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
            with pytest.raises(PromptError, match="frame 0 went by"):
                worker.add_new_prompts(3, bboxes=OTHER)


def test_prompts_outside_the_picture_or_of_two_kinds_are_refused_and_change_nothing(network, frames):
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
            assert worker.results[0].obj_ids == (1,)
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


# ------------------------------------------------------------------ sources


def test_every_video_of_a_folder_starts_clean(network, frames, tmp_path):
    first, second = frames[:3], [frame[:, ::-1] for frame in frames[3:6]]
    write_video(tmp_path / "a.avi", first)
    write_video(tmp_path / "b.avi", second)
    together = list(follow(network, str(tmp_path), bboxes=[BOX]))
    assert [result.frame for result in together] == [0, 1, 2, 0, 1, 2]
    assert alike(together[:3], follow(network, first, bboxes=[BOX]))
    assert alike(together[3:], follow(network, second, bboxes=[BOX]))
    named = list(follow(network, str(tmp_path), prompts={"b.avi": {"bboxes": [OTHER], "obj_ids": [8]}}))
    assert [result.obj_ids for result in named[:3]] == [(), (), ()]
    assert alike(named[3:], follow(network, second, bboxes=[OTHER], obj_ids=[8]))


def test_a_stride_reports_true_frame_numbers(network, frames, tmp_path):
    video = write_video(tmp_path / "clip.avi", frames)
    overrides = {"vid_stride": 3, "save_txt": True, "project": str(tmp_path), "name": "out"}
    results = list(follow(network, video, overrides, bboxes=[BOX]))
    assert [result.frame for result in results] == [2, 5]
    assert alike(results, follow(network, [frames[2], frames[5]], bboxes=[BOX]))
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["clip_3.txt", "clip_6.txt"]


def test_backwards_equals_the_frames_in_reverse_order(network, frames, tmp_path):
    video = write_video(tmp_path / "clip.avi", frames[:4])
    back = list(follow(network, video, reverse=True, bboxes=[BOX]))
    assert [result.frame for result in back] == [3, 2, 1, 0]
    assert close(back, follow(network, frames[3::-1], bboxes=[BOX]))


def test_both_ways_begin_at_the_first_prompt_given_by_frame(network, frames):
    results = list(follow(network, frames[:5], reverse="both", prompts={2: {1: {"bboxes": BOX}}}))
    assert [result.frame for result in results] == [2, 3, 4, 1, 0]
    assert alike(results[:3], follow(network, frames[2:5], bboxes=[BOX], obj_ids=[1]))
    assert close(results[3:], list(follow(network, frames[2::-1], bboxes=[BOX], obj_ids=[1]))[1:])
    with pytest.raises(ValueError, match="reverse='sideways'"):
        next(follow(network, frames, reverse="sideways", bboxes=[BOX]))


def test_a_folder_of_frames_is_saved_as_one_video_with_ids(network, frames, tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    for i, frame in enumerate(frames[:3]):
        cv2.imwrite(str(folder / f"{i + 8}.png"), frame)
    overrides = {"save": True, "save_txt": True, "save_frames": True, "project": str(tmp_path), "name": "out"}
    results = list(follow(network, folder, overrides, bboxes=[BOX], obj_ids=[6]))
    assert [result.path for result in results] == [str(folder / f"{i}.png") for i in (8, 9, 10)]
    (saved,) = (path for path in (tmp_path / "out").iterdir() if path.is_file())
    capture = cv2.VideoCapture(str(saved))
    assert [capture.grab() for _ in range(4)] == [True, True, True, False]
    lines = (tmp_path / "out/labels/shots_1.txt").read_text().split()
    assert lines[0] == lines[-1] == "6"
    assert len(list((tmp_path / "out/labels").iterdir())) == len(list((tmp_path / "out/shots_frames").iterdir())) == 3


def test_the_five_callbacks_fire_and_stay_as_they_were(network, frames):
    from ultralytics.utils.callbacks import get_default_callbacks

    seen, callbacks = [], get_default_callbacks()
    for event in EVENTS:
        callbacks[f"on_predict_{event}"].append(lambda predictor, event=event: seen.append(event))
    worker = predictor_of(network, callbacks)
    before = {event: list(functions) for event, functions in worker.callbacks.items()}
    list(worker(source=frames[:2], stream=True, bboxes=[BOX]))
    each = ["batch_start", "postprocess_end", "batch_end"]
    assert seen == ["start", *each, *each, "end"]
    assert worker.callbacks is callbacks and {e: list(f) for e, f in callbacks.items()} == before


def test_ultralytics_trackers_left_behind_do_not_touch_the_ids(network, frames):
    from ultralytics.trackers import register_tracker

    worker = predictor_of(network)
    register_tracker(worker, persist=False)
    assert [result.obj_ids for result in worker(source=frames[:2], stream=True, bboxes=[BOX], obj_ids=[7])] == [
        (7,)
    ] * 2


def test_a_run_begins_anew_after_another_and_after_one_that_broke_off(network, frames):
    worker = predictor_of(network)
    plain = list(worker(source=frames[:3], stream=True, bboxes=[BOX]))
    broken = worker(source=frames[3:6], stream=True, bboxes=[OTHER], obj_ids=[5])
    next(broken)
    broken.close()
    assert alike(worker(source=frames[:3], stream=True, bboxes=[BOX]), plain)


def test_two_runs_in_turn_equal_two_runs(network, frames):
    alone = [list(follow(network, part, bboxes=[BOX])) for part in (frames[:3], frames[3:6])]
    turns = zip(*(follow(network, part, bboxes=[BOX]) for part in (frames[:3], frames[3:6])), strict=True)
    mixed = list(zip(*turns, strict=True))
    assert alike(mixed[0], alone[0]) and alike(mixed[1], alone[1])


# ------------------------------------------------------------------ streams


class Cameras(LoadStreams):
    """Streams from lists of frames, as Ultralytics hands them out."""

    def __init__(self, *films):
        self.films, self.bs, self.count, self.mode = films, len(films), -1, "stream"
        self.sources = [f"camera{i}" for i in range(self.bs)]
        self.fps, self.frames = [30] * self.bs, [0] * self.bs
        self.source_type = SourceTypes(stream=True)
        self.threads, self.caps = [], []

    def __next__(self):
        self.count += 1
        if self.count >= len(self.films[0]):
            raise StopIteration
        return self.sources, [film[self.count] for film in self.films], [""] * self.bs


def test_streams_side_by_side_equal_each_by_itself(network, frames):
    films = [frames[:3], [frame[::-1, :100] for frame in frames[:3]]]
    prompts = [{"bboxes": [BOX], "obj_ids": [4]}, {0: {9: {"points": [50, 40]}}}]
    results = list(follow(network, Cameras(*films), prompts=prompts))
    assert [result.frame for result in results] == [0, 0, 1, 1, 2, 2]
    assert alike(results[::2], follow(network, films[0], bboxes=[BOX], obj_ids=[4]))
    assert alike(results[1::2], follow(network, films[1], points=[50, 40], obj_ids=[9]))


def test_one_of_several_streams_is_named(network, frames):
    worker = predictor_of(network)
    for result in worker(source=Cameras(frames[:2], frames[2:4]), stream=True, bboxes=[BOX]):
        if result.frame == 0 and result.path == "camera1":
            with pytest.raises(ValueError, match="2 streams are running"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=None)
            worker.add_new_prompts(3, bboxes=OTHER, frame_idx=None, stream=1)
            assert [each.obj_ids for each in worker.results] == [(0,), (0, 3)]
            with pytest.raises(PromptError, match="cannot go back"):
                worker.add_new_prompts(3, bboxes=OTHER, frame_idx=-1, stream=0)
            with pytest.raises(ValueError, match="no stream 2"):
                worker.remove_object(3, stream=2)
    assert [each.obj_ids for each in worker.results] == [(0,), (0, 3)]


def test_black_frames_of_a_lost_signal_never_enter_memory(network, frames):
    black = np.zeros_like(frames[0])
    film = [black, frames[0], frames[1], black, black, frames[2], frames[3]]
    results = list(follow(network, Cameras(film), bboxes=[BOX], keep_lost=True))
    assert [len(result.boxes) for result in results] == [0, 1, 1, 1, 1, 1, 1]
    assert not results[3].masks.data.any() and results[3].boxes.conf[0] < 1e-3
    shown = [result for result, frame in zip(results, film, strict=True) if frame.any()]
    assert alike(shown, follow(network, frames[:4], bboxes=[BOX]))


def test_a_stream_over_http_is_followed(network, frames):
    jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for jpeg in jpegs:
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = f"http://127.0.0.1:{server.server_port}/stream"
    try:
        running = follow(network, source, {"stream_buffer": True}, bboxes=[BOX], obj_ids=[5])
        results = [next(running) for _ in range(3)]
        running.close()
    finally:
        server.shutdown()
        server.server_close()
    decoded = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs[:3]]
    assert [result.frame for result in results] == [0, 1, 2] and results[2].obj_ids == (5,)
    assert all(np.abs(r.orig_img.astype(int) - d).mean() < 3 for r, d in zip(results, decoded, strict=True))
