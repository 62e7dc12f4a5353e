"""A detector in the loop: what it finds is followed, found again and never doubled."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOX, OTHER, Cameras, alike, film, follow, predictor_of, rows, write_video
from ultralytics import YOLO
from ultralytics.engine.results import Results

from samplug import SAM
from samplug.errors import PromptError
from samplug.predict.detector import Detector
from samplug.predict.image import Predictor
from samplug.predict.video.camera import SAM2CameraPredictor
from samplug.predict.video.detections import match, update_last_boxes

THIRD = [5, 60, 25, 90]


@pytest.fixture(scope="module")
def frames():
    return film()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A YOLO file with random weights, and arguments with which it finds a few things on any image."""
    path = tmp_path_factory.mktemp("detector") / "drawn.pt"
    YOLO("yolo11n.yaml").save(path)
    return {"model": str(path), "conf": 1e-6, "max_det": 3, "imgsz": 64, "iou": 0.1}


class Script:
    """A detector that finds what is written for each of its looks, and counts them."""

    def __init__(self, *finds):
        self.finds, self.looks = finds, 0

    def __call__(self, image):
        assert image.shape == (96, 128, 3) and image.dtype == np.uint8
        self.looks += 1
        return self.finds[min(self.looks, len(self.finds)) - 1]


def results_of(image, boxes, classes, names=("cup", "dog", "car")):
    data = torch.tensor([[*box, 0.9, kind] for box, kind in zip(boxes, classes, strict=True)])
    return Results(image, path="x", names=dict(enumerate(names)), boxes=data.reshape(-1, 6))


# ------------------------------------------------------------------ which find is which object


def decide(now, nested=None, before=None, each_other=None):
    now = torch.tensor(now)
    nothing = torch.zeros_like(now)
    nested = nothing.bool() if nested is None else torch.tensor(nested)
    before = nothing if before is None else torch.tensor(before)
    each_other = torch.eye(len(now)) if each_other is None else torch.tensor(each_other)
    return match(now, nested, before, each_other, 0.5)


def test_a_find_that_overlaps_an_object_is_that_object_and_others_on_it_are_repetitions():
    made = decide([[0.6, 0.0], [0.8, 0.1], [0.0, 0.7]])
    assert made.tracked == {1: 0, 2: 1} and made.recovered == {} and made.new == []


def test_a_find_elsewhere_is_new_but_once():
    made = decide([[0.2], [0.1], [0.0]], each_other=[[1.0, 0.6, 0], [0.6, 1, 0], [0, 0, 1.0]])
    assert made.new == [0, 2] and not made.tracked and not made.recovered


def test_an_object_that_shrank_or_ran_out_is_shown_anew_and_a_neighbour_is_not_taken_for_it():
    assert decide([[0.3]], nested=[[True]]).recovered == {0: 0}
    assert decide([[0.3]], nested=[[False]]).new == [0]
    assert decide([[0.2]], nested=[[True]]).new == [0]
    made = decide([[0.9], [0.3]], nested=[[True], [True]])  # the object was found by itself
    assert made.tracked == {0: 0} and made.new == [1]


def test_a_lost_object_is_shown_anew_where_it_was_last():
    made = decide([[0.0, 0.9], [0.0, 0.0]], before=[[0.0, 0.0], [0.6, 0.0]])
    assert made.tracked == {0: 1} and made.recovered == {1: 0}
    assert decide([[0.0]], before=[[0.4]]).new == [0]


def test_nothing_found_and_nothing_followed_are_no_matter():
    assert decide(np.zeros((0, 3), np.float32)) == decide(np.zeros((0, 0), np.float32))
    assert decide(np.zeros((2, 0), np.float32)).new == [0, 1]


# ------------------------------------------------------------------ what a detector may be


@pytest.mark.parametrize(
    "finds",
    [
        np.array([BOX, OTHER]),
        torch.tensor([BOX, OTHER]),
        [BOX, OTHER],
        {"bboxes": [BOX, OTHER]},
        results_of(film()[0], [BOX, OTHER], [1, 0]),
        [results_of(film()[0], [BOX, OTHER], [1, 0])],
        results_of(film()[0], [BOX, OTHER], [1, 0]).boxes,
    ],
    ids=["array", "tensor", "lists", "dict", "results", "list of results", "boxes"],
)
def test_a_function_may_answer_in_any_of_the_known_ways(network, frames, finds):
    results = list(follow(network, frames[:3], prompter=Script(finds)))
    assert [result.obj_ids for result in results] == [(0, 1)] * 3
    plain = follow(network, frames[:3], bboxes=[BOX, OTHER])
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(results, plain, strict=True))


def test_boxes_are_clipped_to_the_image_and_empty_ones_left_out(frames):
    prompter = Detector(lambda image: np.array([[-20.0, 10, 50, 400], [300, 10, 400, 20], [5, 5, 5, 9]]), Predictor)
    ((one,),) = prompter.detect(frames[:1])
    assert one.objects[0].box.tolist() == [0, 10, 50, 96]
    assert Detector(lambda image: None, Predictor).detect(frames[:1]) == [[]]
    assert Detector(lambda image: [], Predictor).detect(frames[:1]) == [[]]


@pytest.mark.parametrize("given", [7, {"conf": 0.5}, {"model": print, "conf": 0.5}])
def test_what_is_no_detector_is_refused(given):
    with pytest.raises(TypeError, match="prompter="):
        Detector(given, Predictor)


def test_finds_that_cannot_be_read_are_refused(network, frames):
    with pytest.raises(PromptError, match="prompter"):
        next(follow(network, frames[:1], prompter=lambda image: np.zeros((2, 6))))


def test_a_yolo_model_its_file_and_its_arguments_find_the_same(network, frames, detector):
    arguments = {name: value for name, value in detector.items() if name != "model"}
    expected = YOLO(detector["model"]).predict(frames[:2], verbose=False, **arguments)
    assert len(expected[0].boxes) > 1 and len(expected[0].names) == 80
    for given in (detector, {**detector, "model": YOLO(detector["model"])}):
        finds = Detector(given, Predictor, "cpu").detect(frames[:2])
        for few, result in zip(finds, expected, strict=True):
            boxes = torch.stack([one.objects[0].box for one in few])
            assert torch.allclose(boxes, result.boxes.xyxy) and few[0].names == result.names
            assert [one.cls for one in few] == [(kind,) for kind in result.boxes.cls.int().tolist()]


@pytest.mark.parametrize("spelled", ["file", "network", "SAM"])
def test_a_sam_finds_everything(nano_file, network, frames, spelled):
    given = {"file": str(nano_file), "network": network, "SAM": SAM(nano_file)}[spelled]
    settings = {"points_stride": 3, "conf_thres": 0, "stability_score_thresh": 0, "imgsz": 128, "iou": 1.0}
    (finds,) = Detector({"model": given, **settings}, Predictor).detect(frames[:1])
    worker = Predictor(overrides={"imgsz": 128, "verbose": False, "save": False, "iou": 1.0})
    worker.setup_model(network, verbose=False)
    (all_,) = worker(source=frames[0], **{name: settings[name] for name in list(settings)[:3]})
    assert len(finds) > 2 and all(one.cls is None for one in finds)
    boxes = torch.stack([one.objects[0].box for one in finds])
    assert set(map(tuple, boxes.tolist())) <= set(map(tuple, all_.boxes.xyxy.tolist()))


def test_a_detector_in_a_program_called_yolo_answers_too(frames, detector, monkeypatch):
    import ultralytics.engine.model as engine

    monkeypatch.setattr(engine, "ARGV", ["yolo", "track"], raising=False)
    (finds,) = Detector(detector, Predictor).detect(frames[:1])
    assert finds


# ------------------------------------------------------------------ in a video


def test_the_first_find_is_followed_with_its_class_and_name(network, frames):
    script = Script([], results_of(frames[0], [BOX, OTHER], [2, 0]), [THIRD])
    results = list(follow(network, frames[:4], prompter=script))
    assert script.looks == 2  # until it found something
    assert [result.obj_ids for result in results] == [(), (0, 1), (0, 1), (0, 1)]
    assert results[-1].boxes.cls.tolist() == [2, 0] and results[-1].names == {0: "cup", 1: "dog", 2: "car"}


def test_what_is_found_again_is_not_doubled_and_what_is_new_gets_one_new_id(network, frames):
    plain = list(follow(network, frames, bboxes=[BOX, OTHER], obj_ids=[0, 1]))
    again = plain[4].boxes.xyxy + torch.tensor([0, 0, 1, 1])
    script = Script([BOX, OTHER], torch.cat([again, torch.tensor([THIRD]), again + 1]))
    results = list(follow(network, frames, prompter=script, prompt_every=4))
    assert script.looks == 2
    assert [result.obj_ids for result in results] == [(0, 1)] * 4 + [(0, 1, 2)] * 4
    for a, b in zip(plain, results, strict=True):  # nothing changes for those who were found again
        assert all(torch.equal(logits, rows(b)[obj_id]) for obj_id, logits in rows(a).items())
    fresh = next(follow(network, frames[4:5], bboxes=[THIRD]))
    assert torch.equal(rows(results[4])[2], fresh.logits[0])


def test_an_object_that_drifted_is_shown_anew_and_keeps_its_id(network, frames):
    plain = list(follow(network, frames[:4], bboxes=[BOX], obj_ids=[5]))
    left, top, right, bottom = plain[2].boxes.xyxy[0].tolist()
    part = [left, top, left + 0.6 * (right - left), top + 0.6 * (bottom - top)]
    script = Script([], [], results_of(frames[2], [part], [1]))
    results = list(follow(network, frames[:4], prompter=script, prompt_every=1, bboxes=[BOX], obj_ids=[5]))
    assert alike(plain[:2], results[:2]) and [result.obj_ids for result in results] == [(5,)] * 4
    begun = next(follow(network, frames[2:3], bboxes=[part]))
    assert torch.equal(results[2].logits, begun.logits)
    assert results[1].names == {5: "5"} and results[2].names[int(results[2].boxes.cls)] == "dog"


def test_a_lost_object_is_shown_anew_where_it_was_last_seen(network, frames):
    ahead = {0: {5: {"bboxes": BOX}}, 2: {5: {"masks": np.zeros((96, 128), bool)}}}
    plain = list(follow(network, frames[:3], prompts=ahead, keep_lost=True))
    assert plain[2].presence[0] < 0 < plain[1].presence[0]
    place = plain[1].boxes.xyxy[0].tolist()
    results = list(follow(network, frames[:3], prompts=ahead, prompter=Script([], [place]), prompt_every=2))
    begun = next(follow(network, frames[2:3], bboxes=[place]))
    assert results[2].obj_ids == (5,) and torch.equal(results[2].logits, begun.logits)
    results = list(follow(network, frames[:3], prompts=ahead, prompter=Script([], [[60, 5, 120, 20]]), prompt_every=2))
    assert results[2].obj_ids == (6,)


def test_the_place_of_an_object_is_in_the_image(network, frames):
    wide = np.ascontiguousarray(frames[0][:40])  # most of the input is padding
    worker = predictor_of(network)
    next(worker(source=[wide, wide], stream=True, bboxes=[[30, 10, 70, 35]], prompter=lambda image: []))
    stream = worker.inference_state[0]
    logits = torch.full_like(stream.objects.output.logits, -1.0)
    logits[:, 4:6, 8:12] = logits[:, 12:, :] = 1.0
    stream.objects = replace(stream.objects, output=replace(stream.objects.output, logits=logits))
    update_last_boxes(stream)
    assert stream.last_boxes[0].tolist() == [32, 16, 48, 24]


def test_ids_of_objects_that_are_gone_or_still_to_come_are_not_given_again(network, frames):
    worker = predictor_of(network)
    script = Script([BOX], [THIRD], [OTHER])
    said = {"prompts": {5: {7: {"bboxes": OTHER}}}, "prompter": script, "prompt_every": 2}
    seen = []
    for result in worker(source=frames[:4], stream=True, **said):
        if result.frame == 1:
            worker.remove_object(8)
        seen.append(result.obj_ids)
    assert seen == [(8,), (8,), (9,), (9,)]


def test_objects_that_come_and_go_leave_nothing_behind(network, frames):
    empty = {"masks": np.zeros((1, 96, 128), bool), "cls": [3]}
    worker = predictor_of(network)
    said = {"prompter": Script(empty), "prompt_every": 1, "expire_after": 1, "keep_lost": True}
    results = list(worker(source=frames, stream=True, **said))
    one = worker.inference_state[0]
    assert [result.obj_ids for result in results] == [(i,) for i in range(8)] and results[-1].boxes.cls.tolist() == [3]
    assert one.tracker.ids == () and len(one.classes) <= 1 and len(one.last_boxes) <= 1


def test_a_detector_that_names_its_objects_is_taken_at_its_word(network, frames):
    script = Script({4: {"bboxes": BOX}}, {4: {"points": [50, 40]}, 6: {"bboxes": OTHER}})
    results = list(follow(network, frames[:3], prompter=script, prompt_every=1))
    assert [result.obj_ids for result in results] == [(4,), (4, 6), (4, 6)]


def test_clicks_inside_a_followed_object_are_that_object(network, frames):
    plain = list(follow(network, frames[:2], bboxes=[BOX]))
    inside, outside = (
        part.nonzero()[40].flip(0).tolist() for part in (plain[1].masks.data[0], ~plain[1].masks.data[0])
    )
    for point, expected in ((inside, (0,)), (outside, (0, 1))):
        results = list(follow(network, frames[:2], prompter=Script([BOX], {"points": [point]}), prompt_every=1))
        assert results[1].obj_ids == expected


def test_masks_may_be_found_too(network, frames):
    mask = np.zeros((96, 128), bool)
    mask[20:60, 30:90] = True
    plain = list(follow(network, frames[:2], masks=mask))
    script = Script({"masks": [mask]}, {"masks": plain[1].masks.data})
    results = list(follow(network, frames[:2], prompter=script, prompt_every=1))
    assert alike(results, plain) and script.looks == 2


def test_prompts_and_a_detector_go_together(network, frames):
    script = Script([THIRD])
    results = list(follow(network, frames[:2], bboxes=[BOX], obj_ids=[3], prompter=script))
    assert [result.obj_ids for result in results] == [(3, 4), (3, 4)] and script.looks == 1


def test_the_detector_looks_at_every_nth_frame_that_is_run_and_not_at_black_ones(network, frames):
    script, black = Script([BOX]), np.zeros_like(frames[0])
    list(follow(network, Cameras([black, *frames[:5], black]), prompter=script, prompt_every=2))
    assert script.looks == 3
    script = Script([BOX])
    list(follow(network, frames, {"vid_stride": 3}, prompter=script, prompt_every=2))
    assert script.looks == 1


def test_every_stream_and_every_video_has_finds_of_its_own(network, frames, tmp_path):
    other = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]

    def finds(image):
        return [BOX] if any(np.array_equal(image, frame) for frame in frames) else [OTHER]

    side = list(follow(network, Cameras(frames[:3], other[:3]), prompter=finds))
    assert alike(side[::2], follow(network, frames[:3], bboxes=[BOX]))
    assert alike(side[1::2], follow(network, other[:3], bboxes=[OTHER]))
    write_video(tmp_path / "a.avi", frames[:2])
    write_video(tmp_path / "b.avi", other[:2])
    after = list(follow(network, str(tmp_path), prompter=finds))
    assert alike(after[:2], follow(network, frames[:2], bboxes=[BOX]))
    assert alike(after[2:], follow(network, other[:2], bboxes=[OTHER]))


def test_under_a_loop_of_ones_own_it_is_the_same(network, frames):
    said = {"prompter": Script([BOX], [THIRD]), "prompt_every": 2, "logits": True}
    camera = SAM2CameraPredictor(overrides={"imgsz": 128, "verbose": False, **said})
    camera.setup_model(network, verbose=False)
    camera.non_overlap_masks = False
    stepped = [camera.step(frame) for frame in frames[:4]]
    assert alike(stepped, follow(network, frames[:4], prompter=Script([BOX], [THIRD]), prompt_every=2))


def test_a_model_that_looks_can_still_be_trained(network, frames, detector):
    yolo = YOLO(detector["model"])
    list(follow(network, frames[:2], prompter={**detector, "model": yolo}))
    assert not any(parameter.is_inference() for parameter in yolo.model.parameters())


# ------------------------------------------------------------------ on images, and from the top


def test_images_are_each_prompted_by_the_detector(network, images, frames):
    worker = Predictor(overrides={"imgsz": 128, "verbose": False, "save": False})
    worker.setup_model(network, verbose=False)
    said = {"prompter": lambda image: results_of(image, [BOX, [40, 25, 100, 70]], [2, 0])}
    found = worker(source=images, **said)
    given = worker(source=images, bboxes=[BOX, [40, 25, 100, 70]], cls=[2, 0])
    assert all(torch.equal(a.masks.data, b.masks.data) for a, b in zip(found, given, strict=True))
    assert found[0].boxes.cls.tolist() == [2, 0] and found[0].names[2] == "car"
    (none,) = worker(source=images[0], prompter=lambda image: [])
    assert len(none.masks) == len(none.boxes) == 0
    with pytest.raises(PromptError, match="prompter"):
        worker(source=images[0], bboxes=[BOX], **said)


def test_sam_follows_what_a_detector_finds(nano_file, frames, tmp_path, detector, capture_log):
    video = write_video(tmp_path / "clip.avi", frames[:3])
    model = SAM(nano_file)
    results = model.track(video, imgsz=128, prompter=detector, prompt_every=2)
    assert len(results) == 3 and all(len(result.names) == 80 for result in results if len(result))
    assert any("through memory" in line for line in capture_log)


def test_a_detector_works_from_the_shell(nano_file, frames, tmp_path, monkeypatch, detector):
    from samplug.cli import main

    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.avi", frames[:3])
    cv2.imwrite("one.png", frames[0])
    shown = f"prompter={detector}"
    main.samplug(main.merge(["track", f"model={nano_file}", "source=clip.avi", shown, "prompt_every=2", "imgsz=128"]))
    main.samplug(main.merge(["predict", f"model={nano_file}", "source=one.png", shown, "imgsz=128", "project=out"]))
    with pytest.raises(main.UsageError, match="none.pt"):
        main.samplug(["track", f"model={nano_file}", "source=clip.avi", "prompter=none.pt"])
