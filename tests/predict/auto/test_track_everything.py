"""Nothing is prompted, everything is followed: found on the first frame, looked for again, never doubled."""

import cv2
import numpy as np
import pytest
import torch
from support.videos import film, follow, rows, write_video

from samplug import SAM
from samplug.cli import main
from samplug.cli.parse import merge

DISCS = ((50, 50, 25, 6, 2), (190, 60, 30, -4, 3), (120, 140, 28, 0, -3))  # x, y, radius and what a frame moves them
LATE = (30, 160, 20, 0, 0)  # comes on the fifth frame
ANY = {"points_stride": 2, "conf_thres": -1.0, "stability_score_thresh": -1.0}


@pytest.fixture(scope="module")
def bundled():
    return SAM()


@pytest.fixture(scope="module")
def drawn():
    """Six frames (192, 256, 3) of three discs that move, and of one that comes late."""
    rng = np.random.default_rng(0)
    return [(frame(t) + rng.normal(0, 4, (192, 256, 3))).clip(0, 255).astype(np.uint8) for t in range(6)]


def frame(t):
    image = np.full((192, 256, 3), (200, 210, 190), np.float32)
    colours = [(200, 40, 40), (40, 160, 40), (40, 40, 200), (20, 20, 20)]
    for one, colour in zip((*DISCS, LATE)[: 4 if t >= 4 else 3], colours, strict=False):
        image[disc(one, t)] = colour
    return image


def disc(one, t):
    x, y, radius, dx, dy = one
    return cv2.circle(np.zeros((192, 256), np.uint8), (x + dx * t, y + dy * t), radius, 1, -1).astype(bool)


def image_indices(result, mask):
    """The ids whose masks are this one, by an IoU of 0.8."""
    mask = torch.from_numpy(mask)
    same = [(each & mask).sum() / (each | mask).sum() > 0.8 for each in result.masks.data]
    return [obj_id for obj_id, alike in zip(result.obj_ids, same, strict=True) if alike]


@pytest.fixture(scope="module")
def followed(bundled, drawn):
    """Everything of the drawn film, looked for on the first frame and on the fifth."""
    said = {"imgsz": 256, "points_stride": 8, "non_overlap": False, "logits": True, "verbose": False}
    return [bundled.predict(drawn, track=True, **said, **more) for more in ({}, {"prompt_every": 4})]


def test_everything_on_the_first_frame_is_followed_through_the_video(followed):
    results, _ = followed
    for one in DISCS:
        ids = [image_indices(result, disc(one, t)) for t, result in enumerate(results)]
        assert all(len(each) == 1 for each in ids) and len({each[0] for each in ids}) == 1
    assert not image_indices(results[5], disc(LATE, 5))
    assert {result.obj_ids for result in results} == {results[0].obj_ids}


def test_what_comes_later_gets_one_id_and_the_others_are_left_as_they_are(followed):
    plain, again = followed
    known = set(plain[0].obj_ids)
    for t in (4, 5):
        (new,) = image_indices(again[t], disc(LATE, t))
        assert new not in known
        assert all(torch.equal(logits, rows(again[t])[obj_id]) for obj_id, logits in rows(plain[t]).items())


def test_a_still_image_looked_at_many_times_has_no_more_objects(bundled, drawn):
    said = {"imgsz": 256, "points_stride": 8, "non_overlap": False, "verbose": False}
    first, *others = bundled.predict([drawn[0]] * 3, track=True, prompt_every=1, **said)
    assert len(first.obj_ids) >= 3 and all(len(result.obj_ids) == len(first.obj_ids) for result in others)


def test_no_more_objects_are_followed_than_was_said_and_the_log_says_so(bundled, drawn, capture_log):
    said = {"imgsz": 256, "points_stride": 8, "verbose": False}
    results = bundled.predict(drawn[:2], track=True, prompt_every=1, max_objects=2, **said)
    assert [result.obj_ids for result in results] == [(0, 1)] * 2
    assert sum("the 2 likeliest are followed (max_objects=)" in line for line in capture_log) == 1


def test_a_prompter_finds_no_more_than_was_said_either(network):
    boxes = [[5, 5, 40, 40], [60, 10, 90, 50], [10, 60, 50, 90], [80, 60, 120, 90]]
    results = follow(network, film()[:2], prompter=lambda image: boxes, prompt_every=1, max_objects=3)
    assert [result.obj_ids for result in results] == [(0, 1, 2)] * 2


def test_masks_are_compared_as_masks_not_by_their_boxes(network):
    disc_ = cv2.circle(np.zeros((96, 128), np.uint8), (60, 48), 40, 1, -1).astype(bool)
    ring = disc_ & ~cv2.circle(np.zeros((96, 128), np.uint8), (60, 48), 32, 1, -1).astype(bool)
    finds = {"masks": np.stack([disc_, ring, disc_])}
    (result,) = follow(network, film()[:1], prompter=lambda image: finds)
    assert result.obj_ids == (0, 1)


@pytest.mark.parametrize("call", ["predict", "track"])
def test_track_without_prompts_follows_by_either_call_and_says_so(nano_file, tmp_path, call, capture_log):
    path = write_video(tmp_path / "clip.avi", film()[:3])
    results = getattr(SAM(nano_file), call)(path, track=True, imgsz=64, max_objects=2, iou=1.0, verbose=False, **ANY)
    assert [result.boxes.id.tolist() for result in results if len(result)][0] == [0, 1]
    assert len(results) == 3
    assert any("Following everything found through memory" in line for line in capture_log)


def test_everything_is_followed_from_the_shell(nano_file, tmp_path):
    path = write_video(tmp_path / "clip.avi", film()[:2])
    words = [f"model={nano_file}", f"source={path}", "track=True", "imgsz=64", "max_objects=2", "iou=1.0"]
    words += [f"{name}={value}" for name, value in ANY.items()]
    main.samplug(merge(["track", *words, f"project={tmp_path}", "name=out", "save_txt=True"]))
    lines = (tmp_path / "out" / "labels" / "clip_0.txt").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["0", "1"]


def test_prompts_come_before_everything(nano_file):
    results = SAM(nano_file).predict(film()[:2], track=True, bboxes=[30, 20, 70, 60], imgsz=64, keep_lost=True)
    assert [result.obj_ids for result in results] == [(0,)] * 2


def test_a_number_of_objects_that_cannot_be_is_refused(nano_file):
    with pytest.raises(ValueError, match="max_objects=0: give a number of objects, 1 or more"):
        SAM(nano_file).predict(film()[:2], track=True, max_objects=0)


GREEN, RED, BLUE = (60, 48, 20, (40, 160, 40)), (190, 60, 24, (40, 40, 200)), (120, 140, 26, (200, 40, 40))


def scene(*discs):
    """(192, 256, 3) with discs at x, y of a radius and a colour."""
    image = np.full((192, 256, 3), (200, 210, 190), np.uint8)
    for x, y, radius, colour in discs:
        cv2.circle(image, (x, y), radius, colour, -1)
    return image


def boxes_of(image):
    """A perfect detector of these discs."""
    found = [disc for disc in (GREEN, RED, BLUE) if tuple(map(int, image[disc[1], disc[0]])) == disc[3]]
    return [[x - radius, y - radius, x + radius, y + radius] for x, y, radius, _ in found]


def ids_of(results):
    return [{int(each) for each in result.boxes.id} for result in results]


def test_what_is_lost_gives_its_place_to_what_is_new(bundled):
    frames = [scene(GREEN, RED)] * 2 + [scene(GREEN)] * 2 + [scene(GREEN, BLUE)] * 2 + [scene(GREEN, BLUE, RED)] * 2
    said = {"prompter": boxes_of, "prompt_every": 1, "max_objects": 2, "imgsz": 256, "verbose": False}
    results = bundled.predict(frames, track=True, **said)
    assert ids_of(results) == [{0, 1}] * 2 + [{0}] * 2 + [{0, 2}] * 4


def test_an_object_of_the_users_own_is_never_dropped_for_another(bundled):
    frames = [scene(GREEN, RED)] + [scene(GREEN)] * 2 + [scene(GREEN, BLUE)] * 2
    said = {"prompt_every": 1, "max_objects": 2, "imgsz": 256, "verbose": False, "keep_lost": True}
    shown = {0: {7: {"bboxes": boxes_of(scene(RED))[0]}}}
    results = bundled.predict(frames, track=True, prompts=shown, prompter=boxes_of, **said)
    assert 7 in results[-1].obj_ids and results[0].obj_ids == (7, 8)


def test_as_many_as_were_said_are_followed_though_masks_repeat_each_other(bundled, capture_log):
    image = scene(GREEN, RED, BLUE)
    said = {"imgsz": 256, "points_stride": 8, "crop_nms_thresh": 1.0, "iou": 1.0, "verbose": False}
    (result,) = bundled.predict([image], track=True, max_objects=3, **said)
    assert len(result.obj_ids) == 3
    (count,) = (int(line.split()[0]) for line in capture_log if "likeliest are followed" in line)
    assert count < len(bundled.predict(image, **said)[0])
