"""Following objects with a real network: to the bit, and in bounded memory."""

from dataclasses import replace

import pytest
import torch
from support.walks import FRAMES, click, drifting, state_bytes, tensors

from samplug.checkpoints.load import load_model
from samplug.tracking import Reference, Tracker, steps

SIZE = 64


@pytest.fixture(scope="module")
def model(nano_file):
    return load_model(nano_file)


@pytest.fixture(scope="module")
def frames(model):
    return drifting(model, FRAMES, 2, 1, plane=4 * SIZE)


def followed(model, frames, start=None, events=None, **how):
    """Every object's answers by frame; `events` are called with the tracker ahead of a frame's step."""
    tracker = Tracker(model, **how)
    answers = {}
    for i, features in enumerate(frames):
        tracker.start_frame(i, features)
        if i == 0:
            for obj_id, prompts in (start or {1: click()}).items():
                tracker.prompt(obj_id, prompts)
        if events and i in events:
            events[i](tracker)
        objects = tracker.step()
        for row, obj_id in enumerate(objects.ids):
            answers[i, obj_id] = objects.output[row]
    return answers, tracker


def assert_equal(these, those):
    assert these.keys() == those.keys()
    for key in these:
        for name in ("logits", "pointer", "presence", "iou"):
            assert torch.equal(getattr(these[key], name), getattr(those[key], name)), (key, name)


def test_what_is_forgotten_changes_no_bit(model, frames):
    corrections = {i: lambda tracker: tracker.prompt(1, click(40, 20)) for i in (5, 9, 16, 23, 30)}
    runs = [followed(model, frames, events=corrections, max_prompted=2, forget=forget) for forget in (True, False)]
    assert_equal(runs[0][0], runs[1][0])
    assert state_bytes(runs[0][1]) < state_bytes(runs[1][1]) / 2


def test_objects_that_come_and_go_change_no_bit_of_the_others(model, frames):
    alone, _ = followed(model, frames[:20])
    events = {
        4: lambda tracker: tracker.prompt(-7, click(50, 50)),
        9: lambda tracker: tracker.prompt(12, click(10, 50)),
        14: lambda tracker: tracker.remove(-7),
    }
    among, tracker = followed(model, frames[:20], events=events)
    assert_equal(alone, {key: answer for key, answer in among.items() if key[1] == 1})
    assert {key[0] for key in among if key[1] == -7} == set(range(4, 14)) and tracker.ids == (1, 12)


def test_the_state_stays_as_large_as_it_is(model, frames):
    tracker = Tracker(model, max_prompted=2)
    sizes = []
    for i in range(150):
        tracker.start_frame(i, frames[i % FRAMES])
        if i % 30 == 0:
            tracker.prompt(1, click())
        tracker.step()
        sizes.append(state_bytes(tracker))
    assert sizes[60:90] == sizes[90:120] == sizes[120:150]


def test_answers_carry_no_gradient(model, frames):
    answers, tracker = followed(model, frames[:3])
    assert not any(answer.logits.requires_grad for answer in answers.values())
    assert not any(tensor.requires_grad for track in tracker._tracks.values() for tensor in tensors(track))


def test_a_prompted_frame_is_remembered_from_its_own_mask_and_presence(model, frames):
    """From the quarter-size logits, brought up, as 0 and 1, with the presence that was predicted."""
    tracker = Tracker(model)
    tracker.start_frame(0, frames[0])
    output = tracker.prompt(1, click())
    tracker.step()
    memory = model.encode_memory(frames[0], output.logits, output.presence, torch.tensor([0]), True, True)
    assert torch.equal(tracker._tracks[1].records[0].memory, memory)
    soft = model.encode_memory(frames[0], output.logits, output.presence, torch.tensor([0]), True, False)
    assert not torch.allclose(memory, soft, atol=1e-3)


def test_a_mask_is_the_answer_or_a_prompt_as_the_network_says(model, frames, monkeypatch):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 20:44, 12:32] = 1
    tracker = Tracker(model)
    tracker.start_frame(0, frames[0])
    assert torch.equal(tracker.prompt(1, mask=mask).logits > 0, mask[:, 0, ::4, ::4] > 0)
    monkeypatch.setattr(model, "use_mask_input_as_output_without_sam", False)
    assert tracker.prompt(2, mask=mask).iou != 1


def test_every_pixel_is_remembered_for_one_object_where_the_network_says_so(model, frames, monkeypatch):
    start = {1: click(20, 30), 2: click(22, 32)}
    usual, _ = followed(model, frames[:3], start)
    monkeypatch.setattr(model, "non_overlap_masks_for_mem_enc", True)
    rivals, _ = followed(model, frames[:3], start)
    assert torch.equal(usual[0, 2].logits, rivals[0, 2].logits)
    assert not torch.allclose(usual[2, 2].logits, rivals[2, 2].logits, atol=1e-3)


def test_objects_in_one_batch_are_answered_as_if_one_by_one(model, frames, monkeypatch):
    start = {i: click(8.0 + 10 * i, 50.0 - 8 * i) for i in range(4)}
    single, _ = followed(model, frames[:5], start)

    monkeypatch.setattr(steps, "runs_batched", lambda features: True)
    together, _ = followed(model, frames[:5], start)
    for key, answer in single.items():
        torch.testing.assert_close(together[key].logits, answer.logits, rtol=0, atol=1e-3)


def test_a_policy_is_an_objects_own(model, frames):
    made = []

    def policy():
        made.append(Reference())
        return made[-1]

    _, tracker = followed(model, frames[:3], {1: click(), 2: click(40, 40)}, policy=policy)
    assert len(made) == 2
    tracker.rewind()
    assert len(made) == 4


def test_the_absent_object_is_told_by_the_policys_own_threshold(model, frames):
    class Strict(Reference):
        present_above = 1e9

    answers, _ = followed(model, frames[:2], policy=Strict)
    assert (answers[1, 1].logits == -1024).all() and (answers[0, 1].logits > -1024).any()


def test_a_record_is_replaced_not_changed(model, frames):
    tracker = Tracker(model)
    tracker.start_frame(0, frames[0])
    first = tracker.prompt(1, click())
    copy = replace(first, logits=first.logits.clone())
    tracker.step()
    tracker.prompt(1, click(40, 40))
    assert torch.equal(first.logits, copy.logits)


def test_the_network_is_not_changed(model, frames):
    options = {key: value for key, value in vars(model).items() if isinstance(value, (bool, int, float, str, tuple))}
    followed(model, frames[:3], binarize=True)
    assert options == {key: vars(model)[key] for key in options}
    assert options["binarize_mask_from_pts_for_mem_enc"] is False
