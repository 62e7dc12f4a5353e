"""Prompting and finding in batches, folders, videos, streams and tensors, from `SAM` and Ultralytics' own model."""

# ruff: noqa: F811 (a test's argument is the fixture that was imported)

import cv2
import pytest
import torch
from support.videos import BOX, BOXES, OTHER, Cameras, alike, film, predictor, ready, taught, write_video  # noqa: F401

from samplug import SAM, PromptError, SAM2DynamicInteractivePredictor

# Sources


@pytest.mark.host
def test_a_batch_of_images_is_encoded_once_and_equals_single_ones(network, images, encodings):
    predictor = ready(network, batch=3)
    boxes = [[BOXES[0]], None, [[10, 10, 90, 80], [120, 20, 220, 90]]]
    predictor(images, bboxes=boxes, obj_ids=[[1], None, [1, 2]], update_memory=True)
    assert [lesson.ids for lesson in predictor.memory_bank] == [(1,), (1, 2)]
    encodings.clear()
    together = predictor(images)
    assert encodings == [3]
    single = ready(network)
    single.memory_bank = predictor.memory_bank
    for one, image in zip(together, images, strict=True):
        (other,) = single(image)
        assert one.orig_shape == image.shape[:2] and one.obj_ids == other.obj_ids
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-3)


@pytest.mark.host
def test_folders_are_searched_and_shown_by_the_names_of_their_files(network, images, tmp_path):
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    predictor = ready(network)
    shown = {"1.png": {"bboxes": [[30, 30, 110, 150]], "obj_ids": [3]}}
    single = ready(network)
    single(images[1], bboxes=[[30, 30, 110, 150]], obj_ids=[3], update_memory=True)
    with pytest.raises(RuntimeError, match="memory bank is empty"):
        predictor(tmp_path, prompts=shown, update_memory=True)  # 0.png comes first
    predictor(str(tmp_path / "1.png"), prompts=shown, update_memory=True)
    assert predictor.memory_bank[0].name.endswith("1.png")
    assert alike(predictor(tmp_path, stream=True), single(images))


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
def test_frames_of_a_video_that_come_together_are_not_all_shown(network, tmp_path):
    video = write_video(tmp_path / "film.avi", film()[:3])
    predictors = [ready(network, batch=batch) for batch in (1, 2)]
    runs = [each(str(video), bboxes=[BOX], obj_ids=[4], update_memory=True) for each in predictors]
    assert [len(each.memory_bank) for each in predictors] == [1, 1]
    for alone, together in zip(*runs, strict=True):
        torch.testing.assert_close(together.logits, alone.logits, rtol=0, atol=1e-3)


@pytest.mark.host
def test_streams_side_by_side_share_what_was_shown(network):
    frames = film()[:4]
    predictor = ready(network)
    shown = [{"bboxes": [BOX], "obj_ids": [4]}, {"bboxes": [OTHER], "obj_ids": [5]}]
    streams = Cameras(frames[:2], frames[2:])
    results = list(predictor(streams, stream=True, prompts=shown, update_memory=True))
    assert len(results) == 4 and all(result.obj_ids == (4, 5) for result in results)
    assert [lesson.ids for lesson in predictor.memory_bank] == [(4,), (5,)]


def test_an_image_that_was_set_is_encoded_once(network, images, encodings):
    predictor = ready(network)
    predictor.set_image(images[0])
    first = predictor(bboxes=BOXES, obj_ids=[7, -3], update_memory=True)
    second = predictor()
    assert encodings == [1] and alike(first, second)
    other = ready(network)
    assert alike(other(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True), first)
    assert alike(predictor(images[1]), other(images[1]))


def test_objects_can_be_prompted_by_tensors(network, images, taught):
    teacher = ready(network)
    teacher.setup_source(images[0])
    with torch.inference_mode():
        im = teacher.preprocess([images[0]])
        teacher.get_im_features(im)
        gain = 128 / 320
        corners = gain * torch.tensor(BOXES).view(2, 2, 2)
        teacher.update_memory([7, -3], corners, torch.tensor([[2, 3], [2, 3]]))
        assert torch.equal(teacher.memory_bank[0].memories, taught.memory_bank[0].memories)
        answer = teacher.track_step(0, corners[:1], torch.tensor([[2, 3]]))
        assert answer["pred_masks"].shape == (1, 1, 32, 32) and answer["object_score_logits"].shape == (1, 1)
        teacher.get_im_features(teacher.preprocess([images[1]]))
        everything = teacher.track_step()
    assert torch.equal(everything["pred_masks"][:, 0], taught(images[1])[0].logits)
    assert everything["pred_masks_high_res"].shape == (2, 1, 128, 128) and everything["obj_ptr"].shape == (2, 128)
    mask = torch.zeros(1, 128, 128)
    mask[:, 30:60, 20:70] = 1
    teacher.update_memory(5, masks=mask)
    assert teacher.memory_bank[1].ids == (5,) and teacher.memory_bank[1].presence == (10.0,)


def test_wrong_calls_of_the_tensor_api_are_refused(predictor, network, images):
    with pytest.raises(RuntimeError, match="No image has been encoded"):
        predictor.update_memory([1], torch.zeros(1, 1, 2), torch.ones(1, 1))
    predictor.setup_source(images[0])
    predictor.get_im_features(predictor.preprocess([images[0]]))
    for said, words in (
        ({"obj_ids": [1]}, "neither points nor masks"),
        ({"points": torch.zeros(1, 1, 2), "labels": torch.ones(1, 1)}, "obj_ids: is missing"),
        ({"obj_ids": [1, 2], "points": torch.zeros(1, 1, 2), "labels": torch.ones(1, 1)}, "for 1 objects"),
        ({"obj_ids": [1], "points": torch.zeros(1, 1, 2)}, "points with labels"),
    ):
        with pytest.raises(PromptError, match=words):
            predictor.update_memory(**said)
    predictor.get_im_features(predictor.preprocess([images[0], images[1]]))
    with pytest.raises(ValueError, match="2 images are encoded. Expected one"):
        predictor.update_memory([1], torch.zeros(1, 1, 2), torch.ones(1, 1))


# Ways in


@pytest.mark.host
def test_sam_keeps_what_was_shown_from_call_to_call(nano_file, images, taught):
    model = SAM(str(nano_file))
    how = {"predictor": SAM2DynamicInteractivePredictor, "imgsz": 128, "verbose": False}
    how |= {"logits": True, "keep_lost": True}
    model.predict(images[0], bboxes=BOXES, obj_ids=[7, -3], update_memory=True, **how)
    assert alike(model.predict(images[1], **how), taught(images[1]))
    assert type(model.predict(images[1], points=[[9, 9]], verbose=False)[0].boxes.id) is type(None)
    with pytest.raises(RuntimeError, match="memory bank is empty"):
        model.predict(images[1], **how)  # another predictor came between


@pytest.mark.host
def test_ultralytics_own_model_class_shows_and_finds(nano_file, images, taught):
    """A host model holding one of our networks, as `ultralytics.SAM(...).predict(predictor=…)` holds its own."""
    from ultralytics.engine.model import Model

    stock = Model.__new__(Model)
    torch.nn.Module.__init__(stock)
    stock.__dict__.update(SAM(str(nano_file)).__dict__)
    stock.predictor = None
    how = {"predictor": SAM2DynamicInteractivePredictor, "imgsz": 128, "verbose": False}
    ours = {"obj_ids": [7, -3], "update_memory": True, "keep_lost": True, "logits": True}
    Model.predict(stock, images[0], prompts={"bboxes": BOXES}, **how, **ours)
    assert alike(Model.predict(stock, images[1], **how), taught(images[1]))
    stock.predictor.set_prompts({"obj_ids": [2], "update_memory": True})
    shown = Model.predict(stock, images[1], prompts={"points": [[40, 40]]}, **how)
    assert shown[0].obj_ids == (7, -3, 2)
