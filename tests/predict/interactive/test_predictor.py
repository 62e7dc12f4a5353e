"""Objects shown on some images and found in others."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import cv2
import numpy as np
import pytest
import torch
from support.videos import BOXES, predictor, ready, taught  # noqa: F401
from support.videos import rows as found

import samplug
from samplug import PromptError
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.checkpoints.load import load_model
from samplug.nn.ops.positions import sine_positions
from samplug.prompts.objects import prompt_batches


def draw_disc():
    return cv2.circle(np.zeros((240, 320), np.uint8), (120, 100), 60, 1, -1)


# Showing and finding


@pytest.mark.host
def test_what_was_shown_on_one_image_is_found_in_another(taught, images):
    (result,) = taught(images[1])
    assert result.obj_ids == (7, -3) and result.boxes.id.tolist() == [7, -3]
    assert result.masks.data.shape == (2, *images[1].shape[:2])
    assert 0 < result.masks.data.float().mean() < 1
    assert torch.allclose(result.boxes.conf, result.presence.sigmoid()) and result.iou.shape == (2,)
    assert len(taught.memory_bank) == 1 and taught.memory_bank[0].ids == (7, -3)


def test_scores_lie_between_0_and_1_and_rise_with_the_presence(network, images):
    predictor = ready(network)
    shown = [np.ones((240, 320)), np.zeros((240, 320)), draw_disc()]
    predictor(images[0], masks=shown, obj_ids=[1, 2, 3], update_memory=True)
    results = predictor(images)
    scores, presence = (
        torch.cat(column) for column in zip(*((r.boxes.conf, r.presence) for r in results), strict=True)
    )
    assert (presence > 0).any() and (presence < 0).any()
    assert ((scores > 0) & (scores < 1)).all() and ((scores > 0.5) == (presence > 0)).all()
    assert (scores[presence.argsort()].diff() >= 0).all()


def test_classes_and_names_stay_with_their_objects(predictor, images):
    taught = {"obj_ids": [5, 6], "cls": [2, 0], "names": ["cat", "dog", "cup"]}
    shown = predictor(images[0], bboxes=BOXES, update_memory=True, **taught)[0]
    result = predictor(images[1])[0]
    for each in (shown, result):
        assert each.boxes.cls.tolist() == [2, 0] and each.names == {0: "cat", 1: "dog", 2: "cup"}
    predictor(images[1], points=[[30, 30]], obj_ids=[9], update_memory=True)
    assert predictor(images[0])[0].boxes.cls.tolist() == [2, 0, 9]
    predictor.args.classes = [0]
    assert predictor(images[0])[0].obj_ids == (6,)


def test_an_id_is_its_own_class_where_ultralytics_can_count_it(predictor, images, capture_log):
    predictor.args.verbose = True
    ids = [3, -3, 0, 2**40]
    predictor(images[0], bboxes=[BOXES[0]] * 4, obj_ids=ids, cls=None, update_memory=True)
    result = predictor(images[1])[0]
    classes = [3, 131069, 0, 65536]
    assert result.obj_ids == tuple(ids) and result.boxes.cls.tolist() == classes
    assert result.names == dict(zip(classes, map(str, ids), strict=True)) and "4 objects" in " ".join(capture_log)


def test_showing_neither_looks_at_memory_nor_leaves_a_choice_of_masks(network, images, taught, monkeypatch):
    # else a single mask that is not stable gives way to the best of three, and nothing could be told apart
    monkeypatch.setattr(network.sam_mask_decoder, "dynamic_multimask_via_stability", False)
    taught(images[1], points=[[60, 70]], obj_ids=[7], update_memory=True)
    alone = ready(network)
    alone(images[1], points=[[60, 70]], obj_ids=[7], update_memory=True)
    assert torch.equal(taught.memory_bank[1].memories, alone.memory_bank[0].memories)
    features = network.encode_image(alone.preprocess([images[1]]))
    click = samplug.Prompts.read(points=[[60, 70]])
    ((_, batch),) = prompt_batches([click], alone._transforms(alone.preprocess([images[1]]), [images[1]]))
    with torch.no_grad():
        answer = network.select_mask(network.answer(network.without_memory(features), batch, multimask=False))
        memory = network.encode_memory(
            features, answer.logits, answer.presence, torch.zeros(1, dtype=torch.int64), True
        )
    torch.testing.assert_close(alone.memory_bank[0].memories, memory)


def test_every_image_shown_counts_whatever_the_order(network, images):
    lessons = [(images[0], [BOXES[0]]), (images[1], [[30, 30, 110, 150]])]
    results = []
    for order in (lessons, lessons[::-1], lessons[:1]):
        predictor = ready(network)
        for image, boxes in order:
            predictor(image, bboxes=boxes, obj_ids=[1], update_memory=True)
        results.append(predictor(images[2])[0].logits)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)
    assert (results[0] - results[2]).abs().max() > 0.1


def test_memories_have_the_time_embedding_of_prompted_frames_and_no_pointers(taught, network, images):
    taught(images[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[7, -3], update_memory=True)
    memory, positions = taught.get_maskmem_enc()
    assert memory.shape == positions.shape == (2 * 64, 2, network.mem_dim)
    assert torch.equal(memory[64:].transpose(0, 1), taught.memory_bank[1].memories)
    where = sine_positions((8, 8), network.mem_dim, memory).flatten(2).permute(2, 0, 1)
    expected = (where + network.maskmem_tpos_enc[-1].view(1, 1, -1)).repeat(2, 2, 1)
    torch.testing.assert_close(positions, expected)
    past = taught.memory_bank.memory_context(7, network.num_maskmem - 1)
    assert past.slots.tolist() == [[6, 6]] and past.pointers.shape[1] == past.times.shape[1] == 0


def test_a_masks_memory_is_of_that_mask(predictor, images):
    mask = draw_disc()
    (result,) = predictor(images[0], masks=[mask], obj_ids=[2], update_memory=True)
    lesson = predictor.memory_bank[0]
    assert lesson.presence == (10.0,) and len(result) == 1
    predictor.reset()
    predictor(images[0], masks=[mask * 0], obj_ids=[2], update_memory=True)
    assert predictor.memory_bank[0].presence == (-10.0,), "an empty mask shows that the object is not there"
    assert not torch.equal(lesson.memories, predictor.memory_bank[0].memories)


def test_nothing_is_concluded_from_images_on_which_an_object_was_not_shown(taught, images):
    before = found(taught(images[2])[0])
    taught(images[1], bboxes=[[30, 30, 110, 150]], obj_ids=[8], update_memory=True)
    after = found(taught(images[2])[0])
    assert list(after) == [7, -3, 8] and all(torch.equal(before[i], after[i]) for i in before)
    with pytest.raises(ValueError, match="no memory of the objects"):
        taught(images[2], obj_ids=[4])
    assert taught.get_maskmem_enc(obj_ids=8)[0].shape[:2] == (64, 1)


def test_lost_objects_are_left_out_unless_they_are_kept(network, images):
    predictor = ready(network)
    predictor(images[0], masks=[np.ones((240, 320)), np.zeros((240, 320))], obj_ids=[1, 2], update_memory=True)
    presence = dict(zip((1, 2), predictor(images[1])[0].presence.tolist(), strict=True))
    assert presence[2] < 0 < presence[1]
    kept = predictor(images[1])[0]
    assert kept.obj_ids == (1, 2) and not kept.masks.data[1].any() and kept.boxes.conf[1] < 0.5
    predictor.options["keep_lost"] = False
    assert predictor(images[1])[0].obj_ids == (1,)


def test_each_pixel_has_one_object_unless_overlaps_are_wanted(taught, images):
    assert taught(images[1])[0].masks.data.sum(0).max() == 1
    taught.non_overlap_masks = False
    assert taught(images[1])[0].masks.data.sum(0).max() == 2
    assert taught(images[1], non_overlap=True)[0].masks.data.sum(0).max() == 1


def test_a_conf_that_was_chosen_drops_objects(network, images):
    predictor = ready(network, conf=0.9999)
    predictor(images[0], bboxes=BOXES, obj_ids=[1, 2], update_memory=True)
    result = predictor(images[1])[0]
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
def test_a_wrong_call_is_refused_and_changes_nothing(predictor, images, said, words):
    with pytest.raises(PromptError, match=words):
        predictor(images[0], **said)
    assert len(predictor.memory_bank) == 0 and predictor.obj_idx_set == set()


def test_an_empty_memory_is_an_error_that_says_what_to_do(taught, predictor, images):
    for i in (7, -3):
        taught.clear_prompts(i)
    for call in (lambda: taught(images[1]), taught.track_step, taught.get_maskmem_enc):
        with pytest.raises(RuntimeError, match="update_memory=True"):
            call()


def test_memories_of_another_input_size_are_refused_with_both(taught, network, images):
    other = ready(network, imgsz=192)
    other.memory_bank = taught.memory_bank
    with pytest.raises(ValueError, match=r"imgsz=\[128, 128\], this is imgsz=\[192, 192\]"):
        other(images[1])
    with pytest.raises(ValueError, match="use one size"):
        other(images[1], points=[[30, 30]], obj_ids=[4], update_memory=True)
    assert len(taught.memory_bank) == 1
    other.reset()
    assert len(other(images[1], points=[[30, 30]], obj_ids=[4], update_memory=True)[0]) == 1


def test_networks_without_a_memory_are_refused(nano_file):
    network = load_model(nano_file)
    network.num_maskmem = 0
    with pytest.raises(ValueError, match="has no memory"):
        ready(network)
    with pytest.raises(samplug.CheckpointError, match="runs SAM 2"):
        ready(build({"variant": "mobile_sam"}))


def test_another_network_begins_with_nothing(taught, network):
    taught.setup_model(network)
    assert len(taught.memory_bank) == 1
    taught.setup_model(randomise(build({"variant": "samplug-nano"}), seed=1))
    assert len(taught.memory_bank) == 0
