"""Which way `SAM.predict` goes with prompts: through memory on what moves, image by image on what does not."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.videos import BOX, OTHER, film, write_video

from samplug import SAM
from samplug.cli import main
from samplug.sources.video_loader import has_video

FOLLOWED = "Following the prompted objects through memory"
ALONE = "Prompting every frame alone"
LENGTHS = {"b.avi": 3, "a.avi": 2}


@pytest.fixture(scope="module")
def model(nano_file):
    return SAM(nano_file)


@pytest.fixture
def ask(model):
    """Runs a method of the model, small and silent but for what it logs of its way."""
    return lambda method, source, **said: list(
        getattr(model, method)(source, **{"imgsz": 128, "verbose": False, "bboxes": [BOX], "stream": True, **said})
    )


@pytest.fixture
def clips(tmp_path):
    """A folder of two videos."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, length in LENGTHS.items():
        write_video(folder / name, film()[:length])
    return folder


@pytest.fixture
def shots(tmp_path):
    """A folder of three images."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for i, frame in enumerate(film()[:3]):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    return folder


def listed(folder):
    path = folder / "list.txt"
    path.write_text("\n".join(str(folder / name) for name in LENGTHS))
    return path


def spelled(folder):
    """Ways to name what lies in a folder."""
    return {
        "folder": str(folder),
        "path": folder,
        "glob": str(folder / "*.*"),
        "list": [str(file) for file in sorted(folder.iterdir())],
        "folders in a list": [folder],
        "globs in a list": (f"{folder}/*",),
    }


def seen(results):
    """(file, frame) of each result."""
    return [(os.path.basename(result.path), result.frame) for result in results]


def of_videos(*names):
    return [(name, frame) for name in names for frame in range(LENGTHS[name])]


def same(results, others):
    return all(
        np.array_equal(one.boxes.data, other.boxes.data) and np.array_equal(one.masks.data, other.masks.data)
        for one, other in zip(results, others, strict=True)
    )


@pytest.mark.host
@pytest.mark.parametrize("kind", [*spelled(Path()), "text file"])
def test_videos_are_followed_however_they_are_named(ask, clips, capture_log, kind):
    source = listed(clips) if kind == "text file" else spelled(clips)[kind]
    results = ask("predict", source)
    assert seen(results) == of_videos("a.avi", "b.avi")
    assert all(result.boxes.id.tolist() == [0] for result in results)
    assert sum(FOLLOWED in line for line in capture_log) == 1
    assert same(results, [*ask("predict", str(clips / "a.avi")), *ask("predict", str(clips / "b.avi"))])


@pytest.mark.host
def test_track_false_prompts_every_frame_of_them_alone_and_says_so(ask, clips, capture_log):
    for source in (str(clips), str(clips / "*.avi"), [str(clips / name) for name in LENGTHS], listed(clips)):
        results = ask("predict", source, track=False)
        assert len(results) == sum(LENGTHS.values()) and all(result.boxes.id is None for result in results)
        assert ALONE in capture_log[-1] and not any(FOLLOWED in line for line in capture_log)


@pytest.mark.host
@pytest.mark.parametrize("kind", spelled(Path()))
def test_images_alone_are_prompted_one_by_one_unless_tracking_is_asked_for(ask, shots, capture_log, kind):
    source = spelled(shots)[kind]
    if not kind.endswith("in a list"):  # `predict` takes images in lists, no folders of them
        assert [result.boxes.id for result in ask("predict", source)] == [None] * 3
        assert not any(FOLLOWED in line or ALONE in line for line in capture_log)
    assert [result.boxes.id.tolist() for result in ask("track", source)] == [[0]] * 3
    assert [result.boxes.id.tolist() for result in ask("predict", source, track=True)] == [[0]] * 3


def test_images_beside_videos_are_one_more_video_and_the_log_says_so(ask, clips, shots, capture_log):
    for file in shots.iterdir():
        file.rename(clips / file.name)
    results = ask("predict", str(clips))
    assert seen(results) == [("0.png", 0), ("1.png", 1), ("2.png", 2), *of_videos("a.avi", "b.avi")]
    assert any("clips: its images lie beside videos" in line and "frames: 3" in line for line in capture_log)
    assert same(results, ask("track", str(clips)))
    alone = [*ask("track", sorted(map(str, clips.glob("*.png")))), *ask("track", str(clips / "*.avi"))]
    assert same(results, alone)


def test_videos_in_a_list_keep_their_order_and_their_prompts(ask, clips):
    order = ["b.avi", "a.avi"]
    prompts = [{"bboxes": [BOX], "obj_ids": [4]}, {"bboxes": [OTHER], "obj_ids": [9]}]
    for method in ("predict", "track"):
        results = ask(method, [str(clips / name) for name in order], bboxes=None, prompts=prompts)
        assert seen(results) == of_videos(*order)
        assert [result.obj_ids for result in results] == [(4,)] * 3 + [(9,)] * 2


def test_a_video_of_a_list_that_is_not_there_is_left_out_by_name(model, ask, clips):
    (clips / "nothing").mkdir()
    sources = [str(clips / "none.avi"), str(clips / "nothing"), str(clips / "a.avi")]
    assert seen(ask("predict", sources)) == of_videos("a.avi")
    assert {os.path.basename(fault.name) for fault in model.predictor.errors.all} == {"none.avi", "nothing"}


def test_images_in_memory_and_videos_in_one_list_are_all_followed(ask, clips, capture_log):
    frames = film()[:2]
    results = ask("predict", [frames[0], str(clips / "a.avi"), frames[1]])
    assert seen(results) == [("frames", 0), ("frames", 1), *of_videos("a.avi")]
    assert any("frames: its images lie beside videos" in line for line in capture_log)
    assert same(results, [*ask("track", frames), *ask("predict", str(clips / "a.avi"))])


def test_a_folder_of_images_that_is_named_like_a_video_is_none(ask, shots):
    folder = shots.rename(shots.parent / "film.mp4")
    assert [result.boxes.id for result in ask("predict", str(folder))] == [None] * 3


@pytest.mark.host
def test_a_loader_moves_when_it_has_a_video(clips, shots):
    from ultralytics.data.loaders import LoadImagesAndVideos

    assert has_video(LoadImagesAndVideos(str(clips))) and not has_video(LoadImagesAndVideos(str(shots)))
    cv2.imwrite(str(clips / "0.png"), film()[0])
    assert has_video(LoadImagesAndVideos(str(clips)))


def test_the_shell_follows_a_folder_of_videos(nano_file, clips, tmp_path, capture_log):
    words = [
        f"model={nano_file}",
        f"source={clips}/",
        f"bboxes=[{BOX}]",
        f"project={tmp_path}",
        "name=out",
        "imgsz=128",
    ]
    main.samplug(["predict", *words, "save_txt"])
    assert any(FOLLOWED in line for line in capture_log)
    labels = sorted((tmp_path / "out" / "labels").iterdir())
    assert len(labels) == 5 and all(path.read_text().split()[-1] == "0" for path in labels)  # its id
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.avi", "b.avi", "labels"}


# ------------------------------------------------------------------ GIF, which Ultralytics counts as a video


@pytest.fixture
def gifs(tmp_path):
    """A folder of two: one that moves, and a still image."""
    folder = tmp_path / "gifs"
    folder.mkdir()
    first, *others = [Image.fromarray(frame[..., ::-1]) for frame in film()[:4]]
    first.save(folder / "moving.gif", save_all=True, append_images=others, duration=100)
    first.save(folder / "still.gif")
    return folder


@pytest.mark.host
@pytest.mark.parametrize("method", ["predict", "track"])
def test_a_gif_is_followed_like_any_video(ask, gifs, capture_log, method):
    moving, still = [("moving.gif", frame) for frame in range(4)], [("still.gif", 0)]
    for source, expected in (
        ("moving.gif", moving),
        ("still.gif", still),
        ("", moving + still),
        ("*.gif", moving + still),
    ):
        results = ask(method, str(gifs / source))
        assert seen(results) == expected and FOLLOWED in capture_log[0]
        assert all(result.boxes.id.tolist() == [0] and result.orig_shape == (96, 128) for result in results)
    results = ask(method, [str(gifs / "still.gif"), str(gifs / "moving.gif")])
    assert seen(results) == still + moving


@pytest.mark.host
def test_a_gif_is_prompted_frame_by_frame_and_searched_for_everything(ask, gifs):
    assert [len(result) for result in ask("predict", str(gifs / "moving.gif"), track=False)] == [1] * 4
    everything = ask("predict", str(gifs), bboxes=None, points_stride=4)
    assert len(everything) == 5 and all(result.boxes.id is None for result in everything)
    with Image.open(gifs / "moving.gif") as opened:
        (result,) = ask("predict", opened)
    assert len(result) == 1
