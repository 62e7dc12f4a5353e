"""Following objects: the bookkeeping with a network that only notes what it is asked, the rest with a real one."""

from dataclasses import replace

import pytest
import torch

from samplug.checkpoints import load_model
from samplug.nn.frames import FrameOutput
from samplug.nn.types import Answer, Features, PromptBatch
from samplug.tracking import PresenceGate, Reference, Tracker
from samplug.tracking import answers as module

SIZE = 64
FRAMES = 40


class Notebook:
    """Stands in for the network: features, memories and pointers are frame numbers, and all looking back is noted."""

    num_maskmem, max_obj_ptrs_in_encoder, max_cond_frames_in_attn, memory_temporal_stride_for_eval = 7, 16, -1, 1
    only_obj_ptrs_in_the_past_for_eval = use_mask_input_as_output_without_sam = True
    add_all_frames_to_correct_as_cond = non_overlap_masks_for_mem_enc = False

    def __init__(self, absent=(), **options):
        self.absent, self.looks, self.fed_back, self.remembered = absent, {}, {}, []
        vars(self).update(options)

    def without_past(self, features):
        return features

    def begin(self, features):
        return features

    def look_back(self, features, past, owner):
        frame = int(features.image.item())
        slots = [(int(f), int(slot)) for f, slot in zip(past.memories.flatten(), past.slots[0], strict=True)]
        pointers = [(int(f), round(15 * t.item())) for f, t in zip(past.pointers.flatten(), past.times[0], strict=True)]
        self.looks[frame] = slots, pointers
        return features

    def candidates(self, features, prompts, prompted):
        frame = features.image.view(1, 1)
        self.fed_back[int(frame.item())] = prompts.masks
        presence = -1.0 if int(frame.item()) in self.absent else 1.0
        clicks = 0 if prompts.points is None else prompts.points.shape[1]
        logits = torch.full((1, 1, 4, 4), presence * (clicks + 1))
        return Answer(logits, torch.ones(1, 1), frame[None], torch.full((1, 1), presence))

    def settle(self, answer, choice=None, present_above=0.0):
        return FrameOutput(answer.logits[:, 0], answer.tokens[:, 0], answer.presence[:, 0], answer.iou[:, 0])

    def segment(self, features, prompts, prompted):
        return self.settle(self.candidates(features, prompts, prompted))

    def take_mask(self, features, masks, owner):
        return FrameOutput(20 * masks[:, 0] - 10, features.image.view(1, 1), torch.ones(1), torch.ones(1))

    def remember(self, features, logits, presence, owner, prompted, binarize=None):
        self.remembered.append((int(features.image.item()), prompted, binarize))
        return features.image.view(1, 1, 1).clone()


def number(frame):
    return Features(torch.full((1, 1, 1, 1), float(frame)))


def click(x=20.0, y=30.0, label=1):
    return PromptBatch(torch.tensor([0]), torch.tensor([[[x, y]]]), torch.tensor([[label]]))


def walk(tracker, frames, prompts=()):
    """Step through frames, prompting object 1 on some."""
    for frame in frames:
        tracker.see(frame, number(frame))
        if frame in prompts:
            tracker.prompt(1, click())
        yield tracker.step()


def noted(frames, prompts=(0,), options=None, **how):
    model = Notebook(**options or {})
    list(walk(Tracker(model, **how), frames, prompts))
    return model


# What is looked back at


def test_an_object_looks_back_at_its_prompt_and_the_frames_just_before():
    slots, pointers = noted(range(FRAMES)).looks[30]
    assert slots == [(0, 6), (24, 5), (25, 4), (26, 3), (27, 2), (28, 1), (29, 0)]
    assert pointers == [(0, 30), *((30 - d, d) for d in range(15, 0, -1))]


def test_with_a_stride_frames_between_are_let_go_and_those_asked_for_are_there():
    slots, pointers = noted(range(FRAMES), options={"memory_temporal_stride_for_eval": 3}).looks[32]
    assert slots == [(0, 6), (18, 5), (21, 4), (24, 3), (27, 2), (30, 1), (31, 0)]
    assert len(pointers) == 16


def test_backwards_an_object_looks_ahead():
    model = noted(range(30, -1, -1), prompts=(30,), reverse=True)
    slots, pointers = model.looks[10]
    assert slots == [(30, 6), (16, 5), (15, 4), (14, 3), (13, 2), (12, 1), (11, 0)]
    assert pointers == [*((10 + d, d) for d in range(1, 16)), (30, 20)]


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("prompts", [(0,), (0, 7, 8, 9, 20, 31), tuple(range(0, 60, 2)), (12,)])
@pytest.mark.parametrize("reverse", [False, True])
def test_whatever_is_dropped_nobody_would_have_asked_for(stride, prompts, reverse):
    frames = range(59, -1, -1) if reverse else range(60)
    prompts = tuple(59 - frame for frame in prompts) if reverse else prompts
    options = {"memory_temporal_stride_for_eval": stride}
    how = {"reverse": reverse, "max_prompted": 3, "options": options}
    dropping, keeping = (noted(frames, prompts, forget=forget, **how) for forget in (True, False))
    assert dropping.looks == keeping.looks and len(keeping.looks) > 20


def test_no_more_is_kept_than_can_be_asked_for():
    tracker = Tracker(Notebook())
    list(walk(tracker, range(FRAMES), (0,)))
    tracker.see(FRAMES, number(FRAMES))
    records = tracker._tracks[1].records
    assert [frame for frame, record in records.items() if record.memory is not None] == [0, *range(34, 40)]
    assert [frame for frame, record in records.items() if record.memory is None] == list(range(25, 34))
    assert [frame for frame, record in records.items() if record.logits.numel()] == [0]


def test_only_so_many_prompted_frames_count_and_minus_one_lifts_the_cap():
    prompts = range(0, 40, 4)
    capped, free = (noted(range(FRAMES), prompts, max_prompted=cap).looks[39][0] for cap in (4, -1))
    assert [frame for frame, slot in capped if slot == 6] == [24, 28, 32, 36]
    assert [frame for frame, slot in free if slot == 6] == list(prompts)


def test_the_networks_own_cap_holds_too():
    model = Notebook(max_cond_frames_in_attn=2)
    list(walk(Tracker(model), range(20), (0, 4, 8)))
    assert [frame for frame, slot in model.looks[19][0] if slot == 6] == [4, 8]


def test_a_prompted_frame_is_never_forgotten():
    model = noted(range(300))
    assert model.looks[299][0][0] == (0, 6) and model.looks[299][1][0] == (0, 299)


# Prompts


def test_a_frame_prompted_before_it_was_tracked_is_answered_without_looking_back():
    model = noted(range(10), prompts=(0, 5))
    assert 5 not in model.looks and 0 not in model.looks
    assert [slot for slot in model.looks[9][0] if slot[1] == 6] == [(0, 6), (5, 6)]


def test_a_correction_looks_back_feeds_the_last_mask_and_stays_a_tracked_frame():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(6), (0,)))
    del model.looks[5]
    before = model.fed_back[5]
    answer = tracker.prompt(1, click())
    assert before is None and torch.equal(model.fed_back[5], torch.ones(1, 1, 4, 4))
    assert 5 in model.looks
    assert torch.equal(tracker.step().output.logits, answer.logits)
    list(walk(tracker, range(6, 8)))
    assert model.looks[7][0] == [(0, 6), *((frame, 6 - frame) for frame in range(1, 7))]


def test_a_correction_looks_back_as_far_as_the_answer_that_it_corrects():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(FRAMES), (0,)))
    before = model.looks.pop(FRAMES - 1)
    tracker.prompt(1, click())
    assert model.looks[FRAMES - 1] == before


def test_a_correction_is_a_prompted_frame_where_the_network_says_so():
    tracker = Tracker(model := Notebook(add_all_frames_to_correct_as_cond=True))
    list(walk(tracker, range(6), (0,)))
    before = model.looks[5]
    tracker.prompt(1, click())
    tracker.step()
    tracker.prompt(1, click())
    assert model.looks[5] == before  # the second click looks back like the first, and not at what the first said
    list(walk(tracker, range(6, 8)))
    assert [frame for frame, slot in model.looks[7][0] if slot == 6] == [0, 5]


def test_what_is_fed_back_is_clamped():
    tracker = Tracker(model := Notebook())
    tracker.see(0, number(0))
    tracker.prompt(1, mask=torch.full((1, 1, 4, 4), 5.0))  # logits of 90
    tracker.prompt(1, click())
    assert model.fed_back[0].max() == 32


def test_a_new_prompt_replaces_clicks_unless_it_adds_to_them():
    tracker = Tracker(Notebook())
    tracker.see(0, number(0))
    assert [tracker.prompt(1, click(), add=add).logits.max() for add in (False, True, True, False)] == [2, 3, 4, 2]
    tracker.see(1, number(1))
    tracker.step()
    assert tracker.prompt(1, click(), add=True).logits.max() == 2  # clicks belong to frames


def test_masks_of_prompted_and_corrected_frames_are_binarised_and_no_others():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(3), (0,)))
    tracker.prompt(1, click())
    tracker.step()
    assert model.remembered == [(0, True, True), (1, False, True), (2, False, True), (2, True, True)]


def test_a_prompt_without_a_step_is_remembered_when_the_next_frame_comes():
    tracker = Tracker(model := Notebook())
    tracker.see(0, number(0))
    tracker.prompt(1, click())
    list(walk(tracker, [1]))
    assert model.looks[1][0] == [(0, 6)]


def test_a_step_may_be_repeated():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(4), (0,)))
    model.looks.clear()
    first, second = tracker.step(), tracker.step()
    assert torch.equal(first.output.logits, second.output.logits) and not model.looks


def test_tracked_memories_around_a_correction_can_be_cleared():
    for options, objects, left in [({}, 1, False), ({}, 2, True), ({"clear_for_multi_obj": True}, 2, False)]:
        tracker = Tracker(model := Notebook(), clear_around_input=True, **options)
        tracker.see(0, number(0))
        for obj_id in range(1, objects + 1):
            tracker.prompt(obj_id, click())
        tracker.step()
        list(walk(tracker, range(1, 6)))
        tracker.prompt(1, click())
        tracker.remove(2) if objects == 2 else None
        list(walk(tracker, [6]))
        assert ((4, 1) in model.looks[6][0]) is left, options


def test_taking_prompts_back_forgets_what_was_remembered_from_them():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(8), (0, 5)))
    tracker.clear_prompts(1, 5)
    list(walk(tracker, [8]))
    assert all(frame != 5 for frame, _ in model.looks[8][0])
    tracker.clear_prompts(1)
    assert [answer.ids for answer in walk(tracker, [9, 10], (10,))] == [(), (1,)]
    assert tracker.ids == (1,)


def test_taking_a_prompt_back_on_the_frame_in_hand_takes_its_answer_back():
    tracker = Tracker(Notebook())
    tracker.see(0, number(0))
    tracker.prompt(1, click())
    tracker.clear_prompts(1, 0)
    assert tracker.step().ids == ()


# Objects


def test_an_object_that_comes_later_is_left_out_until_then():
    tracker = Tracker(Notebook())
    seen = []
    for frame in range(4):
        tracker.see(frame, number(frame))
        for obj_id, first in ((70, 0), (-3, 2)):
            if frame == first:
                tracker.prompt(obj_id, click())
        seen.append(tracker.step().ids)
    assert seen == [(70,), (70,), (70, -3), (70, -3)]


def test_nothing_prompted_is_no_object():
    tracker = Tracker(Notebook())
    tracker.see(0, number(0))
    objects = tracker.step()
    assert len(objects) == 0 and objects.output is None


def test_objects_that_stay_away_are_let_go_and_those_that_return_in_time_are_not():
    tracker = Tracker(Notebook(absent={3, 4, 6, 7, 8}), expire_after=3)
    ids = [answer.ids for answer in walk(tracker, range(10), (0,))]
    assert ids == [(1,)] * 9 + [()] and tracker.ids == ()


def test_repeating_a_step_does_not_hasten_the_end():
    tracker = Tracker(Notebook(absent={1, 2}), expire_after=3)
    list(walk(tracker, range(3), (0,)))
    assert [tracker.step().ids for _ in range(4)] == [(1,)] * 4


def test_frames_without_the_object_are_not_remembered_behind_the_gate():
    absent = {4, 5, 9}
    model = Notebook(absent=absent)
    list(walk(Tracker(model, PresenceGate), range(12), (0,)))
    slots, pointers = model.looks[11]
    assert slots == [(0, 6), (6, 4), (7, 3), (8, 2), (10, 0)]
    assert {frame for frame, _ in pointers} == set(range(11)) - absent
    assert {frame for frame, *_ in model.remembered} == set(range(12)) - absent


# Passes


def test_a_new_pass_starts_from_the_prompted_frames():
    tracker = Tracker(model := Notebook())
    list(walk(tracker, range(20), (0, 12)))
    model.looks.clear()
    tracker.rewind(reverse=True)
    answers = list(walk(tracker, range(14, 8, -1)))
    assert [len(answer) for answer in answers] == [0, 0, 1, 1, 1, 1]
    assert model.looks[9][0] == [(0, 6), (12, 6), (11, 1), (10, 0)]
    assert model.looks[9][1] == [(10, 1), (11, 2), (12, 3)]


def test_forwards_then_backwards_is_backwards_then_forwards():
    looks = []
    for passes in ((False, True), (True, False)):
        tracker = Tracker(Notebook(), max_prompted=-1)
        for frame in (10, 14):
            tracker.see(frame, number(frame))
            tracker.prompt(1, click())
        seen = {}
        for reverse in passes:
            tracker.rewind(reverse)
            tracker.model.looks = {}
            list(walk(tracker, range(20, -1, -1) if reverse else range(21)))
            seen[reverse] = tracker.model.looks
        looks.append(seen)
    assert looks[0] == looks[1] and looks[0][True] and looks[0][False]


def test_prompting_another_frame_in_between_forgets_nothing():
    for other in (3, 60):
        tracker = Tracker(model := Notebook())
        list(walk(tracker, range(20), (0,)))
        tracker.see(other, number(other))
        tracker.prompt(1, click())
        list(walk(tracker, [20]))
        assert model.looks[20][0][-6:] == [(14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0)]


def test_going_back_within_a_pass_tracks_the_frames_again():
    tracker = Tracker(model := Notebook(), forget=False)
    list(walk(tracker, range(12), (0,)))
    before = model.looks[6]
    model.looks.clear()
    tracker.see(5, number(5))
    assert tracker.prompt(1, click()).logits.max() == 2
    assert model.fed_back[5] is not None and 5 in model.looks
    list(walk(tracker, [6]))
    assert model.looks[6] == before


# Errors


def test_calls_out_of_order_and_wrong_prompts_say_what_to_do():
    tracker = Tracker(Notebook())
    for call in (tracker.step, lambda: tracker.prompt(1, click())):
        with pytest.raises(RuntimeError, match="call see"):
            call()
    tracker.see(0, number(0))
    for prompts, mask in ((None, None), (click(), torch.zeros(1, 1, 4, 4)), (PromptBatch(torch.zeros(2)), None)):
        with pytest.raises(ValueError, match="one of the two"):
            tracker.prompt(1, prompts, mask)
    assert tracker.ids == ()
    for call in (tracker.remove, tracker.clear_prompts):
        with pytest.raises(ValueError, match="no object 9"):
            call(9)


def test_options_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="num_maskmem"):
        Tracker(Notebook(num_maskmem=0))
    for cap in (0, 1, -2):
        with pytest.raises(ValueError, match="max_prompted"):
            Tracker(Notebook(), max_prompted=cap)


# With a network


@pytest.fixture(scope="module")
def model(nano_file):
    return load_model(nano_file)


@pytest.fixture(scope="module")
def frames(model):
    """Features of frames that drift over a drawn plane."""
    torch.manual_seed(0)
    plane = torch.nn.functional.interpolate(torch.randn(1, 3, 24, 24), size=4 * SIZE, mode="bicubic")
    with torch.no_grad():
        return [model.see(plane[:, :, 2 * i : 2 * i + SIZE, i : i + SIZE]) for i in range(FRAMES)]


def followed(model, frames, start=None, events=None, **how):
    """Every object's answers by frame; `events` are called with the tracker ahead of a frame's step."""
    tracker = Tracker(model, **how)
    answers = {}
    for i, features in enumerate(frames):
        tracker.see(i, features)
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
    assert runs[0][1].state_bytes() < runs[1][1].state_bytes() / 2


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
        tracker.see(i, frames[i % FRAMES])
        if i % 30 == 0:
            tracker.prompt(1, click())
        tracker.step()
        sizes.append(tracker.state_bytes())
    assert sizes[60:90] == sizes[90:120] == sizes[120:150]


def test_answers_carry_no_gradient(model, frames):
    answers, tracker = followed(model, frames[:3])
    assert not any(answer.logits.requires_grad for answer in answers.values())
    assert not any(tensor.requires_grad for track in tracker._tracks.values() for tensor in track.tensors())


def test_a_prompted_frame_is_remembered_from_its_own_mask_and_presence(model, frames):
    """From the quarter-size logits, brought up, as 0 and 1, with the presence that was predicted."""
    tracker = Tracker(model)
    tracker.see(0, frames[0])
    output = tracker.prompt(1, click())
    tracker.step()
    memory = model.remember(frames[0], output.logits, output.presence, torch.tensor([0]), True, True)
    assert torch.equal(tracker._tracks[1].records[0].memory, memory)
    soft = model.remember(frames[0], output.logits, output.presence, torch.tensor([0]), True, False)
    assert not torch.allclose(memory, soft, atol=1e-3)


def test_a_mask_is_the_answer_or_a_prompt_as_the_network_says(model, frames, monkeypatch):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 20:44, 12:32] = 1
    tracker = Tracker(model)
    tracker.see(0, frames[0])
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

    batches = module.together
    monkeypatch.setattr(module, "together", lambda *given: batches(*given[:3], True))
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
    tracker.see(0, frames[0])
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
