"""SAM 2 in our own form: what is seen, answered, remembered and looked back at."""

from dataclasses import replace

import pytest
import torch
from support.networks import SIZE, clicks, drawn, followed, prompt, same, tokens_of

from samplug.nn import FrameOutput, MemoryContext, PromptBatch
from samplug.nn.constants import NON_OWNER_LOGIT
from samplug.nn.inputs import non_overlapping_per_frame


@torch.no_grad()
def test_objects_on_frames_of_several_videos_are_answered_as_if_alone():
    model = drawn()
    images = torch.randn(2, 2, 3, 64, 96)
    prompts, image_index = prompt([10, 20], [60, 50], [90, 9]), torch.tensor([1, 0, 1])
    together = followed(model, images, prompts, image_index)
    for i, frame in enumerate(image_index):
        one = replace(prompts[i], image_index=torch.tensor([0]))
        alone = followed(model, images[:, frame, None], one, torch.tensor([0]))
        for all_of_them, single in zip(together, alone, strict=True):
            for field in ("logits", "pointer", "presence", "iou"):
                same(getattr(all_of_them[i], field), getattr(single, field))


@torch.no_grad()
def test_the_original_form_and_our_own_give_the_same_answer():
    model = drawn()
    images = torch.randn(2, 1, 3, SIZE, SIZE)
    _, ours = followed(model, images, prompt([40, 40], [90, 30]), torch.tensor([0, 0]))
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for frame, given in ((0, clicks([[40, 40]], [[90, 30]], labels=[[1], [1]])), (1, None)):
        tokens = tokens_of(model, images[frame, 0])
        step = model.track_step(frame, frame == 0, *tokens.values(), given, None, outputs, num_frames=2)
        outputs["cond_frame_outputs"][frame] = step
    same(step["pred_masks"][:, 0], ours.logits)
    same(step["obj_ptr"], ours.pointer)


@torch.no_grad()
def test_encoding_is_seeing_without_a_past():
    model, images = drawn(), torch.randn(2, 3, 64, 96)
    seen, encoded, dictionary = model.encode_image(images), model.encode(images), model.forward_image(images)
    same(encoded.image, seen.image + model.no_mem_embed.view(1, -1, 1, 1))
    assert all(torch.equal(*pair) for pair in zip(encoded.fine, seen.fine, strict=True))
    assert all(torch.equal(*pair) for pair in zip((*seen.fine, seen.image), dictionary["backbone_fpn"], strict=True))
    assert [tuple(x.shape) for x in dictionary["vision_pos_enc"]] == [(2, 64, 16, 24), (2, 64, 8, 12), (2, 64, 4, 6)]


@torch.no_grad()
def test_without_a_past_the_features_may_attend_to_one_learned_vector():
    model = drawn(directly_add_no_mem_embed=False)
    seen = model.encode_image(torch.randn(2, 3, 64, 64))
    tokens, nothing = seen.image.flatten(2).mT, model.no_mem_embed.view(1, 4, 16).expand(2, -1, -1)
    nowhere = model.no_mem_pos_enc.view(1, 4, 16).expand(2, -1, -1)
    places = model.forward_image(torch.randn(1, 3, 64, 64))["vision_pos_enc"][-1].flatten(2).mT
    expected = model.memory_attention.condition(tokens, places, nothing, nowhere, (4, 4), unrotated=4)
    same(model.without_memory(seen).image.flatten(2).mT, expected)
    model.no_mem_embed += 1
    assert not torch.allclose(model.without_memory(seen).image.flatten(2).mT, expected, atol=1e-3)


@torch.no_grad()
def test_a_tracked_object_gets_two_padding_points_and_a_click_one():
    model = drawn()
    features = model.encode(torch.randn(1, 3, 64, 64))
    nothing = PromptBatch(torch.zeros(2, dtype=torch.int64))
    paddings = replace(nothing, points=torch.zeros(2, 1, 2), labels=torch.full((2, 1), -1))
    same(model.segment(features, nothing, False).logits, model.segment(features, paddings, False).logits)
    two = replace(nothing, points=torch.zeros(2, 2, 2), labels=torch.full((2, 2), -1))
    assert not torch.allclose(model.answer(features, paddings).logits, model.answer(features, two).logits, atol=1e-4)


@torch.no_grad()
def test_box_corners_are_points_ahead_of_the_clicks():
    model = drawn()
    features = model.encode(torch.randn(1, 3, 64, 64))
    both = replace(prompt([9, 12]), boxes=torch.tensor([[4.0, 6.0, 40.0, 50.0]]))
    points = torch.tensor([[[4.0, 6.0], [40.0, 50.0], [9.0, 12.0]]])
    same(
        model.answer(features, both).logits,
        model.answer(features, PromptBatch(both.image_index, points, torch.tensor([[2, 3, 1]]))).logits,
    )
    alone = replace(both, points=None, labels=None)
    same(
        model.answer(features, alone).logits,
        model.answer(features, PromptBatch(both.image_index, points[:, :2], torch.tensor([[2, 3]]))).logits,
    )


@pytest.mark.parametrize(("points", "boxes", "several"), [(0, 0, True), (1, 0, True), (2, 0, False), (0, 1, False)])
def test_a_box_counts_as_two_points_when_masks_are_counted(points, boxes, several):
    model = drawn()
    prompts = PromptBatch(torch.tensor([0]), boxes=torch.tensor([[4.0, 6.0, 40.0, 50.0]]) if boxes else None)
    if points:
        prompts = replace(prompts, points=torch.ones(1, points, 2), labels=torch.ones(1, points))
    with torch.no_grad():
        features = model.encode(torch.randn(1, 3, 64, 64))
        assert model.predict_masks(features, prompts, True).logits.shape[1] == (3 if several else 1)
        model.multimask_output_for_tracking = False
        assert model.predict_masks(features, prompts, False).logits.shape[1] == 1


@torch.no_grad()
def test_the_best_candidate_is_taken_unless_another_is_chosen():
    model = drawn()
    candidates = model.predict_masks(model.encode(torch.randn(1, 3, 64, 64)), prompt([9, 12], [50, 40])[:], True)
    candidates = replace(candidates, presence=torch.full((2, 1), 3.0))
    best = candidates.iou.argmax(1)
    assert torch.equal(model.select_mask(candidates).iou, candidates.iou.amax(1))
    other = (best + 1) % 3
    chosen = model.select_mask(candidates, other)
    for i in range(2):
        assert torch.equal(chosen.logits[i], candidates.logits[i, other[i]])
        same(chosen.pointer[i], model.obj_ptr_proj(candidates.tokens[i, other[i]]))


@torch.no_grad()
def test_an_absent_object_has_no_mask_and_the_absent_pointer():
    model = drawn()
    candidates = model.predict_masks(model.encode(torch.randn(1, 3, 64, 64)), prompt([9, 12]), True)
    candidates = replace(candidates, presence=torch.tensor([[-0.5]]))
    gone = model.select_mask(candidates)
    assert torch.equal(gone.logits, torch.full((1, 16, 16), -1024.0))
    same(gone.pointer, model.no_obj_ptr)
    here = model.select_mask(candidates, present_above=-1.0)
    assert (here.logits > -1024).all()
    same(here.pointer, model.obj_ptr_proj(candidates.tokens[torch.tensor([0]), candidates.iou.argmax(1)]))


@torch.no_grad()
def test_a_given_mask_is_the_answer():
    model = drawn()
    features, masks = model.encode_image(torch.randn(1, 3, 64, 64)), torch.zeros(2, 1, 64, 64)
    masks[0, :, 16:32, 24:44] = 1
    output = model.use_mask_as_output(features, masks, torch.tensor([0, 0]))
    assert torch.equal(output.logits[0] > 0, masks[0, 0, ::4, ::4] > 0)
    assert output.logits.max() == 10 and output.logits.min() == -10
    assert output.presence.tolist() == [10, -10] and output.iou.tolist() == [1, 1]
    same(output.pointer[1:], model.no_obj_ptr)
    assert not torch.allclose(output.pointer[0], output.pointer[1], atol=1e-2)


@torch.no_grad()
def test_only_prompted_frames_are_binarised_and_a_call_may_decide():
    model = drawn()
    features, image_index = model.encode_image(torch.randn(1, 3, 64, 64)), torch.tensor([0])
    logits, presence = torch.randn(1, 64, 64), torch.ones(1)
    soft = model.encode_memory(features, logits, presence, image_index, prompted=True)
    hard = model.encode_memory(features, logits.gt(0) * 2000.0 - 1000, presence, image_index, prompted=False)
    assert not torch.allclose(soft, hard, atol=1e-2)
    same(model.encode_memory(features, logits, presence, image_index, prompted=True, binarize=True), hard)
    model.set_binarize(True)
    same(model.encode_memory(features, logits, presence, image_index, prompted=True), hard)
    same(model.encode_memory(features, logits, presence, image_index, prompted=False), soft)
    same(model.encode_memory(features, logits, presence, image_index, prompted=True, binarize=False), soft)
    model.set_binarize()
    same(model.encode_memory(features, logits, presence, image_index, prompted=True), soft)


@torch.no_grad()
def test_small_logits_are_brought_up_before_they_are_remembered():
    model = drawn()
    features, image_index, presence = model.encode_image(torch.randn(1, 3, 64, 96)), torch.tensor([0]), torch.ones(1)
    logits = torch.randn(1, 16, 24)
    large = torch.nn.functional.interpolate(logits[None], size=(64, 96), mode="bilinear")[0]
    same(
        model.encode_memory(features, logits, presence, image_index, prompted=False),
        model.encode_memory(features, large, presence, image_index, prompted=False),
    )


@torch.no_grad()
def test_the_memory_of_an_absent_object_says_so():
    model = drawn()
    features, image_index, logits = (
        model.encode_image(torch.randn(1, 3, 64, 64)),
        torch.tensor([0]),
        torch.randn(1, 16, 16),
    )
    here, edge, gone = (
        model.encode_memory(features, logits, torch.tensor([presence]), image_index, prompted=False)
        for presence in (0.1, 0.0, -9.0)
    )
    same(gone - here, model.no_obj_embed_spatial.expand_as(here))
    same(edge, gone)


def test_every_pixel_has_one_owner_in_each_frame():
    logits = torch.tensor([3.0, 5.0, -20.0, 4.0]).view(4, 1, 1, 1)
    assert non_overlapping_per_frame(logits, torch.tensor([0, 0, 0, 1])).flatten().tolist() == [
        NON_OWNER_LOGIT,
        5,
        -20,
        4,
    ]


@torch.no_grad()
def test_records_may_rest_in_half_precision_and_elsewhere():
    model, images = drawn(), torch.randn(2, 1, 3, 64, 64)
    image_index = torch.tensor([0])
    start, expected = followed(model, images, prompt([20, 30]), image_index)
    resting = replace(start, memory=start.memory.half(), pointer=start.pointer.half())
    past = MemoryContext.gather(model.select_memories(1, [0], [], num_frames=2), {0: resting})
    seen = model.condition_on_memory(model.encode_image(images[1]), past, image_index)
    assert seen.image.dtype == torch.float32
    same(model.segment(seen, PromptBatch(image_index), False).logits, expected.logits, 0.02)


def test_a_record_is_sliced_field_by_field_and_joined_again():
    output = FrameOutput(torch.randn(3, 4, 4), torch.randn(3, 8), torch.randn(3), torch.rand(3), torch.randn(3, 1, 8))
    one = output[1]
    assert len(output) == 3 and len(one) == 1 and one.presence.shape == (1,)
    assert one.logits.untyped_storage().nbytes() < output.logits.untyped_storage().nbytes()
    joined = FrameOutput.cat([output[0], output[1:]])
    for field in ("logits", "pointer", "presence", "iou", "memory"):
        assert torch.equal(getattr(joined, field), getattr(output, field))
    assert FrameOutput.cat([replace(one, memory=None)] * 2).memory is None


def test_pasts_of_objects_with_as_many_memories_are_joined():
    model = drawn()
    records = {f: FrameOutput(*[torch.full((1, 1), float(f))] * 4, torch.full((1, 1, 1), float(f))) for f in range(9)}
    pasts = [MemoryContext.gather(model.select_memories(8, [p], [7, 6]), records) for p in (0, 3)]
    joined = MemoryContext.cat(pasts)
    assert joined.memories.flatten(1).tolist() == [[0, 6, 7], [3, 6, 7]]
    assert joined.slots.tolist() == [[6, 1, 0]] * 2
    assert joined.pointers.flatten(1).tolist() == [[0, 7, 6], [3, 7, 6]]
    torch.testing.assert_close(joined.times, torch.tensor([[8.0, 1, 2], [5, 1, 2]]) / 15)
    ahead = MemoryContext.gather(model.select_memories(2, [5], []), records)
    assert ahead.pointers.shape == (1, 0, 1) and ahead.times.shape == (1, 0)


@torch.no_grad()
def test_a_frame_whose_only_prompt_lies_ahead_has_no_pointers():
    model, images = drawn(), torch.randn(2, 1, 3, 64, 64)
    start, _ = followed(model, images, prompt([20, 30]), torch.tensor([0]))
    past = MemoryContext.gather(model.select_memories(2, [5], []), {5: start})
    assert model.condition_on_memory(model.encode_image(images[1]), past, torch.tensor([0])).image.isfinite().all()
