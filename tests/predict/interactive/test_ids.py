"""Objects shown on images: their ids and places, and forgetting them."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import numpy as np
import pytest
import torch
from support.videos import BOXES, alike, predictor, ready, taught  # noqa: F401
from support.videos import rows as found

from samplug.tracking import steps
from samplug.tracking.bank import MemoryBank


def test_ids_are_any_numbers_and_places_are_added_and_used_again(network, images):
    predictor = ready(network, max_obj_num=1)
    ids = [10**6, -5, 0, 3]
    for i, obj_id in enumerate(ids):
        predictor(images[0], points=[[20 + 60 * i, 60]], obj_ids=obj_id, update_memory=True)
    assert predictor.obj_id_to_idx == {obj_id: slot for slot, obj_id in enumerate(ids)}
    assert predictor.obj_idx_to_id == dict(enumerate(ids)) and predictor.obj_idx_set == {0, 1, 2, 3}
    predictor.remove_object(-5)
    assert predictor.obj_idx_set == {0, 2, 3} and predictor(images[1])[0].obj_ids == (10**6, 0, 3)
    predictor(images[0], points=[[99, 99]], obj_ids=[44], update_memory=True)
    assert predictor.obj_id_to_idx[44] == 1 and predictor(images[1])[0].obj_ids == (10**6, 44, 0, 3)
    assert MemoryBank(2).slots == [None, None]


def test_objects_come_and_go_without_a_trace_in_the_others(network, images, taught):
    alone = ready(network)
    alone(images[0], bboxes=BOXES[:1], obj_ids=[7], update_memory=True)
    before = alone(images[2])
    assert torch.equal(found(taught(images[2])[0])[7], found(before[0])[7])
    taught.remove_object(-3)
    assert alike(taught(images[2]), before) and taught.memory_bank[0].ids == (7,)
    taught.remove_object(7)
    assert len(taught.memory_bank) == 0
    for call in (lambda: taught.remove_object(7), lambda: taught.clear_prompts(7)):
        with pytest.raises(ValueError, match=r"no object 7; the objects are \[\]"):
            call()


def test_objects_found_together_as_on_a_gpu_are_those_found_one_by_one(taught, images, monkeypatch):
    taught(images[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[5, -3], update_memory=True)
    alone = taught(images[2])[0]
    sizes = [taught.memory_bank.memory_context(obj_id, 6).memories.shape[1] for obj_id in (7, -3, 5)]
    assert sizes == [1, 2, 1]
    monkeypatch.setattr(steps, "runs_batched", lambda features: True)
    together = taught(images[2])[0]
    assert together.obj_ids == alone.obj_ids == (7, -3, 5)
    torch.testing.assert_close(together.logits, alone.logits, rtol=1e-4, atol=1e-3)
    shown = ready(taught.model)
    shown(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    torch.testing.assert_close(shown.memory_bank[0].memories, taught.memory_bank[0].memories, rtol=1e-4, atol=1e-4)


def test_forgetting_an_image_is_as_if_it_had_not_been_shown(taught, images):
    before = taught(images[2])
    taught(images[1], bboxes=[[30, 30, 110, 150]] * 2, obj_ids=[7, -3], update_memory=True)
    between = taught(images[2])
    assert not alike(between, before)
    taught.clear_prompts(-3, picture=1)
    one = taught(images[2])[0]
    assert torch.equal(one.logits[0], between[0].logits[0]) and torch.equal(one.logits[1], before[0].logits[1])
    with pytest.raises(ValueError, match="one by one"):
        taught.get_maskmem_enc()
    taught.clear_prompts(picture=-1)
    assert alike(taught(images[2]), before)
    with pytest.raises(IndexError, match="no image 1: the memory bank has 1"):
        taught.clear_prompts(picture=1)


def test_an_object_without_memories_keeps_its_place_and_its_class(predictor, images):
    predictor(images[0], bboxes=BOXES, obj_ids=[1, 2], cls=[4, 5], update_memory=True)
    predictor.clear_prompts(1)
    assert predictor.obj_id_to_idx == {1: 0, 2: 1} and predictor(images[1])[0].obj_ids == (2,)
    with pytest.raises(ValueError, match=r"objects \[1\]; those in memory are \[2\]"):
        predictor(images[1], obj_ids=[1])
    predictor(images[0], bboxes=BOXES[0], obj_ids=[1], update_memory=True)
    assert predictor(images[1])[0].boxes.cls.tolist() == [4, 5]


def test_only_the_objects_that_are_asked_for_are_looked_for(taught, images):
    everything = taught(images[1])[0]
    for ids in ([-3], -3, np.array([-3])):
        (result,) = taught(images[1], obj_ids=ids)
        assert result.obj_ids == (-3,) and torch.equal(result.logits[0], everything.logits[1])
    with pytest.raises(ValueError, match="obj_ids names no object"):
        taught(images[1], obj_ids=[])


def test_two_hundred_lessons_are_kept_and_all_are_let_go(network, images):
    predictor = ready(network, imgsz=32)
    predictor.setup_source(images[0])
    predictor.get_im_features(predictor.preprocess([images[0]]))
    for i in range(200):
        predictor.update_memory([i % 20 - 7], torch.tensor([[[i % 32, 9.0]]]), torch.ones(1, 1))
    assert len(predictor.memory_bank) == 200 and len(predictor.obj_idx_set) == 20
    assert predictor.get_maskmem_enc()[0].shape == (10 * 4, 20, network.mem_dim)
    predictor.reset()
    assert len(predictor.memory_bank) == 0 and predictor.obj_id_to_idx == {}
