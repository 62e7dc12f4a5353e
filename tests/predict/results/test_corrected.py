"""A correction between two results reaches what is saved of its frame: the video, the labels, the frame's own image."""

import json

import cv2
import numpy as np
import pytest
import torch
from support.checkpoint_files import digest
from support.videos import BOX, OTHER, Cameras, film, predictor_of, write_video

from samplug.predict.results.mask_results import MaskResults


@pytest.fixture
def frames():
    return film()[:5]


def video_of(path):
    capture, read = cv2.VideoCapture(str(path)), []
    while (frame := capture.read()[1]) is not None:
        read.append(frame.astype(int))
    return read


def saved(network, tmp_path, name, source, correct, until=99, **own):
    """Run with everything saved, prompt object 9 on some frames between results; the folder of the run."""
    overrides = {"save": True, "save_txt": True, "save_frames": True, "save_crop": True, "show_labels": False}
    worker = predictor_of(network, project=str(tmp_path), name=name, **overrides)
    results = worker(source=source, stream=True, bboxes=[BOX], keep_lost=True, **own)
    plots = []
    for result in results:
        if result.frame in correct:
            worker.add_new_prompts(9, bboxes=OTHER, stream=0)
        plots += [worker.results[0].plot(labels=False).astype(int)] if len(worker.results) == 1 else []
        if result.frame == until:
            break
    results.close()
    for i, frame in enumerate(video_of(tmp_path / name / "clip.avi") if plots else []):
        distances = [np.abs(plot - frame).mean() for plot in plots]
        assert distances[i] < min(distances) + 0.5
    return tmp_path / name


def differing(videos):
    """The numbers of the frames that two videos do not share."""
    one, other = (video_of(path) for path in videos)
    assert len(one) == len(other)
    return [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if np.abs(a - b).max() > 30]


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_correction_reaches_the_saved_frame(network, frames, tmp_path, number):
    path = write_video(tmp_path / "clip.avi", frames)
    plain, corrected = (saved(network, tmp_path, f"run{len(on)}", path, on) for on in ([], [number]))
    assert differing([plain / "clip.avi", corrected / "clip.avi"]) == list(range(number, 5))
    for i in range(5):
        one, other = (folder / "labels" / f"clip_{i}.txt" for folder in (plain, corrected))
        ids = [line.split()[-1] for line in other.read_text().splitlines()]
        assert ids == (["0", "9"] if i >= number else ["0"]) or one.read_text() == other.read_text() == ""
        images = [
            cv2.imread(str(folder / "clip_frames" / f"clip_{i}.jpg")).astype(int) for folder in (plain, corrected)
        ]
        assert (np.abs(images[0] - images[1]).max() > 30) == (i >= number)


def test_each_frame_is_saved_once_also_where_it_is_corrected_twice(network, frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", frames)
    folder = saved(network, tmp_path, "run", path, [1, 2, 2])
    assert len(video_of(folder / "clip.avi")) == 5 and len(list((folder / "clip_frames").iterdir())) == 5


def test_a_run_that_is_left_early_has_saved_what_it_gave(network, frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", frames)
    folder = saved(network, tmp_path, "run", path, [2], until=2)
    assert len(video_of(folder / "clip.avi")) == 3


def test_a_correction_in_one_of_two_streams_reaches_its_own_video(network, frames, tmp_path):
    runs = [
        saved(network, tmp_path, name, Cameras(frames, frames[::-1]), on)
        for name, on in (("plain", []), ("corrected", [3]))
    ]
    for camera, expected in (("camera0", [3, 4]), ("camera1", [])):
        assert differing([run / f"{camera}.avi" for run in runs]) == expected


def test_several_videos_are_whole_each(network, frames, tmp_path):
    (tmp_path / "clips").mkdir()
    for name, count in (("a", 3), ("b", 1), ("c", 4)):
        write_video(tmp_path / "clips" / f"{name}.avi", frames[:count])
    folder = saved(network, tmp_path, "run", str(tmp_path / "clips"), [])
    assert [len(video_of(folder / f"{name}.avi")) for name in "abc"] == [3, 1, 4]


@pytest.mark.parametrize("number", [0, 2])
def test_a_correction_reaches_the_crops_of_its_frame_and_no_other(network, frames, tmp_path, number):
    path = write_video(tmp_path / "clip.avi", frames)
    folders = [saved(network, tmp_path, f"run{len(on)}", path, on, names={0: "a", 9: "b"}) for on in ([], [number])]
    plain, corrected = (
        {str(file.relative_to(folder / "crops")): digest(file) for file in folder.glob("crops/*/*")}
        for folder in folders
    )
    before = {name for name in plain if int(name.split("_")[-1].removesuffix(".jpg")) < number}
    assert {name for name in corrected if name.startswith("b")} == {f"b/clip_{i}.jpg" for i in range(number, 5)}
    assert all(corrected[name] == plain[name] for name in before)
    assert len([name for name in corrected if name.startswith("a")]) == len(plain)


@pytest.mark.parametrize("number", [0, 4])
def test_a_correction_reaches_the_labels_of_save_format(network, frames, tmp_path, number):
    path = write_video(tmp_path / "clip.avi", frames)
    folder = saved(network, tmp_path, "run", path, [number], save_format="coco")
    content = json.loads((folder / "annotations.json").read_text())
    frame_of = {image["id"]: image["frame"] for image in content["images"]}
    corrected = [frame_of[each["image_id"]] for each in content["annotations"] if each["track_id"] == 9]
    assert corrected == list(range(number, 5)) and len(frame_of) == 5


@pytest.mark.parametrize("name", ["../../out", "/out", "a/b", "a\\b", "..", "a\0b"])
def test_a_crop_stays_in_its_folder_whatever_its_class_is_called(tmp_path, name):
    boxes = torch.tensor([[2.0, 2, 9, 9, 0.9, 0]])
    result = MaskResults(np.zeros((20, 30, 3), np.uint8), "a.png", {0: name}, boxes=boxes)
    result.save_crop(tmp_path / "run" / "crops", "a.png")
    (file,) = tmp_path.rglob("*.jpg")
    assert file.parent.parent == tmp_path / "run" / "crops" and [*result.crops] == [file]
