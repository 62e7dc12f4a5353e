"""What the video predictor runs over: clips by their true frame numbers, whatever they come from."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.images import draw
from support.videos import write_video

from samplug.errors import PromptError
from samplug.prompts.per_frame import VideoPrompts, read_frame
from samplug.prompts.raw import RawPrompts
from samplug.sources.errors import ErrorPolicy
from samplug.sources.image_loader import image_loader_of
from samplug.sources.video import FrameOrder, FrameStream, ImageSequence, VideoFile, natural_key
from samplug.sources.video_loader import VideoLoader, has_video, video_loader_of, videos_of_files

LENGTH = 7


@pytest.fixture(scope="module")
def frames():
    return [np.roll(draw(48, 64, 1), 3 * i, 1) for i in range(LENGTH)]


@pytest.fixture
def video(tmp_path, frames):
    return write_video(tmp_path / "clip.avi", frames)


def numbers(shots):
    return [shot.number for shot in shots]


def same(clip, frames):
    shots = list(clip.forward(0))
    return len(shots) == len(frames) and all(np.array_equal(s.image, f) for s, f in zip(shots, frames, strict=True))


def test_frames_are_sorted_as_people_count():
    assert sorted(["f10.png", "f2.png", "F1.png", "a.png"], key=natural_key) == ["a.png", "F1.png", "f2.png", "f10.png"]


def test_one_content_from_every_source(tmp_path, video, frames):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"shot {i + 5}.png"), frame)
    files = [str(folder / f"shot {i + 5}.png") for i in range(LENGTH)]
    tensor = torch.from_numpy(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    pil = [Image.fromarray(frame[..., ::-1]) for frame in frames]
    for source in (frames, tuple(frames), np.stack(frames), iter(frames), tensor, pil, files, (f for f in files)):
        (clip,) = video_loader_of(source).videos
        assert same(clip, frames)
    (clip,) = videos_of_files(sorted(files))
    assert clip.path == str(folder) and same(clip, frames)
    assert same(VideoFile(str(video)), frames)
    (clip,) = video_loader_of([str(video)]).videos
    assert same(clip, frames)


def test_an_iterator_is_taken_a_frame_at_a_time(frames):
    taken = []
    loader = iter(video_loader_of(taken.append(i) or frame for i, frame in enumerate(frames)))
    next(loader)
    assert taken == [0]
    next(loader)
    assert taken == [0, 1]


def test_a_folder_of_each_kind_is_a_video_of_its_own(tmp_path, video, frames):
    for name in ("b/2.png", "b/10.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), frames[0])
    files = [str(tmp_path / name) for name in ("a/1.png", "b/10.png", "b/2.png")]
    clips = videos_of_files([*files, str(video)])
    assert [clip.path for clip in clips] == [str(tmp_path / "a"), str(tmp_path / "b"), str(video)]
    assert clips[1].items == [files[2], files[1]]


def test_an_image_that_cannot_be_read_leaves_its_number_unused(tmp_path, frames, capture_log):
    cv2.imwrite(str(tmp_path / "0.png"), frames[0])
    (tmp_path / "1.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "2.png"), frames[2])
    clip = ImageSequence([str(tmp_path / f"{i}.png") for i in range(3)], "few")
    clip.errors = ErrorPolicy()
    assert numbers(clip.forward(0)) == [0, 2]
    assert any("1.png" in line for line in capture_log)


@pytest.mark.parametrize("claimed", [0, 1, 3, 10**6])
def test_the_number_of_frames_that_a_file_claims_is_not_believed(video, frames, monkeypatch, claimed):
    honest = cv2.VideoCapture

    class Lying:
        def __init__(self, path):
            self.capture = honest(path)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, what):
            return claimed if what == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(what)

    monkeypatch.setattr(cv2, "VideoCapture", Lying)
    (clip,) = video_loader_of([str(video)]).videos
    assert same(clip, frames)
    assert numbers(clip.backward(None)) == list(range(LENGTH))[::-1]


@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_a_file_is_walked_backwards_frame_by_frame(video, frames, monkeypatch, chunk):
    monkeypatch.setattr("samplug.sources.video.CHUNK", chunk)
    clip = VideoFile(str(video))
    shots = list(clip.backward(None))
    assert numbers(shots) == [6, 5, 4, 3, 2, 1, 0]
    assert all(np.array_equal(shot.image, frames[shot.number]) for shot in shots)
    assert numbers(clip.backward(5, 2)) == [5, 3, 1]
    assert numbers(clip.backward(4, 3)) == [4, 1]


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (FrameOrder(), [0, 1, 2, 3, 4, 5, 6]),
        (FrameOrder(stride=3), [2, 5]),
        (FrameOrder(start=4), [4, 5, 6]),
        (FrameOrder(start=1, stride=2), [1, 3, 5]),
        (FrameOrder(reverse=True), [6, 5, 4, 3, 2, 1, 0]),
        (FrameOrder(start=3, stride=2, reverse=True), [3, 1]),
        (FrameOrder(start=4, reverse="both"), [4, 5, 6, 3, 2, 1, 0]),
        (FrameOrder(reverse="both"), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_course_names_the_frames_and_their_order(video, frames, course, expected):
    for clip in (ImageSequence(frames, "list"), VideoFile(str(video))):
        shots = list(course.frames(clip))
        assert [shot.number for _, shot in shots] == expected
        clocks = [shot.number // course.stride for _, shot in shots]
        assert len(set(clocks)) == len(clocks) == max(clocks) - min(clocks) + 1  # no gaps for the tracker


def test_a_stride_gives_the_frames_that_ultralytics_gives(video, frames):
    from ultralytics.data.loaders import LoadImagesAndVideos

    theirs = [images[0] for _, images, _ in LoadImagesAndVideos(str(video), vid_stride=3)]
    ours = [shot.image for _, shot in FrameOrder(stride=3).frames(VideoFile(str(video)))]
    assert len(theirs) == len(ours) and all(map(np.array_equal, theirs, ours))


def test_what_cannot_go_back_says_so(frames):
    clip = FrameStream(iter(frames), "camera")
    with pytest.raises(ValueError, match="backwards"):
        clip.backward(3)
    with pytest.raises(IndexError, match="cannot go back"):
        clip.read(0)
    assert np.array_equal(ImageSequence(frames, "list").read(3).image, frames[3])
    with pytest.raises(IndexError, match="no frame 9"):
        ImageSequence(frames, "list").read(9)


def test_the_loader_says_in_words_and_attributes_which_frame_it_is(frames):
    loader = VideoLoader([ImageSequence(frames[:2], "one"), FrameStream(iter(frames[:1]), "two")])
    seen = [(paths, info, loader.frame, loader.count, loader.video_frame.number) for paths, _, info in loader]
    assert seen == [
        (["one"], ["video 1/2 (frame 0/2) one: "], 0, 0, 0),
        (["one"], ["video 1/2 (frame 1/2) one: "], 1, 0, 1),
        (["two"], ["video 2/2 (frame 0/?) two: "], 0, 1, 0),
    ]


def test_the_number_that_a_header_claims_is_shown_until_it_proves_wrong(video, frames):
    clip = VideoFile(str(video))
    for claimed, shown in ((LENGTH, ["7"] * 7), (5, ["5"] * 5 + ["?"] * 2)):
        clip.open = lambda claimed=claimed: setattr(clip, "stated", claimed)
        clip.open()
        lines = [info[0] for _, _, info in VideoLoader([clip])]
        assert [re.search(r"frame \d+/(.+?)\)", line)[1] for line in lines] == shown


def test_streams_keep_the_loader_of_ultralytics(frames):
    from ultralytics.data.loaders import LoadPilAndNumpy, LoadStreams

    streams = LoadStreams.__new__(LoadStreams)
    assert video_loader_of(streams) is streams and video_loader_of(streams) is streams
    assert isinstance(video_loader_of(LoadPilAndNumpy(frames)), VideoLoader)


def test_nothing_is_no_source():
    with pytest.raises(FileNotFoundError):
        video_loader_of([])
    with pytest.raises(TypeError, match="float"):
        video_loader_of(0.5)
    with pytest.raises(TypeError, match="is not an image"):
        list(video_loader_of([{"a": 1}]))


@pytest.mark.parametrize(
    "source", ["a.MP4", "rtsp://camera/1", 0, "0", "screen", "screen 0 1 2 3 4", "list.streams", "http://camera/video"]
)
def test_videos_and_streams_move(source):
    assert has_video(source) and has_video(iter([]))


@pytest.mark.parametrize("source", ["a.jpg", "folder", "*.png", "https://x.org/a.jpg", [], np.zeros((4, 4, 3))])
def test_images_do_not_move(source):
    assert not has_video(source)


# ------------------------------------------------------------------ prompts over time


def test_prompts_by_frame_are_read_with_numbers_and_from_a_file(tmp_path):
    plan = {0: {7: {"points": [[5, 6], [7, 8]], "labels": [1, 0]}}, 3: {2: {"bboxes": [1, 2, 30, 40], "cls": 4}}}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    for prompts in (plan, str(path)):
        timeline = VideoPrompts(RawPrompts(prompts=prompts), 1).for_video(0, "a.mp4")
        (first,) = timeline.pop(0, False, (60, 80))
        assert first.ids == (7,) and first.cls is None and first.objects[0].labels.tolist() == [1, 0]
        assert timeline.pop(2, False, (60, 80)) == []
        (later,) = timeline.pop(4, False, (60, 80))  # frame 3 was passed over
        assert later.ids == (2,) and later.cls == (4,) and later.objects[0].box.tolist() == [1, 2, 30, 40]
        assert timeline.pop(5, False, (60, 80)) == [] and timeline.given


def test_prompts_may_differ_from_video_to_video():
    one, other = {"bboxes": [[1, 2, 3, 4]]}, {2: {5: {"points": [3, 4]}}}
    timelines = VideoPrompts(RawPrompts(prompts={"a.mp4": one, "b.mp4": other}), 3)
    assert [len(timelines.for_video(i, f"/x/{name}.mp4").pop(0, False, (9, 9))) for i, name in enumerate("abc")] == [
        1,
        0,
        0,
    ]
    (later,) = timelines.for_video(1, "/x/b.mp4").pop(2, False, (9, 9))
    assert later.ids == (5,) and timelines.for_video(2, "c.mp4").given
    timelines = VideoPrompts(RawPrompts(prompts=[one, other]), 2)
    assert [len(timelines.for_video(i, "").pop(0, False, (9, 9))) for i in range(2)] == [1, 0]


def test_a_later_frame_takes_every_spelling_of_one_image():
    rows = read_frame({"bboxes": [[1, 2, 3, 4], [2, 3, 4, 5]], "obj_ids": [4, 9]}, (9, 9))
    assert [one.ids for one in rows] == [(4,), (9,)]
    assert [one.ids for one in read_frame({"points": [[1, 2], [3, 4]]}, (9, 9))] == [(0,), (1,)]
    assert read_frame(None, (9, 9)) == []


def test_prompts_of_two_kinds_or_objects_are_refused():
    mask = np.zeros((9, 9), bool)
    with pytest.raises(PromptError, match="one kind"):
        read_frame({1: {"masks": mask, "points": [1, 2]}}, (9, 9))
    with pytest.raises(PromptError, match="under the id 1"):
        read_frame({1: {"bboxes": [[1, 2, 3, 4], [2, 3, 4, 5]]}}, (9, 9))
    with pytest.raises(PromptError, match="did you mean 'bboxes'"):
        read_frame({1: {"boxes": [1, 2, 3, 4]}}, (9, 9))
    with pytest.raises(PromptError, match="outside"):
        read_frame({1: {"points": [100, 2]}}, (9, 9))


def test_nothing_given_is_not_the_same_as_no_objects():
    assert not VideoPrompts(RawPrompts(), 1).for_video(0, "a").given
    assert VideoPrompts(RawPrompts(bboxes=[]), 1).for_video(0, "a").given


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (4, 8, 8), (8, 8, 3), (1, 2, 3, 8, 8)])
def test_a_tensor_of_other_channels_is_refused_as_for_images(shape):
    for loader_of in (video_loader_of, lambda source: image_loader_of(source, None, 1, 1)):
        with pytest.raises(ValueError, match=r"Expected \(F, 3, H, W\) RGB: channels come first"):
            loader_of(torch.rand(shape))
