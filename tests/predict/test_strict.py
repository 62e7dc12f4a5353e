"""Slips in a run: named in the log, errors with `strict=True`, and broken inputs are the policy's."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import json

import cv2
import numpy as np
import pytest
from support.images import bomb, model, noise, predict  # noqa: F401
from support.videos import BOX, film, follow, predictor_of

from samplug import SAM2CameraPredictor, SAM2DynamicInteractivePredictor
from samplug.errors import PromptError, SourceError

CLICK = {"points": [[5, 5]]}


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise())
    return tmp_path


def by_file(folder, prompts, written):
    if written:
        (folder / "prompts.json").write_text(json.dumps(prompts))
    return str(folder / "prompts.json") if written else prompts


@pytest.mark.parametrize("written", [False, True], ids=["dict", "JSON"])
@pytest.mark.parametrize(
    ("key", "hint"), [("a", "'a.png'"), (None, ""), ("A.png", "'a.png'"), ("zzz", "a.png"), ("x/b.png", "b")]
)
def test_prompts_by_file_that_match_no_file_are_named(predict, folder, capture_log, written, key, hint):
    prompts = by_file(folder, {key: CLICK, "b.png": CLICK}, written)
    assert [len(result) for result in predict(str(folder / "*.png"), prompts=prompts)] == [0, 1]
    lines = [line for line in capture_log if "none of the source's files" in line]
    assert len(lines) == 1 and ("null" if written and key is None else str(key)) in lines[0] and hint in lines[0]
    with pytest.raises(PromptError, match="none of the source's files"):
        predict(str(folder / "*.png"), prompts=prompts, strict=True)


@pytest.mark.parametrize("written", [False, True], ids=["dict", "JSON"])
def test_images_that_prompts_by_file_do_not_name_are_named(predict, folder, capture_log, written):
    prompts = by_file(folder, {"b.png": CLICK}, written)
    assert [len(result) for result in predict(str(folder / "*.png"), prompts=prompts, strict=True)] == [0, 1]
    (line,) = [line for line in capture_log if "no entry" in line]
    assert line.endswith("prompts: no entry, and so no rows, for a.png.")


def test_prompts_without_an_entry_are_named_and_a_file_of_null_is_refused(predict, folder, capture_log):
    predict(noise(), prompts={}, points_stride=2)
    assert sum("everything is segmented" in line for line in capture_log) == 1
    with pytest.raises(PromptError, match="strict"):
        predict(noise(), prompts={}, points_stride=2, strict=True)
    (folder / "null.json").write_text("null")
    with pytest.raises(PromptError, match="holds null"):
        predict(noise(), prompts=str(folder / "null.json"))


SLIPS = {
    "clicks in 0-1": {"points": [[[0.4, 0.2], [0.5, 0.5]]]},
    "a box in 0-1": {"bboxes": [[0.1, 0.2, 0.5, 0.5]]},
    "width and height": {"bboxes": [[40, 20, 10, 30]]},
    "a mask of another shape": {"masks": np.ones((40, 20), bool)},
}


@pytest.mark.parametrize("host", [{"max_det": 1}, {"agnostic_nms": True}, {"dnn": True}], ids=str)
def test_an_option_of_ultralytics_without_effect_is_named_and_an_error_if_strict(predict, capture_log, host):
    (name,) = host
    assert len(predict([noise(), noise(50, 40)], batch=1, **CLICK, **host)) == 2
    assert sum(f"{name}: without effect" in line for line in capture_log) == 1
    with pytest.raises(ValueError, match=rf"{name}: without effect.*\(strict=True\)"):
        predict(noise(), strict=True, **CLICK, **host)


OF_VIDEOS = {
    "reverse": "both",
    "start": 3,
    "keep_lost": True,
    "keep_corrections": True,
    "expire_after": 2,
    "policy": "motion",
}


@pytest.mark.parametrize("name", OF_VIDEOS)
def test_an_option_of_what_is_followed_is_named_where_nothing_is(predict, capture_log, name):
    given = {name: OF_VIDEOS[name]}
    assert len(predict([noise(), noise(50, 40)], batch=1, **CLICK, **given)) == 2
    assert sum(f"{name}=" in line and "without effect" in line for line in capture_log) == 1
    with pytest.raises(ValueError, match=rf"{name}=.*without effect.*\(strict=True\)"):
        predict(noise(), strict=True, **CLICK, **given)


def test_tiles_are_named_where_memory_follows_what_is_prompted(network, capture_log):
    assert len(list(follow(network, film()[:2], bboxes=[BOX], tile=64))) == 2
    assert any("tile=: without effect" in line for line in capture_log)
    with pytest.raises(ValueError, match="tile=: without effect"):
        list(follow(network, film()[:2], bboxes=[BOX], tile=64, strict=True))


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_named_once_for_many_images_and_an_error_if_strict(predict, folder, capture_log, name):
    predict(str(folder / "*.png"), **SLIPS[name])
    first = len(capture_log)
    with pytest.raises(ValueError, match=r"\(strict=True\)") as caught:
        predict(str(folder / "*.png"), strict=True, **SLIPS[name])
    reason = str(caught.value).removesuffix(" (strict=True)")
    assert sum(reason in line for line in capture_log[:first]) == 1


def test_a_strict_run_skips_nothing_unless_that_was_asked(predict, folder):
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(SourceError, match="b.png"):
        predict(str(folder / "*.png"), strict=True, **CLICK)
    assert len(predict(str(folder / "*.png"), strict=True, on_error="skip", **CLICK)) == 1
    assert len(predict(str(folder / "a.png"), strict=True, **CLICK)) == 1


BROKEN = {
    "zero.png": b"",
    "cut.npy": b"\x93NUMPY\x01\0",
    "bomb.png": bomb(60_000, 60_000),
    "eps.png": b"%!PS-Adobe-3.0",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mask_file_is_skipped_with_its_image_or_ends_the_run(predict, folder, name):
    (folder / name).write_bytes(BROKEN[name])
    prompts = [CLICK, {"masks": str(folder / name)}]
    assert len(predict([noise(), noise()], prompts=prompts, on_error="skip")) == 1
    with pytest.raises(PromptError, match=name):
        predict([noise(), noise()], prompts=prompts, on_error="raise")


def test_prompts_past_the_end_of_a_video_are_named_and_strictly_an_error(network, capture_log):
    prompts = {0: {3: {"bboxes": BOX}}, 99: {4: {"bboxes": BOX}}}
    assert len(list(follow(network, film()[:3], prompts=prompts))) == 3
    assert any("prompts for frame 99 were not used" in line for line in capture_log)
    with pytest.raises(PromptError, match="frame 99"):
        list(follow(network, film()[:3], prompts=prompts, strict=True))


def test_prompts_of_a_frame_that_is_not_run_are_named(network, capture_log):
    prompts = {0: {3: {"bboxes": BOX}}, 2: {4: {"bboxes": BOX}}}
    assert len(list(follow(network, film()[:4], overrides={"vid_stride": 2}, prompts=prompts))) == 2
    assert any("prompts for frame 2 are used on frame 3" in line for line in capture_log)


@pytest.mark.parametrize("frame", [-1, -5, 3.5, "1.5", float("nan"), True, [1]])
def test_a_frame_index_is_a_whole_number_from_0(network, frame):
    predictor = predictor_of(network)
    predictor.add_callback("on_predict_start", lambda each: each.add_new_prompts(9, bboxes=BOX, frame_idx=frame))
    with pytest.raises(PromptError, match="frame_idx"):
        list(predictor(source=film()[:2], stream=True))


@pytest.mark.parametrize("obj_id", [7.9, None, float("nan"), "seven", True])
def test_an_object_id_is_a_whole_number_now_and_on_frames_to_come(network, obj_id):
    predictor = predictor_of(network)
    for _ in predictor(source=film()[:2], stream=True, bboxes=[BOX]):
        for frame in (None, 1, 0):
            with pytest.raises(PromptError, match="obj_id"):
                predictor.add_new_prompts(obj_id, bboxes=BOX, frame_idx=frame)


def test_prompts_after_the_end_are_refused(network):
    predictor = predictor_of(network)
    for result in predictor(source=iter(film()[:2]), stream=True, bboxes=[BOX]):
        if result.frame == 0:
            predictor.add_new_prompts(9, bboxes=BOX, frame_idx=1)
    with pytest.raises(PromptError, match="the run ended with frame 1"):
        predictor.add_new_prompts(9, bboxes=BOX, frame_idx=99)
    predictor.add_new_prompts(9, bboxes=BOX, frame_idx=None)


def test_a_frame_that_a_list_of_images_does_not_have_is_refused_at_once(network):
    predictor = predictor_of(network)
    stream = predictor(source=film()[:2], stream=True, bboxes=[BOX])
    next(stream)
    with pytest.raises(PromptError, match="there is no frame 2"):
        predictor.add_new_prompts(9, bboxes=BOX, frame_idx=2)
    stream.close()


def test_corrections_and_cameras_are_strict_too(network, nano_file):
    predictor = predictor_of(network)
    stream = predictor(source=film()[:2], stream=True, bboxes=[BOX], strict=True)
    next(stream)
    with pytest.raises(PromptError, match="strict=True"):
        predictor.add_new_prompts(9, bboxes=[0.1, 0.1, 0.5, 0.5])
    stream.close()
    camera = SAM2CameraPredictor(
        overrides={"model": str(nano_file), "imgsz": 64, "verbose": False, "save": False, "strict": True}
    )
    with pytest.raises(PromptError, match="strict=True"):
        camera.step(film()[0], {7: {"bboxes": [0.1, 0.1, 0.5, 0.5]}})
    assert camera.step(film()[0], {7: {"bboxes": BOX}}).obj_ids == (7,)


def test_ids_to_find_are_whole_numbers(nano_file):
    finder = SAM2DynamicInteractivePredictor(overrides={"model": str(nano_file), "imgsz": 64, "verbose": False})
    finder(film()[0], bboxes=[BOX], obj_ids=[7], update_memory=True)
    for wrong in (7.6, [7.6], float("nan"), "7"):
        with pytest.raises(PromptError, match="obj_ids"):
            finder(film()[1], obj_ids=wrong)


def test_a_slip_in_one_run_is_told_again_in_the_next_and_never_outside(predict, capture_log):
    for _ in range(2):
        predict(noise(), bboxes=[[0.1, 0.2, 0.5, 0.5]])
    assert sum("0-1" in line for line in capture_log) == 2
    stream = predict(noise(), strict=True, stream=True, **CLICK)
    next(stream)
    predict(noise(), bboxes=[[0.1, 0.2, 0.5, 0.5]])  # strict is the other run's
    stream.close()


def test_a_polygon_that_leaves_one_image_of_several_is_skipped_with_it_and_a_wrong_one_ends_the_run(predict, folder):
    cv2.imwrite(str(folder / "b.png"), noise(9, 9))
    square = [[[5.0, 5], [30, 5], [30, 30], [5, 30]]]
    assert len(predict(str(folder / "*.png"), masks=square)) == 1
    for wrong in ({"polygons": [None]}, {"polygons": [[]]}, {"polygons": [[1, 2, 3]]}, [[1.0, 1], [5, 5], [9, 9]]):
        with pytest.raises(PromptError, match="polygon|not an array of numbers"):
            predict(str(folder / "*.png"), masks=[wrong])


def test_a_polygon_may_wait_for_its_frame(network):
    predictor = predictor_of(network)
    for result in predictor(source=film()[:2], stream=True, bboxes=[BOX]):
        if result.frame == 0:
            predictor.add_new_prompts(9, masks=[[30.0, 20], [70, 20], [70, 60]], frame_idx=1)
    assert result.obj_ids == (0, 9)
