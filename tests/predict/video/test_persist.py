"""`SAM.track(frame, persist=True)` in a loop of one's own follows what was prompted."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import BOX, OTHER, alike, film, write_video

from samplug import SAM, PromptError

OPTIONS = {"imgsz": 128, "verbose": False, "logits": True}
FRAMES = film()


@pytest.fixture
def model(nano_file):
    return SAM(nano_file)


def loop(model, frames=FRAMES[:5], prompts=None, **options):
    """The results of a loop over frames, with the arguments of some frames by their numbers."""
    prompts = {0: {"bboxes": [BOX]}} if prompts is None else prompts
    calls = (
        model.track(frame, persist=True, **OPTIONS, **options, **prompts.get(i, {})) for i, frame in enumerate(frames)
    )
    return [result for results in calls for result in results]


def tensor(frame):
    return torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None] / 255


FORMS = {
    "array": lambda frame: frame,
    "list of one": lambda frame: [frame],
    "PIL": lambda frame: Image.fromarray(frame[..., ::-1]),
    "tensor": tensor,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_loop_over_frames_equals_a_run_over_them(model, form):
    expected = list(model.track(FRAMES[:5], bboxes=[BOX], **OPTIONS))
    stepped = loop(model, [FORMS[form](frame) for frame in FRAMES[:5]])
    assert alike(stepped, expected) and [result.frame for result in stepped] == [0, 1, 2, 3, 4]


def test_several_frames_a_call_and_streams_go_on_as_well(model):
    expected = list(model.track(FRAMES[:6], bboxes=[BOX], **OPTIONS))
    first = model.track(FRAMES[:2], persist=True, bboxes=[BOX], **OPTIONS)
    second = list(model.track(FRAMES[2:5], persist=True, stream=True, **OPTIONS))
    assert alike([*first, *second, *model.track(FRAMES[5], persist=True, **OPTIONS)], expected)


def test_a_video_goes_on_where_frames_ended(model, tmp_path):
    clip = write_video(tmp_path / "clip.avi", FRAMES[1:4])
    expected = list(model.track(FRAMES[:4], bboxes=[BOX], **OPTIONS))
    assert alike([*loop(model, FRAMES[:1]), *model.track(clip, persist=True, **OPTIONS)], expected)


def test_prompts_may_come_late_and_for_other_objects(model):
    given = {1: {"bboxes": [BOX], "obj_ids": [4]}, 3: {"points": [[100, 60]], "obj_ids": [9]}}
    stepped = loop(model, FRAMES[1:5], {i - 1: each for i, each in given.items()}, keep_lost=True)
    ahead = {0: {4: {"bboxes": BOX}}, 2: {9: {"points": [100, 60]}}}
    assert alike(stepped, model.track(FRAMES[1:5], prompts=ahead, keep_lost=True, **OPTIONS))
    assert [result.obj_ids for result in stepped] == [(4,), (4,), (4, 9), (4, 9)]


def test_a_frame_just_returned_is_corrected(model):
    loop(model, FRAMES[:2])
    model.predictor.add_new_prompts(3, bboxes=OTHER)
    assert model.predictor.results[0].obj_ids == (0, 3)
    (result,) = model.track(FRAMES[2], persist=True, **OPTIONS)
    assert result.obj_ids == (0, 3)


def test_other_calls_between_two_frames_change_nothing(model):
    expected = loop(model)
    model.track(FRAMES[0], bboxes=[OTHER], **OPTIONS)
    stepped = []
    for i, frame in enumerate(FRAMES[:5]):
        stepped += model.track(frame, persist=True, **OPTIONS, **({"bboxes": [BOX]} if not i else {}))
        model.predict(frame, points=[[20, 20]], imgsz=128, verbose=False)
    assert alike(stepped, expected)


def test_a_call_without_persist_begins_anew(model):
    loop(model)
    (result,) = model.track(FRAMES[3], persist=False, bboxes=[OTHER], obj_ids=[6], **OPTIONS)
    assert result.frame == 0 and result.obj_ids == (6,)
    (result,) = loop(model, FRAMES[4:5], {0: {"bboxes": [BOX], "obj_ids": [2]}})
    assert result.frame == 0 and result.obj_ids == (2,)


def test_without_prompts_the_hosts_trackers_give_ids_and_the_log_says_so(model, caplog, monkeypatch):
    pytest.importorskip("lap")
    monkeypatch.setattr("samplug.host.say_once", lambda line: caplog.records.append(line) or seen.append(line))
    seen = []
    model.track(FRAMES[0], persist=True, imgsz=128, verbose=False, points_stride=4)
    assert any("trackers give the ids" in line for line in seen)


@pytest.mark.parametrize(
    ("option", "error"),
    [({"imgsz": 64}, "imgsz: got .64, 64. with persist=True"), ({"reverse": True}, "reverse"), ({"start": 2}, "start")],
    ids=str,
)
def test_what_does_not_go_on_is_refused(model, option, error):
    loop(model, FRAMES[:1])
    with pytest.raises(PromptError, match=error):
        model.track(FRAMES[1], persist=True, **{**OPTIONS, **option})
    assert [result.obj_ids for result in model.track(FRAMES[1], persist=True, **OPTIONS)] == [(0,)]


def test_the_saved_labels_of_a_loop_are_a_file_a_frame(model, tmp_path):
    saved = {"save_txt": True, "project": str(tmp_path), "name": "out", "exist_ok": True}
    results = loop(model, **saved, keep_lost=True)
    drawn = [i for i, result in enumerate(results) if result.masks.data.any()]
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == [f"frames_{i}.txt" for i in drawn]
    assert np.array_equal(results[0].orig_img, FRAMES[0])


def test_a_frame_a_call_is_not_warned_of_as_a_long_video(model, caplog):
    loop(model, FRAMES[:2])
    assert "accumulate in RAM" not in caplog.text
