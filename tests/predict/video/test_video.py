"""Following objects through videos and streams, in Ultralytics' loop."""

import cv2
import numpy as np
import pytest
import torch
from support.images import logits_at_image
from support.videos import BOX, OTHER, alike, close, film, follow, predictor_of, write_video

from samplug.masks.boxes import mask_boxes
from samplug.masks.exclusive import resolve_overlaps
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.transforms import ImageTransform

EVENTS = ("start", "batch_start", "postprocess_end", "batch_end", "end")


@pytest.fixture(scope="module")
def frames():
    return film()


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
        assert torch.equal(result.boxes.xyxy, mask_boxes(result.masks.data))
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
    transform = ImageTransform((60, 80), (64, 64))
    logits = torch.randn(3, 16, 16).cumsum(1)
    values = logits_at_image(logits, transform)
    masks = values > 0
    masks = resolve_overlaps(masks, logits, torch.ones(3), transform)
    image_index = values.argmax(0)
    assert torch.equal(masks, torch.stack([(values[i] > 0) & (image_index == i) for i in range(3)]))


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


def test_features_for_images_repeat_for_a_batch(network):
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


# ------------------------------------------------------------------ sources


def test_every_video_of_a_folder_starts_clean(network, frames, tmp_path, capture_log):
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
    (line,) = [line for line in capture_log if "no entry" in line]
    assert line.endswith("prompts: no entry, and so no rows, for a.avi.")


def test_a_stride_reports_true_frame_numbers(network, frames, tmp_path):
    video = write_video(tmp_path / "clip.avi", frames)
    overrides = {"vid_stride": 3, "save_txt": True, "project": str(tmp_path), "name": "out"}
    results = list(follow(network, video, overrides, bboxes=[BOX]))
    assert [result.frame for result in results] == [2, 5]
    assert alike(results, follow(network, [frames[2], frames[5]], bboxes=[BOX]))
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["clip_2.txt", "clip_5.txt"]


def test_backwards_equals_the_frames_in_reverse_order(network, frames, tmp_path):
    video = write_video(tmp_path / "clip.avi", frames[:4])
    back = list(follow(network, video, reverse=True, bboxes=[BOX]))
    assert [result.frame for result in back] == [3, 2, 1, 0]
    assert close(back, follow(network, frames[3::-1], bboxes=[BOX]))


def test_both_ways_begin_at_the_first_prompt_given_by_frame(network, frames):
    results = list(follow(network, frames[:5], reverse="both", prompts={2: {1: {"bboxes": BOX}}}))
    assert [result.frame for result in results] == [0, 1, 2, 3, 4]
    assert alike(results[2:], follow(network, frames[2:5], bboxes=[BOX], obj_ids=[1]))
    assert close(results[1::-1], list(follow(network, frames[2::-1], bboxes=[BOX], obj_ids=[1]))[1:])
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
    lines = (tmp_path / "out/labels/shots_0.txt").read_text().split()
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
    pytest.importorskip("lap")  # what Ultralytics' trackers match with, an extra
    from ultralytics.trackers import register_tracker

    worker = predictor_of(network)
    register_tracker(worker, persist=False)
    results = list(worker(source=frames[:2], stream=True, bboxes=[BOX], obj_ids=[7]))
    assert [result.obj_ids for result in results] == [(7,), (7,)] and not hasattr(worker, "trackers")


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


def test_ids_that_ultralytics_cannot_count_get_classes_that_it_can(network, frames, capture_log):
    ids = [-3, 2**40]
    results = list(follow(network, frames[:2], {"verbose": True}, bboxes=[BOX, OTHER], obj_ids=ids, keep_lost=True))
    assert results[1].obj_ids == tuple(ids) and results[1].boxes.cls.tolist() == [131069, 65536]
    assert results[1].names == {131069: "-3", 65536: str(2**40)} and "2 objects" in " ".join(capture_log)
