"""Measuring with real networks: it sees what users get, from Python and from the shell."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from support.datasets import davis, save_image, save_index, yolo  # noqa: F401
from support.videos import BOX, film

from samplug import SAM
from samplug.cli import main
from samplug.data.clicks import next_click, outer_box
from samplug.data.samples import AnnotatedFrame, AnnotatedImage, AnnotatedVideo
from samplug.host import DEFAULT_CFG, get_cfg
from samplug.predict.video.predictor import SAM2VideoPredictor
from samplug.transforms import ImageTransform
from samplug.val.images import ImageProtocol, Target, _score_clicks, evaluate_images, preprocess
from samplug.val.metrics import jaccard
from samplug.val.trackers import FirstMaskTracker, MemoryTracker, NoMemoryTracker
from samplug.val.videos import VideoProtocol, encoded_frames, evaluate_videos

SIZE = (128, 128)


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(str(nano_file))


@pytest.fixture(scope="module")
def shown(images):
    """Three images of different shapes, each with a bright object or two, as measuring takes them."""
    made = []
    for i, image in enumerate(images):
        grey = cv2.blur(image.max(2), (9, 9))
        masks = np.stack([grey > np.quantile(grey, q) for q in (0.7, 0.9)])
        made.append(AnnotatedImage(str(i), np.ascontiguousarray(image[..., ::-1]), masks))
    return made


def test_images_enter_normalised_in_rgb(model, images):
    rgb = np.ascontiguousarray(images[0][..., ::-1])
    expected = model._make_predictor(None, {"imgsz": 128, "save": False, "verbose": False})
    expected.imgsz = SIZE
    assert torch.equal(preprocess(model.model, [rgb], SIZE), expected.preprocess([images[0]]))


# Images -------------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_what_is_measured_is_what_predict_gives(model, shown):
    scores = evaluate_images(model.model, shown, SIZE, ImageProtocol(clicks=2, feedback=False, batch=1))
    rows = iter(scores.rows)
    for image in shown:
        bgr = np.ascontiguousarray(image.image[..., ::-1])
        for mask in image.masks:
            scores = next(rows).scores
            click = next_click(None, mask)
            ways = {
                "click1": {"points": [[click.x, click.y]]},
                "click1_chosen": {"points": [[click.x, click.y]], "multimask": "best"},
                "box": {"bboxes": [outer_box(mask)]},
                "box_chosen": {"bboxes": [outer_box(mask)], "multimask": "best"},
            }
            for name, prompts in ways.items():
                result = model.predict(bgr, imgsz=128, verbose=False, **prompts)[0]
                expected = jaccard(result.masks.data[0].bool().numpy(), mask)
                assert scores[name] == expected, name
            every = model.predict(bgr, imgsz=128, verbose=False, points=[[click.x, click.y]], multimask="all")[0]
            best = max(jaccard(found.bool().numpy(), mask) for found in every.masks.data)
            assert scores["click1_best"] == best >= scores["click1_chosen"]


def test_a_click_takes_the_mask_before_along_as_masks_does(model, shown):
    """The second answer equals the one to both clicks and the first answer's logits."""
    image = AnnotatedImage("one", shown[0].image, shown[0].masks[:1])
    bgr, mask = np.ascontiguousarray(image.image[..., ::-1]), image.masks[0]
    scores = evaluate_images(model.model, [image], SIZE, ImageProtocol(prompts=("click",), clicks=2, batch=1))
    first = next_click(None, mask)
    said = {"imgsz": 128, "verbose": False, "logits": True}
    result = model.predict(bgr, points=[[first.x, first.y]], **said)[0]
    second = next_click(result.masks.data[0].bool().numpy(), mask)
    again = model.predict(
        bgr,
        points=[[[first.x, first.y], [second.x, second.y]]],
        labels=[[1, second.label]],
        masks=result.logits.clamp(-32, 32),
        **said,
    )[0]
    assert scores.curve == [
        jaccard(result.masks.data[0].bool().numpy(), mask),
        jaccard(again.masks.data[0].bool().numpy(), mask),
    ]


def test_images_of_different_shapes_run_together_as_alone(model, shown):
    alone, together = (
        evaluate_images(model.model, shown, SIZE, ImageProtocol(clicks=3, batch=batch)).means() for batch in (1, 3)
    )
    assert together == pytest.approx(alone, abs=5e-3)


def target(*curve):
    mask = np.ones((4, 4), bool)
    one = Target("", 0, ImageTransform((4, 4), (4, 4)), np.zeros((4, 4, 3), np.uint8), mask)
    one.curve = list(curve)
    one.scores = {f"click{n}_F": 0.5 for n in (1, 3, 5) if n <= len(curve)}
    return one


@pytest.mark.parametrize(
    ("curve", "most", "expected"),
    [
        ((0.5, 0.86, 0.8, 0.91), 20, {"noc85": 2, "failed85": 0, "noc90": 4, "failed90": 0}),
        ((0.5, 0.6, 0.7), 3, {"noc85": 3, "failed85": 1, "noc90": 3, "failed90": 1}),
        ((0.95, 1.0), 20, {"noc85": 1, "noc90": 1, "click3": 1.0, "click5": 1.0, "click5_F": 0.5}),
    ],
)
def test_the_number_of_clicks_is_the_first_that_reaches_the_target(curve, most, expected):
    one = target(*curve)
    _score_clicks(one, most)
    assert {name: one.scores[name] for name in expected} == expected


def test_of_many_objects_some_are_drawn_and_always_the_same(model, shown):
    many = AnnotatedImage("many", shown[0].image, np.repeat(shown[0].masks, 4, axis=0))
    protocol = ImageProtocol(prompts=("box",), objects=3, batch=1)
    first, again = (evaluate_images(model.model, [many], SIZE, protocol) for _ in range(2))
    assert len(first.rows) == 3 and [row.name for row in first.rows] == [row.name for row in again.rows]
    empty = AnnotatedImage("none", shown[0].image, np.zeros_like(shown[0].masks))
    assert not evaluate_images(model.model, [empty], SIZE, protocol).rows


# Videos ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    """Frames of a moving scene; the second object comes on the third."""
    frames = []
    for i, image in enumerate(film()):
        masks = np.zeros((2, 96, 128), bool)
        masks[0, BOX[1] + 2 * i : BOX[3] + 2 * i, BOX[0] + 3 * i : BOX[2] + 3 * i] = True
        masks[1, 60:90, 90:120] = i >= 2
        frames.append(AnnotatedFrame(np.ascontiguousarray(image[..., ::-1]), masks & ~masks[::-1]))
    return AnnotatedVideo("film", frames)


@pytest.mark.host
@pytest.mark.parametrize("ask", ["mask", "box", "click"])
def test_what_is_measured_is_what_the_video_predictor_gives(model, clip, ask):
    prompts = {}
    for place, first in ((0, 0), (1, 2)):
        mask = clip.frames[first].masks[place]
        click = next_click(None, mask)
        spelled = {
            "mask": {"masks": mask},
            "box": {"bboxes": outer_box(mask)},
            "click": {"points": [[click.x, click.y]], "labels": [1]},
        }
        prompts[first] = {place: spelled[ask]}
    predictor = SAM2VideoPredictor(overrides={"imgsz": 128, "verbose": False, "save": False})
    predictor.setup_model(model.model, verbose=False)
    frames = [np.ascontiguousarray(frame.image[..., ::-1]) for frame in clip.frames]
    expected = list(predictor(source=frames, stream=True, prompts=prompts, keep_lost=True))
    tracker, known = MemoryTracker(model.model, ask), set()
    with torch.inference_mode():
        for number, (frame, features, transform) in enumerate(encoded_frames(model.model, clip, SIZE, batch=1)):
            new = {p: m for p, m in enumerate(frame.masks) if p not in known and m.any()}
            known |= new.keys()
            tracked = tracker.step(number, features, transform, new)
            assert tracked.objects == list(expected[number].obj_ids)
            assert np.array_equal(tracked.masks, expected[number].masks.data.bool().numpy())
            assert np.allclose(tracked.presence, expected[number].presence)


def test_without_memory_all_objects_look_alike_and_a_first_mask_stays(model, clip):
    blind, still = NoMemoryTracker(model.model), FirstMaskTracker()
    shown, answers = {0: clip.frames[0].masks[0]}, []
    with torch.inference_mode():
        for number, (_, features, transform) in enumerate(encoded_frames(model.model, clip, SIZE, batch=1)):
            if number == 2:
                shown = {1: clip.frames[2].masks[1]}
            answers.append(
                (blind.step(number, features, transform, shown), still.step(number, features, transform, shown))
            )
            shown = {}
    first, third, last = answers[0], answers[2], answers[-1]
    assert jaccard(first[0].masks[0], clip.frames[0].masks[0]) > 0.8
    assert jaccard(third[0].masks[1], clip.frames[2].masks[1]) > 0.8
    assert last[0].objects == [0, 1] and np.array_equal(last[0].masks[0], last[0].masks[1])
    assert np.array_equal(last[1].masks, [clip.frames[0].masks[0], clip.frames[2].masks[1]])


def test_every_tracker_is_measured_side_by_side(model, clip):
    found = evaluate_videos(model.model, [clip], SIZE, VideoProtocol(prompts=("mask", "box"), baselines=True))
    assert list(found) == ["mask", "box", "memory off", "first mask kept"]
    standing = found["first mask kept"].rows
    overlaps = [jaccard(clip.frames[0].masks[0], frame.masks[0]) for frame in clip.frames[1:-1]]
    assert standing[0].scores["J"] == pytest.approx(np.mean(overlaps)) and standing[1].scores["J"] > 0.9
    assert len(found["mask"].calibration["presence"]) == 7 + 5 and not len(
        found["first mask kept"].calibration["presence"]
    )
    batched = evaluate_videos(model.model, [clip], SIZE, VideoProtocol(batch=4))["mask"]
    assert batched.means() == pytest.approx(found["mask"].means(), abs=5e-3)


# From Python and the shell --------------------------------------------------------------------------------------------


@pytest.mark.host
def test_val_on_a_yolo_data_set_says_saves_and_returns(model, yolo, capture_log, tmp_path):  # noqa: F811
    found = model.val(data=yolo / "data.yaml", imgsz=64, clicks=5, project=str(tmp_path / "runs"), name="mine")
    assert found.save_dir == tmp_path / "runs" / "mine"
    saved = json.loads((found.save_dir / "results.json").read_text())
    assert saved["pictures"]["objects"] == 2 and saved["imgsz"] == [64, 64]
    assert saved["pictures"]["click1"] == found.results_dict["pictures/click1"]
    assert {"click1", "click3", "click5", "box_best", "noc90", "click5_F"} <= saved["pictures"].keys()
    assert "flood_fill" not in saved["pictures"]
    rows = list(csv.DictReader((found.save_dir / "objects.csv").read_text().splitlines()))
    assert [row["object"] for row in rows] == ["a.png #0", "a.png #1"]
    said = "\n".join(capture_log)
    assert "1 images, 2 objects" in said and "1 click, best of three" in said and "mine" in said
    for name in ("curves.png", "reliability.png", "worst_click.jpg", "worst_box.jpg"):
        assert cv2.imread(str(found.save_dir / name)) is not None


@pytest.mark.host
def test_each_run_has_a_folder_of_its_own(model, yolo, tmp_path):  # noqa: F811
    said = {"data": yolo, "imgsz": 64, "ask": "box", "plots": False, "verbose": False, "project": str(tmp_path / "r")}
    folders = [model.val(**said).save_dir.name for _ in range(2)]
    assert folders[0] == "val" and folders[1] not in folders[:1]
    assert sorted(path.name for path in (tmp_path / "r" / "val").iterdir()) == ["objects.csv", "results.json"]


def test_val_on_videos_and_everything_on_images(model, davis, tmp_path):  # noqa: F811
    where = {"imgsz": 64, "project": str(tmp_path / "runs"), "verbose": False, "plots": False}
    index = (np.arange(48)[:, None] // 24 + np.zeros((48, 64))).astype(np.uint8)
    for number in (2, 3):
        save_index(davis / "Annotations" / "480p" / "car" / f"{number:05}.png", index)
        save_image(davis / "JPEGImages" / "480p" / "car" / f"{number:05}.jpg", number)
    found = model.val(data=davis, ask=["mask", "box"], policy="presence", baselines=True, clips=2, **where)
    assert list(found.videos) == ["mask", "box", "memory off", "first mask kept"] and found.pictures is None
    assert {row.name for row in found.videos["mask"].rows} >= {"480p/car #0"}
    save_image(tmp_path / "flat" / "images" / "a.jpg")
    save_index(tmp_path / "flat" / "masks" / "a.png", index)
    num_obj_ptr_tokens = {"conf_thres": 0.0, "stability_score_thresh": 0.0, "points_stride": 4}
    found = model.val(data=tmp_path / "flat", ask="box", everything=True, **num_obj_ptr_tokens, **where)
    assert 0 < found.results_dict["pictures/everything"] <= 1


def test_the_built_in_set_needs_no_files_and_is_always_the_same(tmp_path):
    few = {"data": "scenes", "pictures": 2, "clips": 1, "clicks": 2, "side": 64, "imgsz": 64, "frames": 5}
    where = {"project": str(tmp_path), "verbose": False}
    found, again = (SAM().val(**few, **where, plots=plots) for plots in (True, False))
    assert found.results_dict == again.results_dict
    assert {"pictures/flood_fill", "pictures/grabcut", "videos/memory off/J&F"} <= found.results_dict.keys()
    assert (found.save_dir / "worst_video_mask.jpg").is_file() and "no network: first mask" in str(found)
    of_other = SAM().val(**few, **where, held_out=True, plots=False)
    assert of_other.results_dict["pictures/box_as_mask"] != found.results_dict["pictures/box_as_mask"]


def test_training_never_draws_what_is_measured():
    from samplug.data.synthetic import clips, scenes
    from samplug.data.synthetic.dataset import VAL_SEED, drawn_clips, drawn_images

    (image,) = drawn_images(1, side=64)
    assert np.array_equal(image.image, scenes.draw(np.random.default_rng([VAL_SEED, 0]), 64, 64, level=0.5).image)
    (clip,) = drawn_clips(1, frames=3, side=64)
    expected = clips.draw(np.random.default_rng([VAL_SEED, 0, 1]), 64, 64, frames=3, level=0.5)
    assert np.array_equal(clip.frames[2].image, expected.images[2])
    assert np.array_equal(clip.frames[2].masks, expected.masks[2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "val needs data=: scenes, a data.yaml"),
        ({"data": "scenes", "click": 3}, "'click' is not an argument of val. Did you mean clicks"),
        ({"data": "scenes", "clicks": 0}, "clicks=0: give a number of clicks, 1 or more"),
        ({"data": "scenes", "clicks": "many"}, "clicks='many'"),
        ({"data": "scenes", "ask": "boxes"}, "ask='boxes': give some of mask, box, click"),
        ({"data": "scenes", "ask": []}, "ask"),
        ({"data": "scenes", "level": 2}, "level=2: give a number from 0 to 1"),
        ({"data": "scenes", "frames": 2}, "frames=2"),
        ({"data": "scenes", "policy": "none"}, "policy='none'"),
        ({"data": "none.yaml"}, "none.yaml"),
    ],
)
def test_a_wrong_call_is_told_what_is_right(model, given, message):
    with pytest.raises((TypeError, ValueError), match=message.replace("(", r"\(")):
        model.val(**given)


def test_a_network_without_memory_measures_images_alone(tmp_path, davis):  # noqa: F811
    from samplug.benchmark.weights import randomise
    from samplug.checkpoints.config import build
    from samplug.errors import DataError
    from samplug.val.run import val

    network = randomise(build({"variant": "mobile_sam"})).eval()
    with pytest.raises(DataError, match="need SAM 2 or 2.1; this is mobile_sam"):
        val(network, {"data": davis, "verbose": False})


def test_data_without_any_object_is_refused(model, tmp_path):
    save_image(tmp_path / "images" / "a.jpg")
    save_index(tmp_path / "masks" / "a.png", np.zeros((48, 64)))
    with pytest.raises(ValueError, match="holds no object to measure"):
        model.val(data=tmp_path, imgsz=64, verbose=False)


@pytest.mark.host
def test_the_shell_measures_and_refuses_in_a_line(nano_file, yolo, tmp_path):  # noqa: F811
    words = ["sam", "val", f"model={nano_file}", f"data={yolo}", "imgsz=64", "ask=box", "plots=False"]
    words += ["policy=presence"]
    main.run_sam([*words, f"project={tmp_path}", "name=out", "exist_ok"], "yolo sam")
    said = json.loads((tmp_path / "out" / "results.json").read_text())["arguments"]
    assert said["ask"] == "box" and said["policy"] == "presence"
    for wrong, message in (
        ("dta=x", "'dta' is not an argument. Similar arguments: data"),
        ("data=none.yaml", "none.yaml"),
        ("clicks=0", "clicks=0"),
        ("points=[[1,2]]", "'points' is an argument of predict and track"),
        ("clicks", "'clicks' needs a value"),
        ("imgsz=large", "imgsz"),
        ("device=99", "device"),
    ):
        with pytest.raises(main.UsageError) as caught:
            main.run_sam([*words, wrong], "yolo sam")
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_help_of_val_tells_every_argument_and_layout(capsys):
    from samplug.val.settings import accepted

    main.samplug(["val", "help"])
    text = capsys.readouterr().out
    assert all(name in text for name in accepted()) and "JPEGImages/video/*.jpg" in text
    assert max(map(len, text.splitlines())) <= 140


def test_names_of_val_hide_none_of_ultralytics_that_mean_something_else():
    from samplug.val.settings import FROM_ULTRALYTICS, accepted

    shared = {"data", "source", "split", "classes", "batch", "plots"}  # these mean what they mean in `yolo val`
    theirs = set(vars(get_cfg(DEFAULT_CFG)))
    assert accepted().keys() & theirs - set(FROM_ULTRALYTICS) == shared
