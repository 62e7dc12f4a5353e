"""Objects shown on some pictures and found in others."""

import os
import pickle
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from films import BOX, OTHER, film, write_video
from test_streams import Cameras

import samplug
from samplug import SAM, PromptError, SAM2DynamicInteractivePredictor
from samplug.array_files import write
from samplug.benchmark.weights import randomise
from samplug.checkpoints import load_model
from samplug.nn.layers import sine_positions
from samplug.predict.bank_files import FORMAT, MemoryBankError
from samplug.tracking import bank
from samplug.tracking.bank import MemoryBank
from samplug.variants import build

BOXES = [[20, 30, 120, 140], [100, 60, 300, 200]]


@pytest.fixture(scope="module")
def network(nano_file):
    return load_model(nano_file)


def ready(network, max_obj_num=3, **overrides):
    overrides = {"imgsz": 128, "verbose": False, "save": False, **overrides}
    made = SAM2DynamicInteractivePredictor(overrides=overrides, max_obj_num=max_obj_num)
    made.setup_model(network, verbose=False)
    made.options |= {"logits": True, "keep_lost": True}
    return made


@pytest.fixture
def predictor(network):
    return ready(network)


@pytest.fixture
def taught(predictor, pictures):
    """Two objects, shown on the first picture."""
    predictor(pictures[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    return predictor


@pytest.fixture
def encodings(network):
    """How many pictures each run of the encoder had."""
    seen = []
    hook = network.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


def found(result):
    """Each object's logits."""
    return dict(zip(result.obj_ids, result.logits, strict=True))


def alike(results, others):
    """Whether results hold the same ids, logits, masks and boxes, bit by bit."""
    return all(
        a.obj_ids == b.obj_ids
        and torch.equal(a.logits, b.logits)
        and torch.equal(a.masks.data, b.masks.data)
        and torch.equal(a.boxes.data, b.boxes.data)
        for a, b in zip(list(results), list(others), strict=True)
    )


def draw_disc():
    return cv2.circle(np.zeros((240, 320), np.uint8), (120, 100), 60, 1, -1)


# Showing and finding


@pytest.mark.host
def test_what_was_shown_on_one_picture_is_found_in_another(taught, pictures):
    (result,) = taught(pictures[1])
    assert result.obj_ids == (7, -3) and result.boxes.id.tolist() == [7, -3]
    assert result.masks.data.shape == (2, *pictures[1].shape[:2])
    assert 0 < result.masks.data.float().mean() < 1
    assert torch.allclose(result.boxes.conf, result.presence.sigmoid()) and result.iou.shape == (2,)
    assert len(taught.memory_bank) == 1 and taught.memory_bank[0].ids == (7, -3)


def test_scores_lie_between_0_and_1_and_rise_with_the_presence(network, pictures):
    predictor = ready(network)
    shown = [np.ones((240, 320)), np.zeros((240, 320)), draw_disc()]
    predictor(pictures[0], masks=shown, obj_ids=[1, 2, 3], update_memory=True)
    results = predictor(pictures)
    scores, presence = (
        torch.cat(column) for column in zip(*((r.boxes.conf, r.presence) for r in results), strict=True)
    )
    assert (presence > 0).any() and (presence < 0).any()
    assert ((scores > 0) & (scores < 1)).all() and ((scores > 0.5) == (presence > 0)).all()
    assert (scores[presence.argsort()].diff() >= 0).all()


def test_classes_and_names_stay_with_their_objects(predictor, pictures):
    taught = {"obj_ids": [5, 6], "cls": [2, 0], "names": ["cat", "dog", "cup"]}
    shown = predictor(pictures[0], bboxes=BOXES, update_memory=True, **taught)[0]
    result = predictor(pictures[1])[0]
    for each in (shown, result):
        assert each.boxes.cls.tolist() == [2, 0] and each.names == {0: "cat", 1: "dog", 2: "cup"}
    predictor(pictures[1], points=[[30, 30]], obj_ids=[9], update_memory=True)
    assert predictor(pictures[0])[0].boxes.cls.tolist() == [2, 0, 9]
    predictor.args.classes = [0]
    assert predictor(pictures[0])[0].obj_ids == (6,)


def test_an_id_is_its_own_class_where_ultralytics_can_count_it(predictor, pictures, capture_log):
    predictor.args.verbose = True
    ids = [3, -3, 0, 2**40]
    predictor(pictures[0], bboxes=[BOXES[0]] * 4, obj_ids=ids, cls=None, update_memory=True)
    result = predictor(pictures[1])[0]
    classes = [3, 131069, 0, 65536]
    assert result.obj_ids == tuple(ids) and result.boxes.cls.tolist() == classes
    assert result.names == dict(zip(classes, map(str, ids), strict=True)) and "1 -3" in " ".join(capture_log)


def test_showing_neither_looks_at_memory_nor_leaves_a_choice_of_masks(network, pictures, taught, monkeypatch):
    # else a single mask that is not stable gives way to the best of three, and nothing could be told apart
    monkeypatch.setattr(network.sam_mask_decoder, "dynamic_multimask_via_stability", False)
    taught(pictures[1], points=[[60, 70]], obj_ids=[7], update_memory=True)
    alone = ready(network)
    alone(pictures[1], points=[[60, 70]], obj_ids=[7], update_memory=True)
    assert torch.equal(taught.memory_bank[1].memories, alone.memory_bank[0].memories)
    features = network.see(alone.preprocess([pictures[1]]))
    click = samplug.Prompts.read(points=[[60, 70]])
    ((_, batch),) = click.batches(alone._views(alone.preprocess([pictures[1]]), [pictures[1]])[0])
    with torch.no_grad():
        answer = network.settle(network.answer(network.without_past(features), batch, multimask=False))
        memory = network.remember(features, answer.logits, answer.presence, torch.zeros(1, dtype=torch.int64), True)
    torch.testing.assert_close(alone.memory_bank[0].memories, memory)


def test_every_picture_shown_counts_whatever_the_order(network, pictures):
    lessons = [(pictures[0], [BOXES[0]]), (pictures[1], [[30, 30, 110, 150]])]
    results = []
    for order in (lessons, lessons[::-1], lessons[:1]):
        predictor = ready(network)
        for picture, boxes in order:
            predictor(picture, bboxes=boxes, obj_ids=[1], update_memory=True)
        results.append(predictor(pictures[2])[0].logits)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)
    assert (results[0] - results[2]).abs().max() > 0.1


def test_memories_have_the_time_embedding_of_prompted_frames_and_no_pointers(taught, network, pictures):
    taught(pictures[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[7, -3], update_memory=True)
    memory, positions = taught.get_maskmem_enc()
    assert memory.shape == positions.shape == (2 * 64, 2, network.mem_dim)
    assert torch.equal(memory[64:].transpose(0, 1), taught.memory_bank[1].memories)
    where = sine_positions((8, 8), network.mem_dim, memory.device).flatten(2).permute(2, 0, 1)
    expected = (where + network.maskmem_tpos_enc[-1].view(1, 1, -1)).repeat(2, 2, 1)
    torch.testing.assert_close(positions, expected)
    past = taught.memory_bank.past(7, network.num_maskmem - 1)
    assert past.slots.tolist() == [[6, 6]] and past.pointers.shape[1] == past.times.shape[1] == 0


def test_a_masks_memory_is_of_that_mask(predictor, pictures):
    mask = draw_disc()
    (result,) = predictor(pictures[0], masks=[mask], obj_ids=[2], update_memory=True)
    lesson = predictor.memory_bank[0]
    assert lesson.presence == (10.0,) and len(result) == 1
    predictor.reset()
    predictor(pictures[0], masks=[mask * 0], obj_ids=[2], update_memory=True)
    assert predictor.memory_bank[0].presence == (-10.0,), "an empty mask shows that the object is not there"
    assert not torch.equal(lesson.memories, predictor.memory_bank[0].memories)


def test_nothing_is_concluded_from_pictures_on_which_an_object_was_not_shown(taught, pictures):
    before = found(taught(pictures[2])[0])
    taught(pictures[1], bboxes=[[30, 30, 110, 150]], obj_ids=[8], update_memory=True)
    after = found(taught(pictures[2])[0])
    assert list(after) == [7, -3, 8] and all(torch.equal(before[i], after[i]) for i in before)
    with pytest.raises(ValueError, match="nothing|Nothing"):
        taught(pictures[2], obj_ids=[4])
    assert taught.get_maskmem_enc(obj_ids=8)[0].shape[:2] == (64, 1)


def test_lost_objects_are_left_out_unless_they_are_kept(network, pictures):
    predictor = ready(network)
    predictor(pictures[0], masks=[np.ones((240, 320)), np.zeros((240, 320))], obj_ids=[1, 2], update_memory=True)
    presence = dict(zip((1, 2), predictor(pictures[1])[0].presence.tolist(), strict=True))
    assert presence[2] < 0 < presence[1]
    kept = predictor(pictures[1])[0]
    assert kept.obj_ids == (1, 2) and not kept.masks.data[1].any() and kept.boxes.conf[1] < 0.5
    predictor.options["keep_lost"] = False
    assert predictor(pictures[1])[0].obj_ids == (1,)


def test_each_pixel_has_one_object_unless_overlaps_are_wanted(taught, pictures):
    assert taught(pictures[1])[0].masks.data.sum(0).max() == 1
    taught.non_overlap_masks = False
    assert taught(pictures[1])[0].masks.data.sum(0).max() == 2
    assert taught(pictures[1], non_overlap=True)[0].masks.data.sum(0).max() == 1


def test_a_conf_that_was_chosen_drops_objects(network, pictures):
    predictor = ready(network, conf=0.9999)
    predictor(pictures[0], bboxes=BOXES, obj_ids=[1, 2], update_memory=True)
    result = predictor(pictures[1])[0]
    assert result.obj_ids == tuple(i for i in (1, 2) if predictor.found[0].presence[i - 1].sigmoid() > 0.9999)
    assert len(result.masks.data) == len(result.boxes) == len(result.presence) == len(result.obj_ids) < 2


# Wrong calls


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"bboxes": BOXES, "update_memory": True}, "obj_ids: 2 objects came without"),
        ({"bboxes": BOXES, "obj_ids": [1], "update_memory": True}, "obj_ids: .* for 2 objects"),
        ({"bboxes": BOXES, "obj_ids": [1, 2, 3], "update_memory": True}, "obj_ids: .* for 2 objects"),
        ({"bboxes": BOXES, "obj_ids": [1, 1], "update_memory": True}, "an id comes twice"),
        ({"bboxes": BOXES, "obj_ids": [1, 1.5], "update_memory": True}, "fractions"),
        ({"points": [[900, 3]], "obj_ids": [1], "update_memory": True}, "outside"),
        ({"points": [[9, 3]], "masks": [np.ones((240, 320))], "obj_ids": [1], "update_memory": True}, "together"),
        ({"bboxes": BOXES, "obj_ids": [1, 2]}, "update_memory: is False, but prompts came"),
        ({"obj_ids": [1, 2], "update_memory": True}, "update_memory: is True, but no prompts came"),
        ({"embedding": "bus.npz"}, "embedding: came"),
    ],
)
def test_a_wrong_call_is_refused_and_changes_nothing(predictor, pictures, said, words):
    with pytest.raises(PromptError, match=words):
        predictor(pictures[0], **said)
    assert len(predictor.memory_bank) == 0 and predictor.obj_idx_set == set()


def test_an_empty_memory_is_an_error_that_says_what_to_do(taught, predictor, pictures):
    for i in (7, -3):
        taught.clear_prompts(i)
    for call in (lambda: taught(pictures[1]), taught.track_step, taught.get_maskmem_enc):
        with pytest.raises(RuntimeError, match="update_memory=True"):
            call()


def test_memories_of_another_input_size_are_refused_with_both(taught, network, pictures):
    other = ready(network, imgsz=192)
    other.memory_bank = taught.memory_bank
    with pytest.raises(ValueError, match=r"imgsz=\[128, 128\], this is imgsz=\[192, 192\]"):
        other(pictures[1])
    with pytest.raises(ValueError, match="use one size"):
        other(pictures[1], points=[[30, 30]], obj_ids=[4], update_memory=True)
    assert len(taught.memory_bank) == 1
    other.reset()
    assert len(other(pictures[1], points=[[30, 30]], obj_ids=[4], update_memory=True)[0]) == 1


def test_networks_without_a_memory_are_refused(nano_file):
    network = load_model(nano_file)
    network.num_maskmem = 0
    with pytest.raises(ValueError, match="no memory"):
        ready(network)
    with pytest.raises(samplug.CheckpointError, match="runs SAM 2"):
        ready(build({"variant": "mobile_sam"}))


def test_another_network_begins_with_nothing(taught, network):
    taught.setup_model(network)
    assert len(taught.memory_bank) == 1
    taught.setup_model(randomise(build({"variant": "samplug-nano"}), seed=1))
    assert len(taught.memory_bank) == 0


# Ids, places, forgetting


def test_ids_are_any_numbers_and_places_are_added_and_used_again(network, pictures):
    predictor = ready(network, max_obj_num=1)
    ids = [10**6, -5, 0, 3]
    for i, obj_id in enumerate(ids):
        predictor(pictures[0], points=[[20 + 60 * i, 60]], obj_ids=obj_id, update_memory=True)
    assert predictor.obj_id_to_idx == {obj_id: slot for slot, obj_id in enumerate(ids)}
    assert predictor.obj_idx_to_id == dict(enumerate(ids)) and predictor.obj_idx_set == {0, 1, 2, 3}
    predictor.remove_object(-5)
    assert predictor.obj_idx_set == {0, 2, 3} and predictor(pictures[1])[0].obj_ids == (10**6, 0, 3)
    predictor(pictures[0], points=[[99, 99]], obj_ids=[44], update_memory=True)
    assert predictor.obj_id_to_idx[44] == 1 and predictor(pictures[1])[0].obj_ids == (10**6, 44, 0, 3)
    assert MemoryBank(2).slots == [None, None]


def test_objects_come_and_go_without_a_trace_in_the_others(network, pictures, taught):
    alone = ready(network)
    alone(pictures[0], bboxes=BOXES[:1], obj_ids=[7], update_memory=True)
    before = alone(pictures[2])
    assert torch.equal(found(taught(pictures[2])[0])[7], found(before[0])[7])
    taught.remove_object(-3)
    assert alike(taught(pictures[2]), before) and taught.memory_bank[0].ids == (7,)
    taught.remove_object(7)
    assert len(taught.memory_bank) == 0
    for call in (lambda: taught.remove_object(7), lambda: taught.clear_prompts(7)):
        with pytest.raises(ValueError, match=r"no object 7; the objects are \[\]"):
            call()


def test_objects_found_together_as_on_a_gpu_are_those_found_one_by_one(taught, pictures, monkeypatch):
    taught(pictures[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[5, -3], update_memory=True)
    alone = taught(pictures[2])[0]
    sizes = [past.memories.shape[1] for past in map(taught._past, (7, -3, 5))]
    assert sizes == [1, 2, 1]
    even = lambda sizes, _: [[i for i, size in enumerate(sizes) if size == each] for each in set(sizes)]  # noqa: E731
    monkeypatch.setattr(bank, "even_batches", even)
    together = taught(pictures[2])[0]
    assert together.obj_ids == alone.obj_ids == (7, -3, 5)
    torch.testing.assert_close(together.logits, alone.logits, rtol=1e-4, atol=1e-3)
    shown = ready(taught.model)
    shown(pictures[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    torch.testing.assert_close(shown.memory_bank[0].memories, taught.memory_bank[0].memories, rtol=1e-4, atol=1e-4)


def test_forgetting_a_picture_is_as_if_it_had_not_been_shown(taught, pictures):
    before = taught(pictures[2])
    taught(pictures[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[7, -3], update_memory=True)
    between = taught(pictures[2])
    assert not alike(between, before)
    taught.clear_prompts(-3, picture=1)
    one = taught(pictures[2])[0]
    assert torch.equal(one.logits[0], between[0].logits[0]) and torch.equal(one.logits[1], before[0].logits[1])
    with pytest.raises(ValueError, match="one by one"):
        taught.get_maskmem_enc()
    taught.clear_prompts(picture=-1)
    assert alike(taught(pictures[2]), before)
    with pytest.raises(IndexError, match="no picture 1: 1 were shown"):
        taught.clear_prompts(picture=1)


def test_an_object_without_memories_keeps_its_place_and_its_class(predictor, pictures):
    predictor(pictures[0], bboxes=BOXES, obj_ids=[1, 2], cls=[4, 5], update_memory=True)
    predictor.clear_prompts(1)
    assert predictor.obj_id_to_idx == {1: 0, 2: 1} and predictor(pictures[1])[0].obj_ids == (2,)
    with pytest.raises(ValueError, match=r"objects \[1\]; those in memory are \[2\]"):
        predictor(pictures[1], obj_ids=[1])
    predictor(pictures[0], bboxes=BOXES[0], obj_ids=[1], update_memory=True)
    assert predictor(pictures[1])[0].boxes.cls.tolist() == [4, 5]


def test_only_the_objects_that_are_asked_for_are_looked_for(taught, pictures):
    everything = taught(pictures[1])[0]
    for ids in ([-3], -3, np.array([-3])):
        (result,) = taught(pictures[1], obj_ids=ids)
        assert result.obj_ids == (-3,) and torch.equal(result.logits[0], everything.logits[1])


def test_two_hundred_lessons_are_kept_and_all_are_let_go(network, pictures):
    predictor = ready(network, imgsz=32)
    predictor.setup_source(pictures[0])
    predictor.get_im_features(predictor.preprocess([pictures[0]]))
    for i in range(200):
        predictor.update_memory([i % 20 - 7], torch.tensor([[[i % 32, 9.0]]]), torch.ones(1, 1))
    assert len(predictor.memory_bank) == 200 and len(predictor.obj_idx_set) == 20
    assert predictor.get_maskmem_enc()[0].shape == (10 * 4, 20, network.mem_dim)
    predictor.reset()
    assert len(predictor.memory_bank) == 0 and predictor.obj_id_to_idx == {}


# Sources


@pytest.mark.host
def test_a_batch_of_pictures_is_encoded_once_and_equals_single_ones(network, pictures, encodings):
    predictor = ready(network, batch=3)
    boxes = [[BOXES[0]], None, [[10, 10, 90, 80], [120, 20, 220, 90]]]
    predictor(pictures, bboxes=boxes, obj_ids=[[1], None, [1, 2]], update_memory=True)
    assert [lesson.ids for lesson in predictor.memory_bank] == [(1,), (1, 2)]
    encodings.clear()
    together = predictor(pictures)
    assert encodings == [3]
    single = ready(network)
    single.memory_bank = predictor.memory_bank
    for one, picture in zip(together, pictures, strict=True):
        (other,) = single(picture)
        assert one.orig_shape == picture.shape[:2] and one.obj_ids == other.obj_ids
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-3)


@pytest.mark.host
def test_folders_are_searched_and_shown_by_the_names_of_their_files(network, pictures, tmp_path):
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    predictor = ready(network)
    shown = {"1.png": {"bboxes": [[30, 30, 110, 150]], "obj_ids": [3]}}
    single = ready(network)
    single(pictures[1], bboxes=[[30, 30, 110, 150]], obj_ids=[3], update_memory=True)
    with pytest.raises(RuntimeError, match="Nothing has been shown yet"):
        predictor(tmp_path, prompts=shown, update_memory=True)  # 0.png comes first
    predictor(str(tmp_path / "1.png"), prompts=shown, update_memory=True)
    assert predictor.memory_bank[0].name.endswith("1.png")
    assert alike(predictor(tmp_path, stream=True), single(pictures))


@pytest.mark.host
def test_on_a_video_the_first_frame_is_shown_and_the_others_are_searched(network, tmp_path):
    frames = film()[:3]
    video = write_video(tmp_path / "film.avi", frames)
    predictor = ready(network)
    results = list(predictor(str(video), stream=True, bboxes=[BOX, OTHER], obj_ids=[4, 5], update_memory=True))
    assert len(predictor.memory_bank) == 1 and len(results) == 3
    single = ready(network)
    single(frames[0], bboxes=[BOX, OTHER], obj_ids=[4, 5], update_memory=True)
    assert alike(results, single(frames)) and alike(predictor(str(video)), results)


@pytest.mark.host
def test_streams_side_by_side_share_what_was_shown(network):
    frames = film()[:4]
    predictor = ready(network)
    shown = [{"bboxes": [BOX], "obj_ids": [4]}, {"bboxes": [OTHER], "obj_ids": [5]}]
    streams = Cameras(frames[:2], frames[2:])
    results = list(predictor(streams, stream=True, prompts=shown, update_memory=True))
    assert len(results) == 4 and all(result.obj_ids == (4, 5) for result in results)
    assert [lesson.ids for lesson in predictor.memory_bank] == [(4,), (5,)]


def test_a_picture_that_was_set_is_encoded_once(network, pictures, encodings):
    predictor = ready(network)
    predictor.set_image(pictures[0])
    first = predictor(bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    second = predictor()
    assert encodings == [1] and alike(first, second)
    other = ready(network)
    assert alike(other(pictures[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True), first)
    assert alike(predictor(pictures[1]), other(pictures[1]))


def test_objects_can_be_shown_by_hand(network, pictures, taught):
    by_hand = ready(network)
    by_hand.setup_source(pictures[0])
    with torch.inference_mode():
        im = by_hand.preprocess([pictures[0]])
        by_hand.get_im_features(im)
        gain = 128 / 320
        corners = gain * torch.tensor(BOXES).view(2, 2, 2)
        by_hand.update_memory([7, -3], corners, torch.tensor([[2, 3], [2, 3]]))
        assert torch.equal(by_hand.memory_bank[0].memories, taught.memory_bank[0].memories)
        answer = by_hand.track_step(0, corners[:1], torch.tensor([[2, 3]]))
        assert answer["pred_masks"].shape == (1, 1, 32, 32) and answer["object_score_logits"].shape == (1, 1)
        by_hand.get_im_features(by_hand.preprocess([pictures[1]]))
        everything = by_hand.track_step()
    assert torch.equal(everything["pred_masks"][:, 0], taught(pictures[1])[0].logits)
    assert everything["pred_masks_high_res"].shape == (2, 1, 128, 128) and everything["obj_ptr"].shape == (2, 128)
    mask = torch.zeros(1, 128, 128)
    mask[:, 30:60, 20:70] = 1
    by_hand.update_memory(5, masks=mask)
    assert by_hand.memory_bank[1].ids == (5,) and by_hand.memory_bank[1].presence == (10.0,)


def test_wrong_calls_by_hand_are_refused(predictor, network, pictures):
    with pytest.raises(RuntimeError, match="No picture is in hand"):
        predictor.update_memory([1], torch.zeros(1, 1, 2), torch.ones(1, 1))
    predictor.setup_source(pictures[0])
    predictor.get_im_features(predictor.preprocess([pictures[0]]))
    for said, words in (
        ({"obj_ids": [1]}, "neither points nor masks"),
        ({"points": torch.zeros(1, 1, 2), "labels": torch.ones(1, 1)}, "obj_ids: is missing"),
        ({"obj_ids": [1, 2], "points": torch.zeros(1, 1, 2), "labels": torch.ones(1, 1)}, "for 1 objects"),
        ({"obj_ids": [1], "points": torch.zeros(1, 1, 2)}, "points with labels"),
    ):
        with pytest.raises(PromptError, match=words):
            predictor.update_memory(**said)
    predictor.get_im_features(predictor.preprocess([pictures[0], pictures[1]]))
    with pytest.raises(ValueError, match="2 pictures are in hand"):
        predictor.update_memory([1], torch.zeros(1, 1, 2), torch.ones(1, 1))


# Ways in


@pytest.mark.host
def test_sam_keeps_what_was_shown_from_call_to_call(nano_file, pictures, taught):
    model = SAM(str(nano_file))
    how = {"predictor": SAM2DynamicInteractivePredictor, "imgsz": 128, "verbose": False}
    how |= {"logits": True, "keep_lost": True}
    model.predict(pictures[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True, **how)
    assert alike(model.predict(pictures[1], **how), taught(pictures[1]))
    assert type(model.predict(pictures[1], points=[[9, 9]], verbose=False)[0].boxes.id) is type(None)
    with pytest.raises(RuntimeError, match="Nothing has been shown yet"):
        model.predict(pictures[1], **how)  # another predictor came between


@pytest.mark.host
def test_ultralytics_own_model_class_shows_and_finds(nano_file, pictures, taught):
    """A host model holding one of our networks, as `ultralytics.SAM(...).predict(predictor=…)` holds its own."""
    from ultralytics.engine.model import Model

    stock = Model.__new__(Model)
    torch.nn.Module.__init__(stock)
    stock.__dict__.update(SAM(str(nano_file)).__dict__)
    stock.predictor = None
    how = {"predictor": SAM2DynamicInteractivePredictor, "imgsz": 128, "verbose": False}
    ours = {"obj_ids": [7, -3], "update_memory": True, "keep_lost": True, "logits": True}
    Model.predict(stock, pictures[0], prompts={"bboxes": BOXES}, **how, **ours)
    assert alike(Model.predict(stock, pictures[1], **how), taught(pictures[1]))
    stock.predictor.set_prompts({"obj_ids": [2], "update_memory": True})
    shown = Model.predict(stock, pictures[1], prompts={"points": [[40, 40]]}, **how)
    assert shown[0].obj_ids == (7, -3, 2)


# Files


def test_a_saved_memory_comes_back_bit_for_bit(network, pictures, tmp_path):
    before = ready(network)
    before(pictures[0], bboxes=BOXES, obj_ids=[7, -3], cls=[1, 2], names={1: "cup", 2: "pen"}, update_memory=True)
    before(pictures[1], points=[[30, 30]], obj_ids=[2**40], update_memory=True)
    before.remove_object(-3)
    before.save_memory(tmp_path / "cup.npz")
    after = ready(network)
    after.load_memory(tmp_path / "cup.npz")
    assert alike(before(pictures[2]), after(pictures[2])) and os.listdir(tmp_path) == ["cup.npz"]
    assert after.obj_id_to_idx == {7: 0, 2**40: 2} and after.memory_bank.names == {1: "cup", 2: "pen"}
    assert [(each.name, each.presence) for each in after.memory_bank] == [
        (each.name, each.presence) for each in before.memory_bank
    ]


def test_a_memory_can_be_loaded_first_of_all(taught, nano_file, pictures, tmp_path):
    taught.save_memory(tmp_path / "a.bank")
    fresh = SAM2DynamicInteractivePredictor(overrides={"model": str(nano_file), "imgsz": 128, "verbose": False})
    fresh.load_memory(tmp_path / "a.bank")
    fresh.options |= {"logits": True, "keep_lost": True}
    assert alike(fresh(pictures[1]), taught(pictures[1]))


def test_an_empty_memory_is_saved_too(predictor, tmp_path):
    predictor.save_memory(tmp_path / "a.npz")
    predictor.load_memory(tmp_path / "a.npz")
    assert len(predictor.memory_bank) == 0 and predictor.memory_bank.slots == [None] * 3


def refused(predictor, path, words):
    before = predictor.memory_bank
    with pytest.raises(MemoryBankError, match=words) as caught:
        predictor.load_memory(path)
    assert str(caught.value).startswith(f"Cannot load the memory bank {path}. ")
    assert predictor.memory_bank is before


def test_the_memory_of_another_network_is_refused_by_name(taught, tmp_path):
    taught.save_memory(tmp_path / "a.npz")
    other = ready(randomise(build({"variant": "samplug-nano"}), seed=1))
    refused(other, tmp_path / "a.npz", "another network: samplug-nano with the fingerprint")


def test_what_is_no_memory_bank_is_refused(taught, pictures, tmp_path):
    refused(taught, tmp_path / "a.npz", "There is no such file")
    for content in (b"", b"words" * 100, pickle.dumps([1])):
        (tmp_path / "a.npz").write_bytes(content)
        refused(taught, tmp_path / "a.npz", "was not written by SAM2DynamicInteractivePredictor.save_memory")
    taught.embed(pictures[0]).save(tmp_path / "b.npz")
    refused(taught, tmp_path / "b.npz", f"format 'samplug embedding 1', this samplug reads '{FORMAT}'")


def rewritten(memory, model, path, tensors=None, **changes):
    """A file of this memory with other words in its header."""
    from samplug.embeddings import model_fingerprint

    header = {
        "format": FORMAT,
        "model": model_fingerprint(model),
        "slots": memory.slots,
        "classes": [],
        "names": [],
        "lessons": [[each.name, each.ids, each.presence, each.grid] for each in memory],
    }
    tensors = {f"memories_{i}": each.memories for i, each in enumerate(memory)} if tensors is None else tensors
    write(path, header | changes, tensors)


def test_a_file_that_contradicts_itself_is_refused(taught, tmp_path):
    memory, path = taught.memory_bank, tmp_path / "a.npz"
    rewritten(memory, taught.model, path)
    taught.load_memory(path)
    memories = memory[0].memories
    for change in (
        {"slots": [7]},
        {"slots": [7, -3, 7]},
        {"slots": 3},
        {"slots": ["x"]},
        {"classes": [[1]]},
        {"names": 5},
        {"lessons": [["a", [7, 7], [1, 1], [8, 8]]]},
        {"lessons": [["a", [7, -3], [1, 1], [4, 8]]]},
        {"lessons": [["a", [7, -3], [1, 1], [-8, -8]]]},
        {"lessons": [["a", [7, -3], [1], [8, 8]]]},
        {"lessons": [["a", [7]]]},
        {"lessons": [["a", [], [], [8, 8]]]},
        {"tensors": {}},
        {"tensors": {"memories_0": memories[:1]}},
        {"tensors": {"memories_0": memories[..., :3]}},
        {"tensors": {"memories_0": memories * torch.nan}},
    ):
        rewritten(memory, taught.model, path, **change)
        refused(taught, path, "It is damaged")


def test_a_file_that_was_cut_off_or_changed_is_refused_or_loads_and_nothing_else(taught, tmp_path):
    path = tmp_path / "a.npz"
    taught.save_memory(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    refused(taught, path, "cut short")
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    refused(taught, path, "checksum")
    generator = np.random.default_rng(3)
    for _ in range(50):
        at, length = generator.integers(len(whole)), generator.integers(1, 100)
        path.write_bytes(whole[:at] + generator.bytes(length) + whole[at + length :])
        try:
            taught.load_memory(path)
        except MemoryBankError:
            continue


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_old_file(taught, network, tmp_path):
    path = tmp_path / "a.npz"
    taught.save_memory(path)
    before = path.read_bytes()
    code = (
        "import os, signal, sys, numpy, torch\n"
        "from samplug.array_files import write\n"
        "def half(file, **arrays):\n"
        "    file.write(b'PK half of it'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "numpy.savez = half\n"
        "write(sys.argv[1], {'format': 'x'}, {'a': torch.zeros(9)})\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    assert run.returncode == -signal.SIGKILL and path.read_bytes() == before and len(os.listdir(tmp_path)) == 2
    taught.load_memory(path)
